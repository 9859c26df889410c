"""Rows of samples: all of a small set, an even share of each class of a large one.

A Gaussian model is estimated from sums, whatever the number of samples. Choices on held-out samples
need rows: the *reserve*. It has at most :data:`MOST` rows, as many of each class as of any other if
the class has so many, and at least one.

The rows that are kept depend neither on the order of the samples nor on how they were split. Each
row has a key, a hash of its values, and in each class the rows with the smallest keys are kept: a
random choice without replacement [1]_. Equal rows of a class are kept once, with their number.

References
----------
.. [1] E. Cohen and H. Kaplan, "Summarizing Data Using Bottom-k Sketches", PODC 2007.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 2**12
"""Rows that are kept; more only where there are more classes."""

ANY_NUMBER = 2**62  # where no row had to go

SAME = 1e-5
"""Distance, relative to their length, below which two rows are taken for the same sample."""


@dataclass(frozen=True, eq=False)
class Reserve:
    """Distinct rows of samples, in the order of their bytes.

    Attributes
    ----------
    X : ndarray of shape (r, d)
    codes : ndarray of shape (r,)
        The class of each.
    multiplicity : ndarray of shape (r,), int64
        How often it was seen in its class.
    share : int
        Rows that a class could keep at most when some last had to go.
    """

    X: NDArray[Any]
    codes: NDArray[np.int64]
    multiplicity: NDArray[np.int64]
    share: int = ANY_NUMBER

    @classmethod
    def of(
        cls,
        X: NDArray[Any],
        codes: NDArray[Any],
        multiplicity: NDArray[np.int64] | None = None,
        share: int = ANY_NUMBER,
        *,
        most: int | None = None,
    ) -> Reserve:
        """Keep rows of samples, (n, d), with classes, (n,): :data:`MOST`, unless told otherwise."""
        most = MOST if most is None else most
        if multiplicity is None:
            multiplicity = np.ones(len(X), dtype=np.int64)
        if len(X) > most or (len(X) and share < ANY_NUMBER):
            kept, share = _smallest_keys(keys(X), codes, most, share)
            X, codes, multiplicity = X[kept], codes[kept], multiplicity[kept]
        X = X + 0  # -0 becomes 0: equal rows have equal bytes
        order = byte_order(X)
        X, codes, multiplicity = X[order], codes[order].astype(np.int64), multiplicity[order]
        if (again := equals_next(X)).any():
            # Equal rows may be of several classes.
            group = np.cumsum(np.concatenate([[False], ~again]))
            order = np.lexsort((codes, group))
            codes, group = codes[order], group[order]
            first = np.concatenate([[True], (np.diff(codes) != 0) | (np.diff(group) != 0)])
            X, codes = X[first], codes[first]  # rows of a group are equal
            multiplicity = np.add.reduceat(multiplicity[order], np.flatnonzero(first))
        return cls(X, codes, multiplicity, share)

    def __len__(self) -> int:
        return len(self.X)

    def joined(self, other: Reserve) -> Reserve:
        """Keep rows of both, in the wider of their dtypes."""
        if not len(other):
            return replace(self, share=min(self.share, other.share))
        if not len(self):
            return other.joined(self)
        return Reserve.of(
            np.concatenate([self.X, other.X]),
            np.concatenate([self.codes, other.codes]),
            np.concatenate([self.multiplicity, other.multiplicity]),
            min(self.share, other.share),
        )

    def missing(self, counts: NDArray[Any]) -> NDArray[np.bool_]:
        """Classes, (C,), of which not every sample is here, given how many there were."""
        return np.bincount(self.codes, self.multiplicity, minlength=len(counts)) < counts

    def without(self, X: NDArray[Any], codes: NDArray[Any]) -> tuple[Reserve, NDArray[np.bool_]]:
        """Drop samples, one for each row given, and say which of these rows were here, (n,)."""
        left, found = self.multiplicity.copy(), np.zeros(len(X), dtype=bool)
        for c in np.unique(codes):
            here, rows = np.flatnonzero(self.codes == c), np.flatnonzero(codes == c)
            kept = self.X[here].astype(np.float64)
            nearest = SAME**2 * np.square(kept).sum(axis=1)
            for row in rows if len(here) else []:
                distances = np.square(kept - X[row]).sum(axis=1)
                distances[left[here] == 0] = np.inf
                best = distances.argmin()
                if distances[best] <= nearest[best]:
                    left[here[best]] -= 1
                    found[row] = True
        some = left > 0
        return Reserve(self.X[some], self.codes[some], left[some], self.share), found

    def of_classes(self, positions: NDArray[np.int64]) -> Reserve:
        """Let class c be class ``positions[c]``; those below 0 are dropped."""
        codes = positions[self.codes]
        kept = codes >= 0
        return Reserve(self.X[kept], codes[kept], self.multiplicity[kept], self.share)


def keys(X: NDArray[Any]) -> NDArray[np.uint64]:
    """Hash every row, (n, d), by its values in float32: (n,)."""
    n, width = X.shape
    found = np.empty(n, dtype=np.uint64)
    factors = _mixed(np.arange(1, width // 2 + 2, dtype=np.uint64)) | np.uint64(1)
    for rows in blocks.slices(n):
        values = np.zeros((len(found[rows]), 2 * len(factors)), dtype=np.float32)
        np.add(X[rows], 0, out=values[:, :width], casting="same_kind")  # -0 becomes 0
        words = values.view(np.uint64)
        words *= _ODD  # low bits reach the high ones, and these are folded back
        words ^= words >> np.uint64(32)
        found[rows] = words @ factors
    return _mixed(found)


_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread numbers over all 64 bits, one to one."""
    for shift in (30, 27, 31):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * _ODD
    return numbers ^ (numbers >> np.uint64(32))


def _smallest_keys(
    found: NDArray[np.uint64], codes: NDArray[Any], most: int, share: int
) -> tuple[NDArray[np.intp], int]:
    """Rows of the smallest keys of each class, as many of each as of any other as far as may be.

    Returned with how many these are, `share` or fewer; what it was once, it will not exceed.
    """
    order = np.lexsort((found, codes))
    codes, found = codes[order], found[order]
    new_class = np.concatenate([[True], codes[1:] != codes[:-1]])
    new_key = new_class | np.concatenate([[True], found[1:] != found[:-1]])
    starts = np.flatnonzero(new_class)
    rank = np.cumsum(new_key) - 1
    rank -= np.repeat(rank[starts], np.diff([*starts, len(codes)]))
    counts = np.minimum(np.add.reduceat(new_key.astype(np.int64), starts), share)
    if counts.sum() > most:
        share = even_share(counts, most)
    return order[rank < share], share


def even_share(counts: NDArray[np.int64], most: int) -> int:
    """How many each class can keep so that no more than `most` are kept; 1 at least.

    >>> even_share(np.array([1, 5, 9]), 9)
    4
    """
    low, high = 1, max(int(counts.max(initial=1)), 1)
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(counts, middle).sum() <= most:
            low = middle
        else:
            high = middle - 1
    return low


def byte_order(X: NDArray[Any]) -> NDArray[np.intp]:
    """Rows in the order of their bytes."""
    values = np.ascontiguousarray(X)
    return np.argsort(values.view(f"V{values.shape[1] * values.itemsize}")[:, 0], kind="stable")


def equals_next(X: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows equal the one after them: (n - 1,)."""
    equal = np.empty(max(len(X) - 1, 0), dtype=bool)
    for rows in blocks.slices(len(equal)):
        equal[rows] = (X[1:][rows] == X[:-1][rows]).all(axis=1)
    return equal
