"""From items to rows: each content once, read ahead, in batches, through the cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from tqdm import tqdm

from flowalign.encoders.backbone import content_hash, is_path
from flowalign.encoders.known_files import KnownFiles
from flowalign.encoders.streaming import batches, in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.encoders.backbone import Backbone
    from flowalign.encoders.cache import FeatureCache, Space

Stream: TypeAlias = "Iterable[tuple[str, str, Any]]"  # key, source, the model's input

HASHED_AHEAD = 1024  # contents are small
_FILES = KnownFiles()


@dataclass(frozen=True)
class Encoding:
    """A model at work.

    Parameters
    ----------
    backbone : Backbone
        The model.
    cache : FeatureCache or None
        Where rows are kept.
    batch_size : int
        Inputs in one pass through the model.
    progress : str or None
        The title of the progress bar; None shows none.
    """

    backbone: Backbone
    cache: FeatureCache | None
    batch_size: int
    progress: str | None

    def texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Encode m texts, (m, e)."""
        space = self.backbone.space("text")
        inputs, contents = self.backbone.tokenize(texts)
        table = {} if self.cache is None else self.cache.load(space, contents)
        todo = {content: i for i, content in enumerate(contents) if content not in table}
        stream = ((content, texts[i], inputs[i]) for content, i in todo.items())
        self._compute(stream, self.backbone.forward_text, space, table)
        return np.stack([table[content] for content in contents])

    def items(
        self, items: list[Any], *, n_views: int, kind: str, skip: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.intp], dict[int, str]]:
        """Encode n items.

        Parameters
        ----------
        items : list
            What to encode.
        n_views : int
            Views of each.
        kind : str
            What an item is called.
        skip : bool
            Whether to leave out what cannot be read, instead of raising.

        Returns
        -------
        features : ndarray of shape (m * n_views, d)
            Of the items that could be read, one view after the other.
        kept : ndarray of shape (m,)
            Their positions.
        failed : dict of int to str
            Why the others could not, by position.
        """
        failures = _Failures(items, kind, skip)
        space, numbers = self.backbone.space(kind), range(n_views)
        contents = self._contents(items, failures)
        keys = [[self.backbone.key(content, k, n_views) for k in numbers] for content in contents]
        known = (key for of_item in keys for key in of_item)
        table = {} if self.cache is None else self.cache.load(space, known)
        first = {c: i for i, c in reversed([*enumerate(contents)]) if i not in failures.reasons}
        todo = {i: [k for k in numbers if keys[i][k] not in table] for i in sorted(first.values())}
        todo = {i: missing for i, missing in todo.items() if missing}

        def prepare(i: int) -> dict[str, Any]:
            item = items[i]
            if is_path(item) and self.backbone.reads_files:
                item = Path(item).read_bytes()
                if self.cache is not None and content_hash(item) != contents[i]:
                    raise ValueError("it changed while it was being encoded")
            inputs = self.backbone.prepare(item, todo[i], n_views)
            return {keys[i][k]: value for k, value in zip(todo[i], inputs, strict=True)}

        def stream() -> Iterator[tuple[str, str, Any]]:
            ahead = max(1, 2 * self.batch_size // n_views)
            # The threads of a CPU wait for one another in every layer, so one that decodes
            # meanwhile holds up all of them: there, reading and computing take turns.
            turn = len(todo) if self.backbone.reads_ahead else max(1, self.batch_size // n_views)
            with tqdm(desc=self.progress, total=len(todo), disable=self.progress is None) as bar:
                for part in batches(todo, turn):
                    for i, inputs, error in in_threads(prepare, part, ahead=ahead):
                        bar.update()
                        if error is not None:
                            failures.add(i, error)
                        for key, value in (inputs or {}).items():
                            yield key, failures.name(i), value

        self._compute(stream(), self.backbone.forward, space, table)
        broken = {contents[i]: reason for i, reason in failures.reasons.items()}
        failed = {i: broken[content] for i, content in enumerate(contents) if content in broken}
        kept = np.array([i for i in range(len(items)) if i not in failed], dtype=np.intp)
        rows = [table[key] for i in kept for key in keys[i]]
        features = np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)
        return features, kept, failed

    def _contents(self, items: list[Any], failures: _Failures) -> list[str]:
        """Return the content of each item; without a cache, the item's identity will do.

        With a cache, contents come first, on their own: most often all rows are known, and nothing
        has to be decoded.
        """
        if self.cache is None:
            return [f"item {id(item)}" for item in items]
        contents = [_FILES.get(item) if is_path(item) else None for item in items]

        def identify(i: int) -> str:
            item = items[i]
            if not is_path(item):
                return self.backbone.digest(item)
            stamp = _FILES.stamp(item)
            content = content_hash(Path(item).read_bytes())
            if stamp is not None:
                _FILES.add(item, stamp, content)
            return content

        unknown = [i for i, content in enumerate(contents) if content is None]
        for i, content, error in in_threads(identify, unknown, ahead=HASHED_AHEAD, at_once=32):
            if error is not None:
                failures.add(i, error)
            contents[i] = content
        return [content or f"unreadable {i}" for i, content in enumerate(contents)]

    def _compute(
        self,
        stream: Stream,
        forward: Callable[[list[Any]], NDArray[np.float32]],
        space: Space,
        table: dict[str, NDArray[np.float32]],
    ) -> None:
        """Add to `table`, and to the cache, the rows of a stream, a batch at a time."""
        for part in batches(stream, self.batch_size):
            keys, sources, inputs = zip(*part, strict=True)
            rows = forward([*inputs])
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise ValueError(f"The features of {sources[bad[0]]} are NaN or infinite.")
            new = dict(zip(keys, rows, strict=True))
            if self.cache is not None:
                self.cache.store(space, new, dict(zip(keys, sources, strict=True)))
            table |= new


class _Failures:
    """Items that could not be read, with the reason."""

    def __init__(self, items: list[Any], kind: str, skip: bool) -> None:
        self._items, self._kind, self._skip = items, kind, skip
        self.reasons: dict[int, str] = {}

    def name(self, i: int) -> str:
        item = self._items[i]
        return os.fspath(item) if is_path(item) else f"{self._kind} {i} of X"

    def add(self, i: int, error: Exception) -> None:
        """Note why an item could not be read, or raise it, naming the item."""
        if isinstance(error, TypeError | MemoryError):
            raise error  # not the fault of the item
        missing = isinstance(error, FileNotFoundError)
        reason = f"{self.name(i)} " + ("does not exist" if missing else f"is unreadable: {error}")
        if not self._skip:
            raise (FileNotFoundError if missing else ValueError)(reason) from error
        self.reasons[i] = reason
