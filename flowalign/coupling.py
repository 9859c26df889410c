"""The coupling: which feature travels where.

Every sample is tied to the target of its own class, never to another's. All arrays are numpy;
``X`` (n, d) features, ``codes`` (n,) the class of each, ``E`` (C, e) class embeddings, ``targets``
(C, d) where each class lies in the feature space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign import blocks, spaces

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Coupling:
    """Support samples and the targets of their classes.

    Attributes
    ----------
    X : ndarray of shape (n, d)
    codes : ndarray of shape (n,)
        Rows of `targets`.
    E : ndarray of shape (C, e) or None
        None where there is no text: targets are the class means.
    targets : ndarray of shape (C, d)
    joint : bool
        Whether `E` was taken as it is.
    embedding_map : ProcrustesMap or None
        How it was mapped if not.
    """

    X: NDArray[Any]
    codes: NDArray[Any]
    E: NDArray[Any] | None
    targets: NDArray[Any]
    joint: bool
    embedding_map: spaces.ProcrustesMap | None

    @classmethod
    def by_class(
        cls,
        X: NDArray[Any],
        codes: NDArray[Any],
        E: NDArray[Any] | None,
        joint: str | bool = "auto",
    ) -> Coupling:
        """Place the targets; `joint` as in :func:`flowalign.spaces.place_targets`.

        Rows are sorted by their bytes, so that results do not depend on their order. Equal features
        are sorted by the bytes of their class embeddings.
        """
        rows = _byte_order(X)
        X, codes = X[rows], codes[rows]
        if E is not None and _equals_next(X).any():
            rows = _byte_order(np.hstack([X, E[codes]]))
            X, codes = X[rows], codes[rows]
        return cls._of_ordered(X, codes, E, joint)

    @classmethod
    def _of_ordered(
        cls, X: NDArray[Any], codes: NDArray[Any], E: NDArray[Any] | None, joint: str | bool
    ) -> Coupling:
        if E is None:
            return cls(X, codes, None, spaces.class_means(X, codes), True, None)
        return cls(X, codes, E, *spaces.place_targets(E, X, codes, joint))

    @property
    def fixed_targets(self) -> bool:
        """Whether the targets are what they are without regard to the samples."""
        return self.joint and self.E is not None

    @property
    def copies(self) -> NDArray[Any]:
        """Samples, (n,) of bool, that equal the one before them and its class."""
        again = _equals_next(self.X) & (self.codes[1:] == self.codes[:-1])
        return np.concatenate([[False], again])

    @property
    def one_shot(self) -> bool:
        """Whether no class has two samples that differ."""
        return int(np.bincount(self.codes[~self.copies]).max()) == 1

    def without(self, rows: NDArray[Any]) -> Coupling:
        """Leave samples out, of the targets too."""
        X, codes = np.delete(self.X, rows, axis=0), np.delete(self.codes, rows)
        return Coupling._of_ordered(X, codes, self.E, self.joint)


def _byte_order(X: NDArray[Any]) -> NDArray[Any]:
    """Rows in the order of their bytes."""
    values = np.ascontiguousarray(X)
    return np.argsort(values.view(f"V{values.shape[1] * values.itemsize}")[:, 0], kind="stable")


def _equals_next(X: NDArray[Any]) -> NDArray[Any]:
    equal = np.empty(max(len(X) - 1, 0), dtype=bool)
    for rows in blocks.slices(len(equal)):
        equal[rows] = (X[1:][rows] == X[:-1][rows]).all(axis=1)
    return equal
