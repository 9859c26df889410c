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
MAX_HELD_OUT = 2**12  # samples
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
        in: that of their bytes, since any will do that depends on nothing else. Equal features
        follow the bytes of their class embeddings.
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

    @property
    def removable(self) -> NDArray[Any]:
        """Rows of the samples that can be held out.

        Those whose class has others that differ. In a one-shot set all, if there is text to place
        the target of a class without samples, and none otherwise.
        """
        distinct = np.bincount(self.codes[~self.copies], minlength=self.codes.max() + 1)
        if not self.one_shot:
            return np.flatnonzero(distinct[self.codes] > 1)
        return np.arange(0 if self.E is None or distinct.sum() == 1 else len(self.X))

    def without(self, rows: NDArray[Any]) -> Coupling:
        """Leave samples out, of the targets too."""
        X, codes = np.delete(self.X, rows, axis=0), np.delete(self.codes, rows)
        return Coupling._of_ordered(X, codes, self.E, self.joint)

    def folds(self) -> list[NDArray[Any]]:
        """Split the removable samples into four folds to hold out in turn: lists of rows.

        Each class is spread over the folds and keeps a sample outside of each; in a one-shot set
        folds hold out classes as a whole. Copies of a sample are in its fold: outside of it they
        would give its class away. The names of the classes play no part. Very few samples make
        fewer folds.
        """
        rows = self.removable
        codes, copies = self.codes[rows], self.copies[rows]
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        # Classes begin at different folds, so that these are of one size.
        fold = (_turns(codes, copies) + np.argsort(np.argsort(first))[inverse]) % N_FOLDS
        folds = [rows[fold == k] for k in range(N_FOLDS)]
        return [rows for rows in folds if len(rows)]


def _turns(codes: NDArray[Any], copies: NDArray[Any]) -> NDArray[Any]:
    """How many samples of its class come before each, copies not counted."""
    order = np.argsort(codes, kind="stable")
    counted = np.cumsum(~copies[order])
    _, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
    turns = np.empty(len(codes), dtype=int)
    turns[order] = counted - np.repeat(counted[starts], counts)
    return turns


def _byte_order(X: NDArray[Any]) -> NDArray[Any]:
    """Rows in the order of their bytes."""
    values = np.ascontiguousarray(X)
    return np.argsort(values.view(f"V{values.shape[1] * values.itemsize}")[:, 0], kind="stable")


def _equals_next(X: NDArray[Any]) -> NDArray[Any]:
    equal = np.empty(len(X) - 1, dtype=bool)
    for start in range(0, len(equal), spaces.BLOCK_ROWS):
        rows = slice(start, start + spaces.BLOCK_ROWS)
        equal[rows] = (X[1:][rows] == X[:-1][rows]).all(axis=1)
    return equal


def thinned(n: int, width: int) -> NDArray[Any]:
    """Rows of a set of n that arrays of this width have room for, evenly spread over the set."""
    most = min(max(1, MAX_ENTRIES // width), MAX_HELD_OUT)
    return np.linspace(0, n - 1, min(n, most)).round().astype(int)
