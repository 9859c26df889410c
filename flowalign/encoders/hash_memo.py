"""Files whose content this process has hashed, so that a grid search need not hash them again."""

from __future__ import annotations

import os
import time
from typing import Any

# A file written again within the resolution of its time stamps looks unchanged. So only what had
# been at rest for a while when it was hashed is remembered, as git does for its index. Stamps are
# as coarse as two seconds on some file systems; those with a fraction of a second tick in
# milliseconds.
AT_REST_SECONDS, AT_REST_FINE = 2.0, 0.1
LIMIT = 200_000  # entries; some tens of megabytes


class HashMemo:
    """Contents by path, for as long as size, number and time stamps of the file stay."""

    def __init__(self) -> None:
        self._contents: dict[str, tuple[tuple[int, ...], str]] = {}

    def get(self, path: str | os.PathLike[str]) -> str | None:
        """Return the content of a file, if it is known and the file has not changed."""
        known = self._contents.get(os.fspath(path))
        if known is None or known[0] != _signature(path):
            return None
        return known[1]

    def stamp(self, path: str | os.PathLike[str]) -> tuple[int, ...] | None:
        """Return what to remember a file by; None if it is too young. Ask before reading it."""
        signature = _signature(path)
        if signature is None:
            return None
        written = signature[:2]
        fine = all(stamp % 1_000_000_000 for stamp in written)
        rest = AT_REST_FINE if fine else AT_REST_SECONDS
        return None if time.time_ns() - max(written) < rest * 1e9 else signature

    def add(self, path: str | os.PathLike[str], stamp: tuple[int, ...], content: str) -> None:
        """Remember a content under the stamp from before it was read."""
        if len(self._contents) >= LIMIT:
            self._contents.clear()
        self._contents[os.fspath(path)] = (stamp, content)


def _signature(path: Any) -> tuple[int, ...] | None:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # the latter for names that no file can have
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev
