"""Files by the names that users give them, complete when they bear these names."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

_KINDS = {
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return the path with a ``~`` at its start replaced by the home folder."""
    return Path(os.path.expanduser(path))


def check_is_file(path: Path) -> None:
    """Refuse folders, and devices, pipes and sockets, which may block or never end.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    IsADirectoryError
        If a folder is there.
    ValueError
        If something else is there.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "This is a folder; name a file", str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise ValueError(f"path must name a file; {path} is {kind}.")


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give a file to write to, which gets its name in the end, if nothing fails.

    Meanwhile it has a name, with another ending, that no thread, process or machine shares. Of a
    symbolic link the file is replaced that it leads to, even if that is not there yet.

    Raises
    ------
    ValueError
        If something is there that is no file, such as a device.
    OSError
        If the file cannot be written; the error names it as `path` does.
    """
    path = expanded(path)
    target = _behind_links(path)
    aside = target.with_name(f".{uuid4().hex}.part")  # short: the name itself may be a long one
    with _errors_name(path):
        file = aside.open("xb")
    try:
        with file:
            yield file
        with _errors_name(path):
            aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _behind_links(path: Path) -> Path:
    """Return where the file is or will be."""
    with suppress(FileNotFoundError):
        check_is_file(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if not target.parent.exists():
        raise FileNotFoundError(
            errno.ENOENT, "This folder is not there; make it first", str(target.parent)
        )
    return target


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Have errors name the file that is meant, not the one that is written meanwhile."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
