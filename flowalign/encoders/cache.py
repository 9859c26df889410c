"""The feature cache: rows that were encoded once, in one SQLite file.

A row is found by what it is made of: the *space* it lives in (weights, architecture and
preprocessing of an encoder) and the *content* that was encoded (the bytes of a file, not its
name). SQLite brings what is hard to get right by hand: a row is there or it is not, whichever
process was killed; many processes may write at once; nothing is executed on reading. Its tables
are the index, and any SQLite client reads them; the view ``contents`` lists them in words.

The journal is SQLite's rollback journal, not its write-ahead log, which network file systems do
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
    """What decides about the features of a given content.

    Parameters
    ----------
    encoder : str
        A name for readers; not part of the key.
    identity : dict
        Everything that changes features if it changes, as JSON types.
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

    Once its folder is there, a cache is never the reason that an encoding fails: what cannot be
    read is encoded again, what cannot be written is not kept, each with a warning; after the first
    failure to write, an instance no longer tries. A damaged row is found by its checksum. A damaged
    file is put aside under another name, and a new one is begun.

    Parameters
    ----------
    folder : str or path
        Where ``features.sqlite`` is or will be; made if it is not there.

    Raises
    ------
    ValueError
        If `folder` is something else than a folder.

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
        """Return the rows that are there, by content."""
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
        """Keep rows, all of them or, if the process dies meanwhile, none.

        Parameters
        ----------
        space : EncoderSpace
            Where they live.
        rows : dict of str to ndarray of shape (d,)
            By content.
        sources : dict of str to str
            Where each content was found; for readers.
        """
        if not self._keeps:
            return
        self._keeps = False  # until it has worked: one failure, and its wait, is enough
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
        """Take over what another cache has and this one has not.

        For machines that cannot share a folder: each fills its own, then one takes them all.

        Parameters
        ----------
        folder : str or path
            The folder of the other cache, which stays as it is. No process may be writing to it.

        Returns
        -------
        int
            Rows taken over. Damaged ones are not.

        Raises
        ------
        ValueError
            If there is no cache that can be read, or rows cannot be written here.
        """
        path = Path(folder).expanduser() / FILE_NAME
        if not path.is_file():  # it would be made
            raise ValueError(f"folder={str(folder)!r} has no {FILE_NAME}; give that of a cache.")
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
        """Connect for one call: connections must not be carried through a fork or a pickle."""
        database = sqlite3.connect(self._file, timeout=LOCK_SECONDS, isolation_level=None)
        with closing(database):
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            yield database

    @contextmanager
    def _forgiving(self, done: str) -> Iterator[None]:
        """Turn a failure of the database into a warning, and put a damaged file aside."""
        number = self._number()
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            code = getattr(error, "sqlite_errorcode", None)
            # The low byte is the primary code. A text, or a message, that is no UTF-8 has none.
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
        """Return the number of the file on its disk; another file of its name has another."""
        try:
            return self._file.stat().st_ino
        except OSError:
            return None

    def _put_aside(self, number: int | None, error: Exception) -> None:
        aside = self._file.with_name(f"{FILE_NAME}.damaged-{time.time_ns()}")
        kept = ""
        if number is not None and number == self._number():  # else another process was quicker
            # The journal first: it would be applied to a new file of the same name.
            for end in ("-journal", ""):
                try:
                    os.replace(f"{self._file}{end}", f"{aside}{end}")
                except OSError:
                    continue  # there is none, or it may not be moved; then warnings will go on
                kept = f" It is kept as {aside.name}."
        self._warn(f"is damaged ({error}); features are encoded again.{kept}".removesuffix("."))

    def _warn(self, message: str) -> None:
        warnings.warn(f"The feature cache {shown(self._file)} {message}.", stacklevel=2)


def _printable(name: str) -> str:
    """Spell out what is no UTF-8 in the name of a file, which SQLite would refuse."""
    return name.encode("utf-8", "backslashreplace").decode()


def _checksum(space: str, content: str, vector: bytes) -> int:
    """Return a checksum over row and keys, so that no row can pass for another one's."""
    return zlib.crc32(vector, zlib.crc32(f"{space} {content}".encode()))


def _intact(space: str, content: Any, vector: Any, checksum: Any) -> bool:
    # SQLite columns hold any type, so a damaged file may hold any here.
    return (
        isinstance(content, str)
        and isinstance(vector, bytes)
        and len(vector) % 4 == 0
        and _checksum(space, content, vector) == checksum
    )
