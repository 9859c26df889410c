"""A file bears its name when it is complete, and never before."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flowalign.files import written_whole


def write(path, data):
    with written_whole(path) as file:
        file.write(data)
        # Aside it has another ending: whoever lists files meanwhile does not take it for one.
        assert len([*path.parent.iterdir()]) == 2
        assert [*path.parent.glob("*.npz")] == [path]
        if not data:
            raise KeyboardInterrupt


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
