"""The feature cache: rows that were encoded once, in one SQLite file.

Two keys find a row: its *space* (weights, architecture and preprocessing of the encoder) and the
*content* that was encoded (the bytes of a file, not its name). SQLite brings what is hard to get
right by hand. A row is stored whole or not at all, even if a process is killed. Many processes may
write at once. Reading executes nothing. Any SQLite client reads the tables; the view ``contents``
lists them in words.

The cache uses SQLite's rollback journal, not its write-ahead log, which network file systems do
not support.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowalign.inputs import shown
from flowalign.read_ahead import batches

FILE_NAME = "features.sqlite"
LOCK_SECONDS = 60.0  # how long to wait for other writers

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spaces (
    space TEXT PRIMARY KEY, encoder TEXT NOT NULL, identity TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS features (
    space TEXT NOT NULL, content TEXT NOT NULL, source TEXT NOT NULL,
    vector BLOB NOT NULL, checksum INTEGER NOT NULL, UNIQUE (space, content)
);
CREATE VIEW IF NOT EXISTS contents AS
    SELECT encoder, source, content, length(vector) / 4 AS width
    FROM features JOIN spaces USING (space);
"""
_OF_SPACES = "space, encoder, identity"
_OF_FEATURES = "space, content, source, vector, checksum"


@dataclass(frozen=True)
class EncoderSpace:
    """All that the features of a given content depend on.

    Parameters
    ----------
    encoder : str
        A name for readers; not part of the key.
    identity : dict
        Everything that features depend on, as JSON types.
    """

    encoder: str
    identity: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The name of the space in the cache: a hash of its identity."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    @property
    def text(self) -> str:
        """The identity in one fixed spelling."""
        return json.dumps(self.identity, sort_keys=True)


class FeatureCache:
    """Features by space and content, kept in a folder.

    Once its folder exists, a cache never makes an encoding fail. A row that cannot be read is
    encoded again, and one that cannot be written is not kept, each with a warning. After the first
    failure to write, an instance no longer tries. Checksums find damaged rows. A damaged file is
    renamed, and a new one is begun.

    Parameters
    ----------
    folder : str or path
        The folder of ``features.sqlite``. It is made if it does not exist.

    Raises
    ------
    ValueError
        If `folder` is no folder, or cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from flowalign.encoders.cache import FeatureCache, EncoderSpace
    >>> folder = tempfile.TemporaryDirectory()
    >>> cache, space = FeatureCache(folder.name), EncoderSpace("my encoder", {"weights": "v1"})
    >>> cache.store(space, {"3f": np.float32([1, 2])}, {"3f": "cat.png"})
    >>> cache.load(space, ["3f", "7a"])
    {'3f': array([1., 2.], dtype=float32)}
    >>> folder.cleanup()
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser()
        self._file = self._folder / FILE_NAME
        self._keeps = True
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cache must be a folder that can be made: {error}.") from error

    def load(self, space: EncoderSpace, contents: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored rows among these contents, by content."""
        rows: dict[str, NDArray[np.float32]] = {}
        damaged: list[str] = []
        key = space.key
        with self._forgiving("read"), self._connection() as database:
            for part in batches(dict.fromkeys(contents), 500):
                query = (
                    "SELECT content, source, vector, checksum FROM features "
                    f"WHERE space = ? AND content IN ({','.join('?' * len(part))})"
                )
                for content, source, vector, checksum in database.execute(query, (key, *part)):
                    if _intact(key, content, vector, checksum):
                        rows[content] = np.frombuffer(vector, "<f4").astype(np.float32)
                    else:
                        damaged.append(str(source))
        if damaged:
            self._warn(
                f"has {len(damaged)} damaged entries, which are encoded again; the first is of "
                f"{shown(damaged[0])}"
            )
        return rows

    def store(
        self,
        space: EncoderSpace,
        rows: Mapping[str, NDArray[np.float32]],
        sources: Mapping[str, str],
    ) -> None:
        """Keep rows: all of them, or none if the process dies meanwhile.

        Parameters
        ----------
        space : EncoderSpace
            The space of the rows.
        rows : dict of str to ndarray of shape (d,)
            The rows, by content.
        sources : dict of str to str
            Where each content was found, for people who read the table.
        """
        if not self._keeps:
            return
        self._keeps = False  # until the write has worked; a second failure would wait once more
        key = space.key
        values = []
        for content, row in rows.items():
            vector = np.ascontiguousarray(row, "<f4").tobytes()
            checksum = _checksum(key, content, vector)
            values.append((key, content, _printable(sources[content]), vector, checksum))
        with self._forgiving("written"), self._connection() as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                f"INSERT OR REPLACE INTO spaces ({_OF_SPACES}) VALUES (?, ?, ?)",
                (key, _printable(space.encoder), space.text),
            )
            database.executemany(
                f"INSERT OR REPLACE INTO features ({_OF_FEATURES}) VALUES (?, ?, ?, ?, ?)",
                values,
            )
            database.execute("COMMIT")
            self._keeps = True

    def merge(self, folder: str | os.PathLike[str]) -> int:
        """Add the rows of another cache that this one lacks.

        For machines that cannot share a folder: each fills a cache of its own, and one of the
        caches then takes the rows of all others.

        Parameters
        ----------
        folder : str or path
            The folder of the other cache, which is not changed. No process may be writing to it.

        Returns
        -------
        int
            The number of rows that were added. Damaged rows are left out.

        Raises
        ------
        ValueError
            If the other cache is missing or cannot be read, or this one cannot be written.
        """
        path = Path(folder).expanduser() / FILE_NAME
        if not path.is_file():  # SQLite would make it
            raise ValueError(f"folder={str(folder)!r} has no {FILE_NAME}; give a cache's folder.")
        if self._file.exists() and self._file.samefile(path):
            return 0
        spaces = f"INSERT OR IGNORE INTO spaces ({_OF_SPACES}) VALUES (?, ?, ?)"
        features = (
            f"INSERT INTO features ({_OF_FEATURES}) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (space, content) DO UPDATE SET source = excluded.source, "
            "vector = excluded.vector, checksum = excluded.checksum "
            "WHERE NOT intact(space, content, vector, checksum)"
        )
        try:
            with closing(sqlite3.connect(path)) as other, self._connection() as database:
                database.create_function("intact", 4, _intact)
                database.executemany(spaces, other.execute(f"SELECT {_OF_SPACES} FROM spaces"))
                before = database.total_changes
                rows = other.execute(f"SELECT {_OF_FEATURES} FROM features")
                for part in batches(rows, 1000):  # others may write in between
                    database.execute("BEGIN IMMEDIATE")
                    whole = [(s, c, of, v, k) for s, c, of, v, k in part if _intact(s, c, v, k)]
                    database.executemany(features, whole)
                    database.execute("COMMIT")
                return database.total_changes - before
        except (sqlite3.Error, UnicodeError) as error:
            raise ValueError(
                f"{shown(path)} cannot be merged into {shown(self._file)}: {error}."
            ) from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Connect for one call, since a connection must not go through a fork or a pickle."""
        database = sqlite3.connect(self._file, timeout=LOCK_SECONDS, isolation_level=None)
        with closing(database):
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            yield database

    @contextmanager
    def _forgiving(self, done: str) -> Iterator[None]:
        """Turn a failure of the database into a warning, and rename a damaged file."""
        number = self._number()
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            code = getattr(error, "sqlite_errorcode", None)
            # The low byte is the primary code. Errors about text that is no UTF-8 have no code.
            unusable = code is None or code & 0xFF in (
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
            )
            if unusable:
                self._put_aside(number, error)
                self._keeps = True  # in a new file
            else:
                self._warn(f"could not be {done} ({error}); features are encoded without it")

    def _number(self) -> int | None:
        """Return the number of the file on its disk, which tells it from a later file."""
        try:
            return self._file.stat().st_ino
        except OSError:
            return None

    def _put_aside(self, number: int | None, error: Exception) -> None:
        aside = self._file.with_name(f"{FILE_NAME}.damaged-{time.time_ns()}")
        kept = ""
        if number is not None and number == self._number():  # else another process has renamed it
            # Move the journal first, since SQLite would apply it to a new file of the same name.
            for end in ("-journal", ""):
                try:
                    os.replace(f"{self._file}{end}", f"{aside}{end}")
                except OSError:
                    continue  # it does not exist, or cannot be moved and will be warned of again
                kept = f" It is kept as {aside.name}."
        self._warn(f"is damaged ({error}); features are encoded again.{kept}".removesuffix("."))

    def _warn(self, message: str) -> None:
        warnings.warn(f"The feature cache {shown(self._file)} {message}.", stacklevel=2)


def _printable(name: str) -> str:
    """Spell out bytes in the name of a file that are no UTF-8, since SQLite refuses them."""
    return name.encode("utf-8", "backslashreplace").decode()


def _checksum(space: str, content: str, vector: bytes) -> int:
    """Return a checksum over row and keys, so that no row can pass for that of other keys."""
    return zlib.crc32(vector, zlib.crc32(f"{space} {content}".encode()))


def _intact(space: str, content: Any, vector: Any, checksum: Any) -> bool:
    # A column of SQLite can hold any type, so in a damaged file these values may have any type.
    return (
        isinstance(content, str)
        and isinstance(vector, bytes)
        and len(vector) % 4 == 0
        and _checksum(space, content, vector) == checksum
    )
