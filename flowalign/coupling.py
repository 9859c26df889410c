"""The coupling: which feature travels where, and how to hold some of it out.

Every sample is tied to the target of its own class, never to another's. All arrays are numpy;
``X`` (n, d) features, ``codes`` (n,) the class of each, ``E`` (C, e) class embeddings, ``targets``
(C, d) where each class lies in the feature space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign import spaces

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_FOLDS = 4
MAX_ENTRIES = 2**21  # of an array of rows by classes or by features, when samples are held out


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

        Samples are brought into an order of their own, so that nothing depends on the one they came
        in: that of their bytes, since any will do that depends on nothing else.
        """
        values = np.ascontiguousarray(X)
        order = np.argsort(values.view(f"V{values.strides[0]}")[:, 0], kind="stable")
        X, codes = X[order], codes[order]
        if E is None:
            return cls(X, codes, None, spaces.class_means(X, codes), True, None)
        return cls(X, codes, E, *spaces.place_targets(E, X, codes, joint))

    @property
    def fixed_targets(self) -> bool:
        """Whether the targets are what they are without regard to the samples."""
        return self.joint and self.E is not None

    @property
    def one_shot(self) -> bool:
        """Whether no class has two samples."""
        return int(np.bincount(self.codes).max()) == 1

    @property
    def removable(self) -> NDArray[Any]:
        """Rows of the samples that can be held out.

        Those whose class has others. In a one-shot set all, if there is text to place the target of
        a class without samples, and none otherwise.
        """
        if self.one_shot:
            return np.arange(0 if self.E is None else len(self.X))
        return np.flatnonzero(np.bincount(self.codes)[self.codes] > 1)

    def without(self, rows: NDArray[Any]) -> Coupling:
        """Leave samples out, of the targets too."""
        X, codes = np.delete(self.X, rows, axis=0), np.delete(self.codes, rows)
        return Coupling.by_class(X, codes, self.E, self.joint)

    def folds(self) -> list[NDArray[Any]]:
        """Split the removable samples into four folds to hold out in turn: lists of rows.

        Each class is spread over the folds and keeps a sample outside of each; in a one-shot set
        folds hold out classes as a whole. The names of the classes play no part. Very few samples
        make fewer folds.
        """
        rows = self.removable
        codes = self.codes[rows]
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        # Classes begin at different folds, so that these are of one size.
        fold = (_turns(codes) + np.argsort(np.argsort(first))[inverse]) % N_FOLDS
        folds = [rows[fold == k] for k in range(N_FOLDS)]
        return [rows for rows in folds if 0 < len(rows) < len(self.X)]


def _turns(codes: NDArray[Any]) -> NDArray[Any]:
    """How many samples of its class come before each: 0 for the first of every class."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    first = np.cumsum(counts) - counts
    turns = np.empty(len(codes), dtype=int)
    turns[order] = np.arange(len(codes)) - first[codes[order]]
    return turns


def spread_rows(codes: NDArray[Any], most: int) -> NDArray[Any]:
    """Rows of at most ``most`` samples, as evenly over the classes as they allow."""
    return np.argsort(_turns(codes), kind="stable")[: max(1, most)]
