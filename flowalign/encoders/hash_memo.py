"""Hashes of files that this process has read, so that a grid search hashes each file once."""

from __future__ import annotations

import os
import time
from typing import Any

# A file that is written twice within the resolution of its time stamps looks unchanged. So a hash
# is remembered only if the file had not been written for a while, as in git's index. Some file
# systems have stamps as coarse as two seconds; stamps with a fraction of a second tick in
# milliseconds.
AT_REST_SECONDS, AT_REST_FINE = 2.0, 0.1
LIMIT = 200_000  # entries; some tens of megabytes


class HashMemo:
    """Hashes by path, valid as long as size, number and time stamps of the file stay the same."""

    def __init__(self) -> None:
        self._contents: dict[str, tuple[tuple[int, ...], str]] = {}

    def get(self, path: str | os.PathLike[str]) -> str | None:
        """Return the hash of a file, if it is known and the file has not changed."""
        known = self._contents.get(os.fspath(path))
        if known is None or known[0] != _signature(path):
            return None
        return known[1]

    def stamp(self, path: str | os.PathLike[str]) -> tuple[int, ...] | None:
        """Return a file's stamp, or None if it was just written. Call this before reading it."""
        signature = _signature(path)
        if signature is None:
            return None
        written = signature[:2]
        fine = all(stamp % 1_000_000_000 for stamp in written)
        rest = AT_REST_FINE if fine else AT_REST_SECONDS
        return None if time.time_ns() - max(written) < rest * 1e9 else signature

    def add(self, path: str | os.PathLike[str], stamp: tuple[int, ...], content: str) -> None:
        """Remember a hash under the stamp that the file had before it was read."""
        if len(self._contents) >= LIMIT:
            self._contents.clear()
        self._contents[os.fspath(path)] = (stamp, content)


def _signature(path: Any) -> tuple[int, ...] | None:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # ValueError for names that no file can have
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev
