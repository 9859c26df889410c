"""What every encoder must say: how an item, or a text, becomes a row."""

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
    """A loaded model with its preprocessing: how an item becomes a row, and a text another."""

    reads_files: ClassVar[bool] = True

    @property
    def reads_ahead(self) -> bool:
        """Whether items are prepared while the model computes."""
        return False

    @abstractmethod
    def space(self, modality: str) -> EncoderSpace:
        """Return what decides about the rows of items, or of texts if `modality` is "text"."""

    @abstractmethod
    def prepare(self, item: Any, numbers: Sequence[int], n_views: int) -> list[Any]:
        """Return the model's input for these of its `n_views` views; called from threads.

        In place of a path comes what is in the file, if the backbone `reads_files`.
        """

    def doubt(self, item: Any) -> str | None:
        """Return why an item that could be prepared may not be what it seems; from threads too."""
        return None

    @abstractmethod
    def forward(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Return one row for each input."""

    @abstractmethod
    def forward_text(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Return one row for each tokenised text."""

    def tokenize(self, texts: list[str]) -> tuple[list[Any], list[str]]:
        """Return the model's input for each text, and the text's content."""
        return texts, [content_hash(text.encode("utf-8", "surrogatepass")) for text in texts]

    def digest(self, item: Any) -> str:
        """Return the content of an item that is no path."""
        return content_hash(spell_out(item))

    def key(self, content: str, number: int, n_views: int) -> str:
        """Return where the cache keeps view `number` of a content."""
        return content if n_views == 1 else f"{content} view {number} of {n_views}"


def is_path(item: Any) -> bool:
    """Whether an item is the path of a file."""
    return isinstance(item, str | os.PathLike)


def content_hash(content: bytes) -> str:
    """Return the name of a content in the cache."""
    return hashlib.sha256(content).hexdigest()


def spell_out(item: Any) -> bytes:
    """Spell out an item so that two items have the same spelling only if they are the same.

    Bytes, numbers, plain arrays of them, and lists and tuples of all these. Anything else may hold
    more than can be seen from here, or less: a path inside a tuple is not what is in the file.
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
        f"the cache cannot know a {type(item).__name__} by its content; give paths, numbers, plain "
        "arrays, or lists of these, or cache=None"
    )
