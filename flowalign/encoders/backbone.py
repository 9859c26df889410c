"""The interface of a loaded model: how an item or a text becomes a row of features."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.encoders.cache import EncoderSpace


class Backbone(ABC):
    """A loaded model with its preprocessing, which turns items and texts into rows of features."""

    reads_files: ClassVar[bool] = True

    @property
    def reads_ahead(self) -> bool:
        """Whether items are prepared while the model computes."""
        return False

    @abstractmethod
    def space(self, modality: str) -> EncoderSpace:
        """Return what the rows of items depend on, or those of texts if `modality` is "text"."""

    @abstractmethod
    def prepare(self, item: Any, numbers: Sequence[int], n_views: int) -> list[Any]:
        """Return the model's input for some of an item's `n_views` views; called from threads.

        If the backbone `reads_files`, `item` is the content of the file instead of its path.
        """

    def doubt(self, item: Any) -> str | None:
        """Return why a prepared item may not be what it seems, or None; called from threads."""
        return None

    @abstractmethod
    def forward(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Return one row for each input."""

    @abstractmethod
    def forward_text(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Return one row for each tokenised text."""

    def tokenize(self, texts: list[str]) -> tuple[list[Any], list[str]]:
        """Return the model's input for each text, and a hash of each text's content."""
        return texts, [content_hash(text.encode("utf-8", "surrogatepass")) for text in texts]

    def digest(self, item: Any) -> str:
        """Return the hash of the content of an item that is no path."""
        return content_hash(spell_out(item))

    def key(self, content: str, number: int, n_views: int) -> str:
        """Return the key by which the cache knows view `number` of a content."""
        return content if n_views == 1 else f"{content} view {number} of {n_views}"


def is_path(item: Any) -> bool:
    """Whether an item is the path of a file."""
    return isinstance(item, str | os.PathLike)


def content_hash(content: bytes) -> str:
    """Return the hash by which the cache knows a content."""
    return hashlib.sha256(content).hexdigest()


def spell_out(item: Any) -> bytes:
    """Spell out an item so that two items have the same spelling only if they are the same.

    Items can be bytes, numbers, plain arrays of them, and lists and tuples of all these. The values
    of other items do not always tell their content: a path inside a tuple stays the same when its
    file changes.
    """
    if isinstance(item, bytes):
        return b"bytes %d " % len(item) + item
    if isinstance(item, list | tuple):
        parts = [spell_out(part) for part in item]
        return f"{type(item).__name__} of {len(parts)} ".encode() + b" ".join(parts)
    if type(item) is np.ndarray and item.dtype.kind in "biufc":
        return f"array {item.dtype.str} {item.shape} ".encode() + item.tobytes()
    if isinstance(item, Number):
        return f"{type(item).__name__} {item!r} ".encode()
    raise TypeError(
        f"the cache cannot tell the content of a {type(item).__name__}; give paths, numbers, plain "
        "arrays, or lists of these, or cache=None"
    )
