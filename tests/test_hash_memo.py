"""A file is remembered only for as long as nothing about it changes."""

import os
from types import SimpleNamespace

import pytest

from flowalign.encoders import hash_memo
from flowalign.encoders.hash_memo import HashMemo


@pytest.fixture
def at_once(monkeypatch):
    """Remember files however young they are."""
    monkeypatch.setattr(hash_memo, "AT_REST_SECONDS", -1e9)
    monkeypatch.setattr(hash_memo, "AT_REST_FINE", -1e9)


def _remember(known, path):
    stamp = known.stamp(path)
    if stamp is not None:
        known.add(path, stamp, "content")


@pytest.mark.usefixtures("at_once")
def test_a_file_is_remembered_until_it_changes(tmp_path):
    known, path = HashMemo(), tmp_path / "a"
    path.write_text("1")
    assert known.get(path) is None
    _remember(known, path)
    assert known.get(path) == known.get(str(path)) == "content"
    before = path.stat().st_mtime_ns
    path.write_text("2")  # the same size
    os.utime(path, ns=(before, before))  # and the same time of writing
    assert known.get(path) is None
    path.unlink()
    assert known.get(path) is None
    assert known.stamp(path) is None


@pytest.mark.usefixtures("at_once")
def test_another_file_of_the_name_is_not_taken_for_it(tmp_path):
    known, path = HashMemo(), tmp_path / "a"
    path.write_text("1")
    _remember(known, path)
    (tmp_path / "b").write_text("2")
    (tmp_path / "b").replace(path)
    assert known.get(path) is None


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("field", ["st_mtime_ns", "st_ctime_ns", "st_size", "st_ino", "st_dev"])
def test_whatever_changes_makes_it_another_file(field, tmp_path, monkeypatch):
    known, path = HashMemo(), tmp_path / "a"
    path.write_text("1")
    _remember(known, path)
    stat = path.stat()
    values = {name: getattr(stat, name) for name in dir(stat) if name.startswith("st_")}
    for change, found in ((0, "content"), (1, None)):
        changed = SimpleNamespace(**values | {field: values[field] + change})
        monkeypatch.setattr(
            hash_memo, "os", SimpleNamespace(stat=lambda _, s=changed: s, fspath=os.fspath)
        )
        assert known.get(path) == found


def test_a_file_just_written_is_not_remembered(tmp_path):
    # It may be written again within the resolution of the clock.
    known, path = HashMemo(), tmp_path / "a"
    path.write_text("1")
    _remember(known, path)
    assert known.get(path) is None


@pytest.mark.usefixtures("at_once")
def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(hash_memo, "LIMIT", 3)
    known = HashMemo()
    for i in range(5):
        (tmp_path / str(i)).touch()
        _remember(known, tmp_path / str(i))
    assert sum(known.get(tmp_path / str(i)) is not None for i in range(5)) == 2


def test_stamps_of_whole_seconds_are_trusted_later(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("1")
    known, written = HashMemo(), path.stat().st_ctime_ns
    monkeypatch.setattr(hash_memo.time, "time_ns", lambda: written + 500_000_000)
    os.utime(path, ns=(written, 12_345_678_901))
    fine = path.stat().st_ctime_ns % 1_000_000_000 != 0
    assert (known.stamp(path) is not None) == fine
    os.utime(path, ns=(written, 12_000_000_000))
    assert known.stamp(path) is None
