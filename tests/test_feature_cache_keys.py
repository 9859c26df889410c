"""What a row is kept under, and what becomes of a file that is damaged."""

import contextlib
import sqlite3

import numpy as np
import pytest

from flowalign.encoders import cache as cache_module
from flowalign.encoders.backbone import Backbone, content_hash, spell_out
from flowalign.encoders.cache import FILE_NAME, EncoderSpace, FeatureCache

SPACE = EncoderSpace("a model", {"weights": "1"})
OTHER = EncoderSpace("a model", {"weights": "2"})
ROW = np.arange(8, dtype=np.float32)


def _change(folder, statement, *values):
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as database, database:
        database.execute(statement, values)


def _store(cache, *contents, space=SPACE):
    cache.store(space, dict.fromkeys(contents, ROW), {c: f"{c}.png" for c in contents})


def test_the_order_of_an_identity_does_not_matter():
    one = EncoderSpace("a model", {"weights": "1", "crop": {"size": 2, "seed": 3}})
    two = EncoderSpace("a model", {"crop": {"seed": 3, "size": 2}, "weights": "1"})
    assert one.key == two.key
    assert one.key != EncoderSpace("a model", {"weights": "1", "crop": {"size": 3, "seed": 2}}).key


def test_a_row_that_changed_its_space_is_damaged(tmp_path):
    cache = FeatureCache(tmp_path)
    _store(cache, "a", "b")
    _change(tmp_path, "UPDATE features SET space = ? WHERE content = 'a'", OTHER.key)
    with pytest.warns(UserWarning, match=r"1 damaged entries.*a\.png"):
        assert cache.load(OTHER, ["a", "b"]) == {}
    assert cache.load(SPACE, ["a", "b"]).keys() == {"b"}
    assert FeatureCache(tmp_path / "new").merge(tmp_path) == 1


@pytest.mark.parametrize(
    "value", [b"\x00" * 31, "text", 3, None], ids=["no floats", "text", "number", "nothing"]
)
def test_a_vector_that_is_none_is_damaged(value, tmp_path):
    cache = FeatureCache(tmp_path)
    _store(cache, "a")
    _change(tmp_path, "DROP TABLE features")
    columns = "space TEXT, content TEXT, source TEXT, vector, checksum, UNIQUE (space, content)"
    _change(tmp_path, f"CREATE TABLE features ({columns})")
    checksum = None
    if isinstance(value, bytes):
        checksum = cache_module._checksum(SPACE.key, "a", value)
    _change(
        tmp_path,
        "INSERT INTO features VALUES (?, 'a', 'a.png', ?, ?)",
        SPACE.key, value, checksum,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="1 damaged entries"):
        assert cache.load(SPACE, ["a"]) == {}


@pytest.mark.parametrize("column", ["content", "source"])
def test_a_text_that_is_no_utf_8_means_a_damaged_file(column, tmp_path):
    cache = FeatureCache(tmp_path)
    _store(cache, "a")
    _change(tmp_path, "DROP TABLE features")
    columns = "space TEXT, content, source, vector BLOB, checksum INTEGER"
    _change(tmp_path, f"CREATE TABLE features ({columns}, UNIQUE (space, content))")
    texts = {"content": "'a'", "source": "'a.png'", column: "CAST(x'61ff' AS TEXT)"}
    values = f"?, {texts['content']}, {texts['source']}, x'00000000', 0"
    _change(tmp_path, f"INSERT INTO features VALUES ({values})", SPACE.key)
    if column == "content":  # not looked for, so not met
        assert cache.load(SPACE, ["a"]) == {}
        return
    with pytest.warns(UserWarning, match=r"is damaged .* It is kept as features\.sqlite\.damaged"):
        assert cache.load(SPACE, ["a"]) == {}
    _store(cache, "a")  # in a new file
    assert cache.load(SPACE, ["a"]).keys() == {"a"}
    assert len([*tmp_path.iterdir()]) == 2


def test_a_cache_whose_texts_are_no_utf_8_is_not_merged(tmp_path):
    _store(FeatureCache(tmp_path / "two"), "a")
    _change(tmp_path / "two", "UPDATE features SET source = CAST(x'ff' AS TEXT)")
    with pytest.raises(ValueError, match="cannot be merged into"):
        FeatureCache(tmp_path / "one").merge(tmp_path / "two")


def _broken(folder):
    cache = FeatureCache(folder)
    (folder / FILE_NAME).write_bytes(b"no database" * 1000)
    return cache


def test_after_a_damaged_file_rows_are_kept_in_a_new_one(tmp_path):
    cache = _broken(tmp_path)
    with pytest.warns(UserWarning, match="is damaged"):
        _store(cache, "a")
    _store(cache, "b")
    assert cache.load(SPACE, ["a", "b"]).keys() == {"b"}


def test_a_new_file_of_the_name_is_not_put_aside_for_a_damaged_one(tmp_path, monkeypatch):
    """Another process was quicker: it has put the damaged file aside and begun a new one."""
    cache = _broken(tmp_path)
    connect = sqlite3.connect

    def slow(path, **options):
        database = connect(path, **options)
        database.execute("SELECT 1")  # opens the damaged file
        (tmp_path / FILE_NAME).rename(tmp_path / "aside")
        monkeypatch.setattr(sqlite3, "connect", connect)
        _store(FeatureCache(tmp_path), "a")
        other = connect(tmp_path / "aside", **options)
        database.close()
        return other

    monkeypatch.setattr(cache_module.sqlite3, "connect", slow)
    with pytest.warns(UserWarning, match=r"is damaged .* encoded again\.$"):
        assert cache.load(SPACE, ["a"]) == {}
    assert {file.name for file in tmp_path.iterdir()} == {FILE_NAME, "aside"}
    assert cache.load(SPACE, ["a"]).keys() == {"a"}


def test_the_journal_of_a_damaged_file_goes_with_it(tmp_path):
    """It belongs to the old file; in the new one it would undo what is whole."""
    cache = FeatureCache(tmp_path)
    _store(cache, "a")
    _change(tmp_path, "UPDATE features SET source = CAST(x'ff' AS TEXT)")
    journal = tmp_path / f"{FILE_NAME}-journal"
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as writer:
        writer.execute("UPDATE features SET vector = zeroblob(32)")
        content = journal.read_bytes()
        with pytest.warns(UserWarning, match="is damaged"):
            cache.load(SPACE, ["a"])
        assert not journal.exists()
        assert [f.read_bytes() for f in tmp_path.glob("*damaged*-journal")] == [content]
    _store(cache, "b")
    assert cache.load(SPACE, ["a", "b"]).keys() == {"b"}


def test_a_path_in_a_warning_shows_what_a_reader_would_not_see(tmp_path):
    cache = _broken(tmp_path / "a\nb")
    with pytest.warns(
        UserWarning, match=r"The feature cache '.*a\\nb/features\.sqlite' is damaged"
    ):
        cache.load(SPACE, ["a"])


class _Plain(Backbone):
    space = prepare = forward = forward_text = None


def test_views_are_kept_apart_and_a_single_one_under_the_content():
    backbone = _Plain()
    keys = {backbone.key("a", number, count) for count in (2, 3) for number in range(count)}
    assert len(keys) == 5
    assert backbone.key("a", 0, 1) == "a"
    texts = ["a", "A", "a ", "b", "ab", "\udce9"]
    assert len({*backbone.tokenize(texts)[1]}) == len(texts)
    assert backbone.tokenize(["a"])[1] == [content_hash(b"a")]


def test_a_spelling_tells_whatever_differs():
    array = np.arange(6)
    items = [
        b"a", b"ab", [b"a"], (b"a",), [b"a", b"b"], [[b"a"], b"b"], [], (), [[]],
        [b"a bytes b", b"c"], [b"a", b"b bytes c"], [b"a bytes 1 b", b"c"], [b"a", b"b bytes 1 c"],
        1, 1.0, True, 1j, np.float32(1), np.float64(1), array, array.reshape(2, 3),
        array.reshape(3, 2), array.astype(np.int32), array.astype(float), array > 2, array[:0],
        [1, 2], [12], [[1], 2], [1, [2]],
    ]  # fmt: skip
    assert len({spell_out(item) for item in items}) == len(items)
    assert spell_out(array[::-1]) == spell_out(array[::-1].copy())
