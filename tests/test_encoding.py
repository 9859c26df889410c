"""Each content is encoded once and known for what it is, whatever happens meanwhile."""

import contextlib
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from number_files import CALLS, ReadingEncoder, count_letters, read_numbers, write_files

from flowalign.encoders import CallableEncoder, encoding, hash_memo
from flowalign.encoders.cache import FILE_NAME
from flowalign.prompts import IMAGE_TEMPLATES


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path / "files")


def _cached(tmp_path, **params):
    return CallableEncoder(read_numbers, name="numbers 1", cache=tmp_path / "cache", **params)


def test_content_counts_not_the_name(files, tmp_path):
    encoder = _cached(tmp_path)
    first = encoder.transform(files)
    copies = [str(tmp_path / f"copy{i}.txt") for i in range(12)]
    for file, copy in zip(files, copies, strict=True):
        Path(copy).write_bytes(Path(file).read_bytes())
    np.testing.assert_array_equal(encoder.transform(copies), first)
    assert len(CALLS) == 1
    Path(copies[3]).write_text("1 2 3 4")
    changed = encoder.transform(copies)
    np.testing.assert_array_equal(changed[3], [1, 2, 3, 4])
    np.testing.assert_array_equal(np.delete(changed, 3, 0), np.delete(first, 3, 0))


def test_a_file_that_was_hashed_before_is_hashed_again_when_it_changes(
    files, tmp_path, monkeypatch
):
    monkeypatch.setattr(hash_memo, "AT_REST_FINE", -1e9)  # remembered at once
    monkeypatch.setattr(hash_memo, "AT_REST_SECONDS", -1e9)
    encoder = _cached(tmp_path)
    encoder.transform(files)
    stat, new = os.stat(files[0]), "9 9 9 9"
    Path(files[0]).write_text(new + " " * (stat.st_size - len(new)))  # of the same size
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))  # and the same time of writing
    np.testing.assert_array_equal(encoder.transform(files)[0], [9, 9, 9, 9])


def test_equal_contents_are_encoded_once(files, tmp_path):
    rows = _cached(tmp_path).transform([files[0], files[1], files[0]])
    np.testing.assert_array_equal(rows[0], rows[2])
    assert len(CALLS[0]) == 2


def test_what_was_encoded_before_an_interruption_is_kept(files, tmp_path):
    def interrupted(paths):
        if files[4] in paths:
            raise KeyboardInterrupt
        return read_numbers(paths)

    settings = {"name": "numbers 1", "cache": tmp_path / "cache", "batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        CallableEncoder(interrupted, **settings).transform(files)
    CALLS.clear()
    CallableEncoder(read_numbers, **settings).transform(files)
    assert [path for call in CALLS for path in call] == files[4:]


def test_names_keep_functions_apart(files, tmp_path):
    cache = tmp_path / "cache"
    CallableEncoder(read_numbers, name="1", cache=cache).transform(files)
    CallableEncoder(read_numbers, name="2", cache=cache).transform(files)
    assert len(CALLS) == 2


def _measure(items):
    CALLS.append(items)
    return [[np.sum(np.asarray(item, dtype=float)), np.size(item)] for item in items]


def test_items_that_are_no_paths_are_known_by_their_values(tmp_path):
    encoder = CallableEncoder(_measure, name="sums", cache=tmp_path)
    items = [np.arange(3.0), np.arange(4.0), np.arange(3), 3.0, [3.0], (1, np.arange(2))[0], True]
    items += [np.float64(3), np.arange(4.0).reshape(2, 2), np.arange(3.0)[::-1]]
    rows = encoder.transform(items)
    assert len(CALLS[0]) == len(items)  # all are different
    np.testing.assert_array_equal(
        rows, encoder.transform([np.copy(i) if type(i) is np.ndarray else i for i in items])
    )
    assert len(CALLS) == 1
    np.testing.assert_array_equal(encoder.transform(np.arange(12).reshape(4, 3))[:, 1], [3] * 4)


@pytest.mark.parametrize(
    "item",
    [
        object(),
        ("a path.txt", 2),  # the file is not read, so its content would not count
        np.ma.masked_array([1, 2], [0, 1]),
        pd.DataFrame({"a": [1]}),
        np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        np.array([object()]),
    ],
)
def test_items_whose_content_cannot_be_told_are_refused_by_the_cache(item, tmp_path):
    with pytest.raises(TypeError, match=r"item 1 of X: the cache cannot tell .*cache=None"):
        CallableEncoder(_measure, name="sums", cache=tmp_path).transform([1, item])


def test_a_file_that_changes_before_it_is_read_is_not_kept(files, tmp_path):
    first = Path(files[0])
    before = first.read_text()

    def read_late(paths):
        first.write_text("7 7 7 7")
        return read_numbers(paths)

    settings = {"name": "numbers 1", "cache": tmp_path / "cache"}
    with pytest.raises(ValueError, match=r"00\.txt is unreadable: it changed while"):
        CallableEncoder(read_late, **settings).transform(files[:2])
    first.write_text(before)
    row = CallableEncoder(read_numbers, **settings).transform(files[:1])[0]
    np.testing.assert_allclose(row, np.loadtxt(first), rtol=1e-6)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_file_that_changes_between_hashing_and_reading_is_not_kept(on_error, files, tmp_path):
    first, second = files[:2]
    before = Path(second).read_text()

    def encode_and_write(rows):
        Path(second).write_text("7 7 7 7")  # all are hashed, and the next is read later
        return rows

    encoder = ReadingEncoder(encode_and_write, cache=tmp_path / "cache", batch_size=1)
    message = r"01\.txt is unreadable: it changed while it was being encoded"
    if on_error == "raise":
        with pytest.raises(ValueError, match=message):
            encoder.transform([first, second])
    else:
        with pytest.warns(UserWarning, match=message):
            assert encoder.encode([first, second], on_error="skip").rows.tolist() == [0]
    Path(second).write_text(before)
    row = ReadingEncoder(cache=tmp_path / "cache").transform([second])[0]
    np.testing.assert_allclose(row, np.loadtxt(second), rtol=1e-6)


def test_a_file_written_again_within_the_tick_of_a_clock_is_read_again(tmp_path, monkeypatch):
    path, tick = tmp_path / "a.txt", 2_000_000_000
    stat = os.stat

    def coarse(path):
        found = stat(path)
        times = (t // tick * tick for t in (found.st_mtime_ns, found.st_ctime_ns))
        return (*times, found.st_size, found.st_ino, found.st_dev)

    monkeypatch.setattr(hash_memo, "_signature", coarse)
    for row in ([1, 2, 3, 4], [5, 6, 7, 8], [9, 8, 7, 6]):
        path.write_text(" ".join(map(str, row)))
        np.testing.assert_array_equal(_cached(tmp_path).transform([path])[0], row)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("cached", [True, False])
def test_running_out_of_memory_is_never_skipped(cached, on_error, files, tmp_path):
    def no_memory(*_):
        raise MemoryError

    encoder = ReadingEncoder(cache=tmp_path / "cache" if cached else None, prepare=no_memory)
    with pytest.raises(MemoryError):
        encoder.encode(files[:2], on_error=on_error)


def _count_kept(folder):
    if not (folder / FILE_NAME).exists():
        return 0
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as database:
        return database.execute("SELECT count(*) FROM contents").fetchone()[0]


def test_an_interruption_costs_a_thousand_rows_or_a_second(tmp_path, monkeypatch):
    kept = []

    def encode(numbers):
        kept.append(_count_kept(tmp_path))
        return [[number] for number in numbers]

    settings = {"name": "numbers", "cache": tmp_path, "batch_size": 512}
    monkeypatch.setattr(encoding, "STORE_SECONDS", np.inf)
    CallableEncoder(encode, **settings).transform(range(2560))
    assert kept == [0, 0, 1024, 1024, 2048]
    assert _count_kept(tmp_path) == 2560
    kept.clear()
    clock = iter(np.arange(100.0))  # a second between any two looks at it
    monkeypatch.setattr(encoding, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(encoding, "STORE_SECONDS", 0.5)
    monkeypatch.setattr(encoding, "STORE_ROWS", np.inf)
    CallableEncoder(encode, **settings).transform(range(-2560, 0))
    assert [count - 2560 for count in kept] == [0, 512, 1024, 1536, 2048]


def test_what_looks_odd_is_said_once_for_all(files, tmp_path):
    def odd(content):
        return "it begins with 1" if content.startswith(b"1") else None

    rows = [Path(file).read_text().split() for file in files]
    assert (expected := [i for i in range(12) if rows[i][0].startswith("1")])
    encoder = ReadingEncoder(cache=tmp_path / "cache", doubt=odd)
    with pytest.warns(UserWarning, match="items look odd") as caught:
        encoder.transform(files)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.startswith(f"{len(expected)} of 12 items look odd: ")
    assert f"{files[expected[0]]}: it begins with 1." in message
    encoder.transform(files)  # kept: known, and said
    again = ReadingEncoder(doubt=odd)
    with pytest.warns(UserWarning, match="items look odd"), pytest.warns(match="skipped"):
        again.encode([*files, "gone.txt"], on_error="skip")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b.txt", "a b.txt"),
        ("日本.txt", "日本.txt"),
        ("a.txt\r", r"'a.txt\r'"),
        ("a\n.txt", r"'a\n.txt'"),
        ("\x1b[31m.txt", r"'\x1b[31m.txt'"),
        ("\u202etxt.a", r"'\u202etxt.a'"),
        ("a.txt ", "'a.txt '"),
        ("caf\udce9.txt", r"'caf\udce9.txt'"),
    ],
)
@pytest.mark.parametrize("cached", [True, False])
def test_messages_show_what_a_reader_would_not_see_in_a_path(name, shown, cached, tmp_path):
    encoder = ReadingEncoder(cache=tmp_path / "cache" if cached else None)
    with pytest.raises(FileNotFoundError) as caught:
        encoder.transform([name])
    assert str(caught.value).startswith(f"{shown} does not exist. ")


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("name", "shown"), [("", "''"), ("a\0b", r"'a\x00b'")])
def test_names_that_no_file_can_have(name, shown, cached, tmp_path):
    encoder = ReadingEncoder(cache=tmp_path / "cache" if cached else None)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        encoder.transform([name])
    assert str(caught.value).startswith(f"{shown} ")


@pytest.mark.parametrize("width", [2, 5])
def test_a_forgotten_change_of_name_is_noticed_by_the_width(width, files, tmp_path):
    settings = {"name": "numbers 1", "cache": tmp_path / "cache"}
    CallableEncoder(read_numbers, **settings).transform(files[:2])
    with pytest.raises(ValueError, match=f"has {width} features, .* 4.*does the name"):
        CallableEncoder(lambda paths: np.ones((len(paths), width)), **settings).transform(files)


def test_a_batch_that_fails_is_gone_through_one_by_one_when_skipping(files):
    Path(files[2]).write_text("no numbers")
    Path(files[7]).write_text("nan 1 2 3")
    encoder = CallableEncoder(read_numbers, batch_size=5)
    with pytest.warns(UserWarning, match="2 of 12 items were skipped"):
        result = encoder.encode(files, on_error="skip")
    assert result.rows.tolist() == [i for i in range(12) if i not in (2, 7)]
    assert "could not convert" in result.skipped[0][1]
    assert "NaN or infinite" in result.skipped[1][1]
    with pytest.raises(ValueError, match=r"07\.txt is unreadable: its features are NaN"):
        encoder.transform(files[5:])
    with pytest.raises(ValueError, match="could not convert") as caught:
        encoder.transform(files)
    assert "In a batch of 5 from" in caught.value.__notes__[0]


def test_a_text_is_not_taken_for_a_file_of_that_content(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3 4")
    encoder = CallableEncoder(read_numbers, count_letters, name="1", cache=tmp_path)
    np.testing.assert_array_equal(encoder.transform([tmp_path / "a.txt"]), [[1, 2, 3, 4]])
    np.testing.assert_array_equal(encoder.encode_text(["1 2 3 4"]), [[0, 0, 7, 1]])


def test_texts_are_cached_apart_from_items(tmp_path):
    encoder = CallableEncoder(count_letters, count_letters, name="letters", cache=tmp_path)
    encoder.encode_text(["ab", "b", "ab"])
    encoder.encode_text(["b", "ab"])
    assert CALLS == [["ab", "b"]]
    encoder.class_embeddings(["a"])
    assert CALLS[1] == ["a"]  # an encoder of anything has no template of its own
    assert IMAGE_TEMPLATES[0] not in CALLS[1]
