"""A file bears the name that it was given, when it is complete and never before."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from devices import null_device
from feature_files import write_feature_set

from flowalign.atomic_file import check_is_file, expanded, written_whole
from flowalign.benchmark import METHODS, run
from flowalign.benchmark.store import ROWS
from flowalign.datasets import make_cross_modal

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX files")


def write(path, data):
    with written_whole(path) as file:
        file.write(data)
        # Aside it has another ending: whoever lists files meanwhile does not take it for one.
        assert len([*path.parent.iterdir()]) == 2
        assert [*path.parent.glob("*.npz")] == [path]
        if not data:
            raise KeyboardInterrupt


def replace(path, data=b"new"):
    with written_whole(path) as file:
        file.write(data)


def test_what_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.npz"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write(path, b"")
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "old"
    write(path, b"new")
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "new"


def test_threads_that_write_one_file_leave_one_whole(tmp_path):
    def write(k):
        with written_whole(tmp_path / "no ending") as file:
            for _ in range(100):
                file.write(bytes([k]) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(16)))
    data = np.frombuffer((tmp_path / "no ending").read_bytes(), np.uint8)
    assert len(data) == 100_000
    assert np.ptp(data) == 0
    assert len([*tmp_path.iterdir()]) == 1


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    replace("~/a")
    replace(Path("~") / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    # Only at its start, and only if there is such a user.
    for path in ("x/~/y", "a~", "~no such user/x"):
        assert expanded(path) == Path(path)


@posix
@pytest.mark.parametrize("there", [True, False])
def test_links_stay_and_lead_to_the_new_file(there, tmp_path):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target"
    if there:
        target.write_text("old")
    (tmp_path / "link").symlink_to("folder/target")  # relative to the link, not to us
    (tmp_path / "chain").symlink_to("link")
    (tmp_path / "to folder").symlink_to("folder")
    for k, path in enumerate(["link", "chain", "to folder/target"]):
        replace(tmp_path / path, f"{k}".encode())
        assert target.read_text() == f"{k}"
        assert not target.is_symlink()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "chain").is_symlink()
    assert os.listdir(tmp_path / "folder") == ["target"]


@posix
def test_what_is_no_file_is_refused_and_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    kinds = {tmp_path / "pipe": "named pipe", tmp_path / "link": "named pipe"}
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")  # the name may have some hundred bytes at most
        kinds[tmp_path / "socket"] = "socket"
        for path, kind in kinds.items():
            before = path.lstat().st_ino
            for touch in (replace, check_is_file):
                with pytest.raises(ValueError, match=f"path must name a file; {path} is a {kind}"):
                    touch(path)
            assert path.lstat().st_ino == before
    for touch in (replace, check_is_file):
        with pytest.raises(IsADirectoryError, match=str(tmp_path)):
            touch(tmp_path)
        with pytest.raises(OSError, match=r"symbolic links: .*loop'"):
            touch(tmp_path / "loop")
    assert {path.name for path in kinds} | {"loop"} == set(os.listdir(tmp_path))


@posix
def test_a_device_is_refused_and_left(tmp_path):
    device = null_device(tmp_path / "device")
    before = device.lstat().st_ino
    for touch in (replace, check_is_file):
        with pytest.raises(ValueError, match=f"path must name a file; {device} is a device"):
            touch(device)
    assert device.lstat().st_ino == before


def test_errors_name_the_file_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(FileNotFoundError, match="make it first: 'none'"):
        replace("none/a")
    with pytest.raises(NotADirectoryError, match="'file/a'"):
        replace("file/a")
    with pytest.raises(OSError, match="'n{300}'"):
        replace("n" * 300)
    assert os.listdir() == ["file"]


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path):
    (tmp_path / "folder").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="folder/a'"):
        replace(tmp_path / "folder" / "a")


def test_an_error_at_the_end_names_the_file(tmp_path, monkeypatch):
    def fail(self, path):
        raise PermissionError(13, "not allowed", str(self), None, str(path))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(PermissionError, match="not allowed: '[^']*/a'$"):
        replace(tmp_path / "a")
    assert not os.listdir(tmp_path)


def test_long_names(tmp_path):
    for name in ("n" * 250, "ü" * 120):  # a file system allows 255 bytes
        replace(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"new"


def test_the_benchmark_knows_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_feature_set(tmp_path / "set.npz", make_cross_modal(3, n_train=2, n_test=2))
    zero_shot = {"zero-shot": METHODS["zero-shot"]}
    rows = run(["~/set.npz"], "~/out", methods=zero_shot, shots=[1], n_seeds=1, n_jobs=1, verbose=0)
    assert [row["method"] for row in rows] == ["zero-shot"]
    assert (tmp_path / "out" / ROWS).exists()
