"""From items to rows: each content once, read ahead, in batches, through the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from flowalign.encoders.backbone import content_hash, is_path
from flowalign.encoders.hash_memo import HashMemo
from flowalign.inputs import shown
from flowalign.read_ahead import batches, in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.encoders.backbone import Backbone
    from flowalign.encoders.cache import EncoderSpace, FeatureCache

HASHED_AHEAD = 1024  # contents are small
STORE_ROWS, STORE_SECONDS = 1024, 1.0  # at most so much is lost by an interruption
_FILES = HashMemo()


class _Input(NamedTuple):
    """An input of the model, the place of its row, and the position of its item."""

    key: str
    value: Any
    position: int


@dataclass
class Encoding:
    """One call of an encoder: rows come from the cache first, and then from the model.

    Parameters
    ----------
    backbone : Backbone
        The model.
    space : EncoderSpace
        The space of the rows in the cache.
    items : list
        The items to encode.
    kind : str
        What messages call an item.
    owners : sequence of int
        The position of each item in X, by which messages name items that are no paths.
    n_features : int or None
        The width of rows, if the user gave it.
    cache : FeatureCache or None
        The cache of rows.
    batch_size : int
        Inputs in one pass through the model.
    skip : bool, default=False
        Whether to leave out items that cannot be read, instead of raising.
    progress : str or None, default=None
        The title of a progress bar; None shows none.
    """

    backbone: Backbone
    space: EncoderSpace
    items: Sequence[Any]
    kind: str
    owners: Sequence[int] | NDArray[np.intp]
    n_features: int | None
    cache: FeatureCache | None
    batch_size: int
    skip: bool = False
    progress: str | None = None
    table: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)  # why items could not be read
    doubted: dict[int, str] = field(default_factory=dict)  # what is odd about the items read

    def texts(self) -> NDArray[np.float32]:
        """Encode texts, (m, e)."""
        inputs, contents = self.backbone.tokenize([*self.items])
        self._look_up(contents)
        todo = {content: i for i, content in enumerate(contents) if content not in self.table}
        stream = (_Input(content, inputs[i], i) for content, i in todo.items())
        self._compute(stream, self.backbone.forward_text)
        return np.stack([self.table[content] for content in contents])

    def rows(self, n_views: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Encode items.

        Parameters
        ----------
        n_views : int
            Views of each item.

        Returns
        -------
        features : ndarray of shape (m * n_views, d)
            Rows of the items that could be read: all views of an item, then those of the next.
        kept : ndarray of shape (m,)
            The positions of these items.
        """
        contents = self._contents()
        keys = [
            [self.backbone.key(content, k, n_views) for k in range(n_views)] for content in contents
        ]
        self._look_up(key for of_item in keys for key in of_item)
        missing: dict[int, list[int]] = {}  # once for each content: its first item, and the views
        seen: set[str] = set()
        for i, content in enumerate(contents):
            views = [k for k in range(n_views) if keys[i][k] not in self.table]
            if views and content not in seen and i not in self.failed:
                missing[i] = views
                seen.add(content)

        def prepare(i: int) -> list[_Input]:
            item = self._read(i, contents[i])
            inputs = self.backbone.prepare(item, missing[i], n_views)
            doubt = self.backbone.doubt(item)
            if doubt is not None:
                self.doubted[i] = f"{self._name(i)}: {doubt}."
            of_views = zip(missing[i], inputs, strict=True)
            return [_Input(keys[i][k], value, i) for k, value in of_views]

        with closing(self._prepared(prepare, missing, n_views)) as stream:
            self._compute(stream, self.backbone.forward, contents)
        broken = {contents[i]: reason for i, reason in self.failed.items()}
        self.failed = {i: broken[c] for i, c in enumerate(contents) if c in broken}
        kept = [i for i in range(len(contents)) if i not in self.failed]
        rows = [self.table[key] for i in kept for key in keys[i]]
        features = np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)
        if rows and self.n_features not in (None, features.shape[1]):
            raise ValueError(
                f"n_features is {self.n_features}, but rows have {features.shape[1]} features; set "
                "n_features to that number."
            )
        return features, np.array(kept, dtype=np.intp)

    def _look_up(self, keys: Iterable[str]) -> None:
        if self.cache is not None:
            self.table = self.cache.load(self.space, keys)

    def _contents(self) -> list[str]:
        """Return the content of each item, or without a cache the item's identity.

        With a cache, all contents are hashed before anything is decoded, since most often all rows
        are known and no item has to be decoded.
        """
        if self.cache is None:
            return [f"item {id(item)}" for item in self.items]
        contents = [_FILES.get(item) if is_path(item) else None for item in self.items]
        unknown = [i for i, content in enumerate(contents) if content is None]
        with closing(in_threads(self._identify, unknown, ahead=HASHED_AHEAD, at_once=32)) as calls:
            for i, content, error in calls:
                if error is not None:
                    self._fail(i, error)
                contents[i] = content
        return [content or f"unreadable {i}" for i, content in enumerate(contents)]

    def _identify(self, i: int) -> str:
        item = self.items[i]
        if not is_path(item):
            return self.backbone.digest(item)
        return _FILES.get(item) or _read_and_hash(item)[1]

    def _read(self, i: int, content: str) -> Any:
        """Return what the backbone prepares: the item, or the content of its file."""
        item = self.items[i]
        if not is_path(item) or not self.backbone.reads_files:
            return item
        if self.cache is None:
            return Path(item).read_bytes()
        opened, found = _read_and_hash(item)
        if found != content:
            raise ValueError("it changed while it was being encoded")
        return opened

    def _prepared(
        self, prepare: Callable[[int], list[_Input]], missing: Iterable[int], n_views: int
    ) -> Generator[_Input, None, None]:
        """Read and prepare items in threads.

        Threads that compute on a CPU wait for one another in every layer, so a thread that decodes
        at the same time delays all of them. On a CPU, reading and computing therefore take turns.
        """
        positions = [*missing]
        ahead = max(1, self.batch_size // n_views) * (2 if self.backbone.reads_ahead else 1)
        calls = in_threads(prepare, positions, ahead=ahead, turns=not self.backbone.reads_ahead)
        if not self.backbone.reads_files:  # nothing to wait for
            calls = ((i, prepare(i), None) for i in positions)
        shown = self.progress is not None
        with closing(calls), tqdm(calls, self.progress, len(positions), disable=not shown) as bar:
            for i, inputs, error in bar:
                if error is not None:
                    self._fail(i, error)
                yield from inputs or ()

    def _compute(
        self,
        stream: Iterable[_Input],
        forward: Callable[[list[Any]], NDArray[np.float32]],
        contents: Sequence[str] | None = None,
    ) -> None:
        """Compute the rows of a stream of inputs; add them to the table and to the cache."""
        width = len(next(iter(self.table.values()))) if self.table else None
        fresh: dict[str, NDArray[np.float32]] = {}
        sources: dict[str, str] = {}
        last = time.monotonic()
        try:
            for part in batches(stream, self.batch_size):
                for one, row in self._forward(part, forward):
                    width = len(row) if width is None else width
                    if len(row) != width:
                        raise ValueError(
                            f"{self._name(one.position)} has {len(row)} features, others have "
                            f"{width}. With a cache: does the name tell this model from others?"
                        )
                    if contents is not None and not self._unchanged(one.position, contents):
                        continue
                    self.table[one.key] = fresh[one.key] = row
                    sources[one.key] = self._name(one.position)
                if len(fresh) >= STORE_ROWS or time.monotonic() - last > STORE_SECONDS:
                    self._store(fresh, sources)
                    last = time.monotonic()
        finally:
            self._store(fresh, sources)

    def _forward(
        self, part: list[_Input], forward: Callable[[list[Any]], NDArray[np.float32]]
    ) -> Iterator[tuple[_Input, NDArray[np.float32]]]:
        """Yield the rows of a batch. If it fails and items may be skipped, encode one by one."""
        try:
            rows = forward([one.value for one in part])
        except Exception as error:
            if not self.skip:
                error.add_note(
                    f"In a batch of {len(part)} from {self._name(part[0].position)} to "
                    f"{self._name(part[-1].position)}."
                )
                raise
            if len(part) > 1:
                for one in part:
                    yield from self._forward([one], forward)
            else:
                self._fail(part[0].position, error)
            return
        for one, row in zip(part, rows, strict=True):
            if np.isfinite(row).all():
                yield one, row
            else:
                self._fail(one.position, ValueError("its features are NaN or infinite"))

    def _unchanged(self, i: int, contents: Sequence[str]) -> bool:
        """Whether a file that the backbone read itself still has the content of its cache key."""
        if self.cache is None or self.backbone.reads_files or not is_path(self.items[i]):
            return True
        if self._identify(i) == contents[i]:
            return True
        self._fail(i, ValueError("it changed while it was being encoded"))
        return False

    def _store(self, fresh: dict[str, NDArray[np.float32]], sources: dict[str, str]) -> None:
        if self.cache is not None and fresh:
            self.cache.store(self.space, fresh, sources)
        fresh.clear()
        sources.clear()

    def _name(self, i: int) -> str:
        item = self.items[i]
        return shown(item) if is_path(item) else f"{self.kind} {self.owners[i]} of X"

    def _fail(self, i: int, error: Exception) -> None:
        """Note why an item could not be read, or raise an error that names the item."""
        if isinstance(error, MemoryError):
            raise error
        kind: type[Exception] = ValueError
        why = str(error).rstrip(".")
        reason = f"{self._name(i)} is unreadable: {why}."
        if isinstance(error, FileNotFoundError):
            kind, reason = FileNotFoundError, f"{self._name(i)} does not exist."
        elif isinstance(error, TypeError):
            kind, reason = TypeError, f"{self._name(i)}: {why}."
        if not self.skip:
            hint = "encode(..., on_error='skip') (--skip-unreadable) leaves such items out."
            raise kind(f"{reason} {hint}") from error
        self.failed[i] = reason


def _read_and_hash(path: str | os.PathLike[str]) -> tuple[bytes, str]:
    """Read and hash a file, and remember the hash if the file has not just been written."""
    stamp = _FILES.stamp(path)
    with open(path, "rb", buffering=0) as file:
        opened = file.readall()
    content = content_hash(opened)
    if stamp is not None:
        _FILES.add(path, stamp, content)
    return opened, content
