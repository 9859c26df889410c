"""The cache returns what was put in or nothing, whatever happens to its file or its processes."""

import contextlib
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest

from flowalign.encoders.cache import FILE_NAME, EncoderSpace, FeatureCache

SPACE = EncoderSpace("a model", {"weights": "1"})


def _rows(n, start=0):
    return {str(i): np.full(8, i, dtype=np.float32) for i in range(start, start + n)}


def _store(cache, rows, space=SPACE):
    cache.store(space, rows, {key: f"{key}.png" for key in rows})


def _assert_true(found):
    for key, row in found.items():
        np.testing.assert_array_equal(row, np.full(8, int(key)))


def test_rows_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    rows = {str(i): rng.standard_normal(5).astype(np.float32) for i in range(1200)}
    _store(FeatureCache(tmp_path / "new" / "folder"), rows)
    found = FeatureCache(tmp_path / "new" / "folder").load(SPACE, [*rows, "unknown"])
    assert found.keys() == rows.keys()
    for key, row in rows.items():
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], row)
        found[key][0] = 1  # a copy, not a view of something read-only


def test_spaces_are_apart_and_their_names_do_not_matter(tmp_path):
    cache = FeatureCache(tmp_path)
    _store(cache, _rows(2))
    assert cache.load(EncoderSpace("a model", {"weights": "2"}), ["0"]) == {}
    assert cache.load(EncoderSpace("the same elsewhere", {"weights": "1"}), ["0"]).keys() == {"0"}


def test_the_index_is_readable(tmp_path):
    _store(FeatureCache(tmp_path), _rows(2))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        listing = database.execute("SELECT encoder, source, content, width FROM contents")
        assert [*listing] == [("a model", "0.png", "0", 8), ("a model", "1.png", "1", 8)]


def test_a_damaged_row_is_missed_with_a_warning_and_can_be_replaced(tmp_path):
    cache = FeatureCache(tmp_path)
    _store(cache, _rows(3))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as database, database:
        database.execute("UPDATE features SET vector = zeroblob(32) WHERE content = '1'")
        database.execute("UPDATE features SET vector = NULL || 'x' WHERE content = '9'")
    with pytest.warns(UserWarning, match=r"1 damaged entries.*1\.png"):
        assert cache.load(SPACE, ["0", "1", "2"]).keys() == {"0", "2"}
    _store(cache, {"1": np.full(8, 1, dtype=np.float32)})
    _assert_true(cache.load(SPACE, ["1"]))


def test_rows_that_changed_places_are_damaged(tmp_path):
    cache = FeatureCache(tmp_path)
    _store(cache, _rows(2))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as database, database:
        database.execute("UPDATE features SET content = 'x' WHERE content = '0'")
        database.execute("UPDATE features SET content = '0' WHERE content = '1'")
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.load(SPACE, ["0"]) == {}


@pytest.mark.parametrize("content", [b"", b"no database" * 1000, None])
def test_a_foreign_or_truncated_file_is_put_aside(content, tmp_path):
    cache, file = FeatureCache(tmp_path), tmp_path / FILE_NAME
    _store(cache, _rows(200))
    before = file.read_bytes()
    file.write_bytes(before[: len(before) // 2] if content is None else content)
    broken = file.read_bytes()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = cache.load(SPACE, _rows(200))
    _assert_true(found)
    assert len(found) < 200
    if content != b"":  # an empty file is an empty database
        assert "damaged" in str(caught[0].message)
        aside = [f for f in tmp_path.iterdir() if "damaged" in f.name]
        assert [f.read_bytes() for f in aside] == [broken]
    _store(cache, _rows(200))
    assert len(cache.load(SPACE, _rows(200))) == 200


@pytest.mark.parametrize("seed", range(20))
def test_whatever_bytes_change_rows_are_right_or_missing(seed, tmp_path):
    cache, file = FeatureCache(tmp_path), tmp_path / FILE_NAME
    _store(cache, _rows(150))
    rng = np.random.default_rng(seed)
    content = bytearray(file.read_bytes())
    for position in rng.integers(0, len(content), 1 + 10 * seed):
        content[position] = rng.integers(256)
    file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _assert_true(cache.load(SPACE, _rows(150)))
        _store(cache, _rows(150))
        _assert_true(cache.load(SPACE, _rows(150)))


def test_tables_of_another_layout_are_left_alone(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute("CREATE TABLE features (other TEXT)")
    cache = FeatureCache(tmp_path)
    with pytest.warns(UserWarning, match="could not be read"):
        assert cache.load(SPACE, ["0"]) == {}
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


def test_a_table_with_more_columns_is_used(tmp_path):
    cache = FeatureCache(tmp_path)
    _store(cache, _rows(1))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute("ALTER TABLE features ADD COLUMN made TEXT")
    _store(cache, _rows(2))
    assert len(cache.load(SPACE, _rows(2))) == 2


def test_names_that_are_no_utf_8_are_spelled_out(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.store(SPACE, _rows(1), {"0": b"caf\xe9.wav".decode("utf-8", "surrogateescape")})
    _assert_true(cache.load(SPACE, ["0"]))
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


def test_a_cache_that_is_locked_is_waited_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr("flowalign.encoders.cache.LOCK_SECONDS", 0.2)
    cache = FeatureCache(tmp_path)
    _store(cache, _rows(1))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.warns(UserWarning, match="could not be written.*locked"):
            _store(cache, _rows(2))
        _store(cache, _rows(2))  # no wait, no warning
    assert len(FeatureCache(tmp_path).load(SPACE, _rows(2))) == 1
    later = FeatureCache(tmp_path)
    _store(later, _rows(2))
    assert len(later.load(SPACE, _rows(2))) == 2


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_argument(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cache must be a folder"):
        FeatureCache(tmp_path / "file")


def test_what_cannot_be_written_is_not_kept(tmp_path):
    cache, file = FeatureCache(tmp_path), tmp_path / FILE_NAME
    file.mkdir()
    with pytest.warns(UserWarning, match=r"could not be written.*encoded without it"):
        _store(cache, _rows(1))
    with pytest.warns(UserWarning, match="could not be read"):
        assert cache.load(SPACE, ["0"]) == {}


def test_a_cache_that_is_read_only_is_read(tmp_path):
    cache, file = FeatureCache(tmp_path), tmp_path / FILE_NAME
    _store(cache, _rows(1))
    file.chmod(stat.S_IREAD)
    _assert_true(cache.load(SPACE, ["0"]))


WRITER = """
import sys
import numpy as np
from flowalign.encoders.cache import FeatureCache, EncoderSpace

cache, space = FeatureCache(sys.argv[1]), EncoderSpace("a model", {"weights": "1"})
first, last = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for start in range(first, last, 10):
    rows = {str(i): np.full(8, i, dtype=np.float32) for i in range(start, min(start + 10, last))}
    cache.store(space, rows, {key: f"{key}.png" for key in rows})
    print(start, flush=True)
"""


def _writer(folder, first, last):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(WRITER), str(folder)]
    return subprocess.Popen(
        [*command, str(first), str(last)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_many_processes_write_at_once(tmp_path):
    # They overlap: 0 to 300, 150 to 450, 300 to 600.
    writers = [_writer(tmp_path, start, start + 300) for start in (0, 150, 300)]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    found = FeatureCache(tmp_path).load(SPACE, _rows(600))
    assert len(found) == 600
    _assert_true(found)


def test_a_killed_writer_loses_nothing_that_it_had_stored(tmp_path):
    writer = _writer(tmp_path, 0, 1_000_000)
    for line in writer.stdout:
        if line.strip() == "50":
            break
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    cache = FeatureCache(tmp_path)
    found = cache.load(SPACE, _rows(2000))
    assert {str(i) for i in range(60)} <= found.keys()
    assert len(found) % 10 == 0  # transactions are whole
    _assert_true(found)
    _store(cache, _rows(10, start=5000))
    assert len(cache.load(SPACE, _rows(10, start=5000))) == 10


def _spoil(folder, content):
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as database:
        database.execute("UPDATE features SET vector = zeroblob(32) WHERE content = ?", (content,))
        database.commit()


def test_caches_are_merged(tmp_path):
    one, two = FeatureCache(tmp_path / "one"), FeatureCache(tmp_path / "two")
    other_space = EncoderSpace("another model", {"weights": "2"})
    _store(one, _rows(3))
    _store(two, _rows(4, start=2))
    _store(two, {"0": np.full(8, 7, dtype=np.float32)}, other_space)
    _spoil(tmp_path / "two", "5")
    assert one.merge(tmp_path / "two") == 3  # 3, 4 and that of the other space
    assert one.merge(tmp_path / "two") == one.merge(tmp_path / "one") == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = one.load(SPACE, map(str, range(7)))
    assert found.keys() == set("01234")
    _assert_true(found)
    np.testing.assert_array_equal(one.load(other_space, ["0"])["0"], np.full(8, 7))
    with contextlib.closing(sqlite3.connect(tmp_path / "one" / FILE_NAME)) as database:
        assert database.execute("SELECT count(*) FROM contents").fetchone() == (6,)


def test_a_merge_mends_damaged_rows(tmp_path):
    one, two = FeatureCache(tmp_path / "one"), FeatureCache(tmp_path / "two")
    for cache in (one, two):
        _store(cache, _rows(3))
    _spoil(tmp_path / "one", "1")
    _spoil(tmp_path / "two", "2")
    assert one.merge(tmp_path / "two") == 1
    found = one.load(SPACE, map(str, range(3)))
    assert found.keys() == set("012")
    _assert_true(found)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_the_cache_of_a_killed_writer_is_merged(tmp_path):
    _store(FeatureCache(tmp_path / "two"), _rows(3))
    code = f"""
        import os, signal, sqlite3
        database = sqlite3.connect({str(tmp_path / "two" / FILE_NAME)!r}, isolation_level=None)
        database.execute("PRAGMA cache_size = 1")  # so that it is written before it is committed
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE features SET vector = zeroblob(100000)")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert (tmp_path / "two" / f"{FILE_NAME}-journal").stat().st_size
    one = FeatureCache(tmp_path / "one")
    assert one.merge(tmp_path / "two") == 3
    _assert_true(one.load(SPACE, map(str, range(3))))


@pytest.mark.parametrize("content", [b"", b"no database, but long enough to be one" * 100])
def test_what_is_no_cache_is_not_merged(content, tmp_path):
    cache = FeatureCache(tmp_path / "one")
    _store(cache, _rows(2))
    (tmp_path / "two").mkdir()
    with pytest.raises(ValueError, match=r"folder=.*has no features\.sqlite"):
        cache.merge(tmp_path / "two")
    assert not [*(tmp_path / "two").iterdir()]
    (tmp_path / "two" / FILE_NAME).write_bytes(content)
    with pytest.raises(ValueError, match=r"two.features\.sqlite cannot be merged"):
        cache.merge(tmp_path / "two")
    assert len(cache.load(SPACE, "01")) == 2
