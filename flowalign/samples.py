"""What is kept of labelled samples, however many there were: sums, and some of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowalign.gaussian.statistics import ClassStatistics
from flowalign.inputs import places, shorten, union_of_labels
from flowalign.reserve import Reserve, byte_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORGOTTEN = 1e-6
"""Share of the squares of a class that must be gone when all its samples are, or they were others:
what rounding leaves in float32 features, and no more."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Statistics and a reserve of the samples of labelled classes; two of them add up.

    Attributes
    ----------
    classes : ndarray of shape (C,)
        Labels, sorted.
    statistics : ClassStatistics
    reserve : Reserve
    """

    classes: NDArray[Any]
    statistics: ClassStatistics
    reserve: Reserve

    @classmethod
    def of(
        cls,
        X: NDArray[Any],
        codes: NDArray[Any],
        classes: NDArray[Any],
        *,
        device: str = "cpu",
        most: int | None = None,
        ordered: bool = True,
    ) -> Samples:
        """Collect samples, (n, d), as they are to be modelled, with the classes ``codes``, (n,).

        Parameters
        ----------
        X, codes, classes
            Of the samples.
        device : str
            Where sums are made, and stay.
        most : int or None
            Rows that are kept; None is what a reserve has.
        ordered : bool
            Whether sums are made in the order of the rows' bytes, so that not the last bit of them
            depends on that in which they came.
        """
        codes = np.asarray(codes, dtype=np.int64)
        if ordered:
            order = byte_order(X)
            X, codes = X[order], codes[order]
        # The estimates need float64, which MPS lacks.
        place = "cpu" if device.startswith("mps") else device
        x, y = (torch.as_tensor(array, device=place) for array in (np.require(X, None, "W"), codes))
        statistics = ClassStatistics.of(x, y, len(classes))
        rows = Reserve.of(X, codes) if most is None else Reserve.of(X, codes, most=most)
        return cls(classes, statistics, rows)

    @classmethod
    def none(cls, classes: NDArray[Any], width: int, rows: Reserve) -> Samples:
        """No samples of some classes."""
        return cls(classes, ClassStatistics.none(len(classes), width), rows)

    def __add__(self, other: Samples) -> Samples:
        """Put samples together, of the labels of either."""
        if not isinstance(other, Samples):
            return NotImplemented
        classes = union_of_labels(self.classes, other.classes)
        one, more = self.among(classes), other.among(classes)
        place = one.statistics.counts.device
        statistics = one.statistics + more.statistics.to(place)
        return Samples(classes, statistics, one.reserve.joined(more.reserve))

    def among(self, classes: NDArray[Any]) -> Samples:
        """Return the same among more labels, sorted, or fewer: samples of the others are dropped.

        What those add to the scatter stays; :meth:`without_classes` takes it along.
        """
        if np.array_equal(classes, self.classes):
            return self
        positions = places(self.classes, classes)
        statistics = self.statistics.placed(positions, len(classes))
        return Samples(classes, statistics, self.reserve.of_classes(positions))

    def without(self, X: NDArray[Any], codes: NDArray[Any]) -> Samples:
        """Take samples away again, (n, d), with classes, (n,).

        Raises
        ------
        ValueError
            If there are fewer samples of a class, or these were not among them, as far as that can
            be told: where all samples of a class are in the reserve, or all of them go.
        """
        counts = self.statistics.counts.cpu().numpy()
        asked = np.bincount(codes, minlength=len(counts))
        if (wrong := np.flatnonzero(asked > counts)).size:
            c = wrong[0]
            raise ValueError(
                f"y has {asked[c]} samples of {shorten(self.classes[[c]].tolist())} to forget, of "
                f"{counts[c]:.0f} that were given; give each as often as it was."
            )
        here = ~self.reserve.missing(counts)
        reserve, found = self.reserve.without(X, codes)
        if (never := np.flatnonzero(here[codes] & ~found)).size:
            raise ValueError(
                f"X has samples to forget that were never given as samples of their class: rows "
                f"{shorten(never.tolist())}."
            )
        gone = Samples.of(X, codes, self.classes, ordered=False).statistics
        gone = gone.to(self.statistics.counts.device)
        left = self.statistics - gone
        emptied = (left.counts == 0) & (gone.counts > 0)
        rest = (self.statistics.sums - gone.sums)[emptied].square().sum(dim=1)
        strange = rest > FORGOTTEN * gone.sums[emptied].square().sum(dim=1)
        negative = left.products.diagonal().min() < -FORGOTTEN * self.statistics.square
        if bool(strange.any()) or bool(negative):
            raise ValueError(
                "X has samples to forget that were never given: what is left without them is no "
                "set of samples. Give the features that were given, of the same encoder."
            )
        return Samples(self.classes, left, reserve)

    def without_classes(self, dropped: NDArray[Any]) -> tuple[Samples, bool]:
        """Drop classes, `dropped` (C,) of bool, and say whether nothing of them is left.

        The scatter is one for all classes. Of a class whose samples are all in the reserve its part
        is taken away. Otherwise it is not known: the scatter per degree of freedom stays.
        """
        statistics, reserve, C = self.statistics, self.reserve, len(self.classes)
        place, counts = statistics.counts.device, statistics.counts.cpu().numpy()
        known = dropped & ~reserve.missing(counts)
        rows = known[reserve.codes]
        x, codes, weights = (
            torch.tensor(array[rows], device=place)
            for array in (reserve.X, reserve.codes, reserve.multiplicity)
        )
        statistics = statistics - ClassStatistics.of(x, codes, C, weights)
        unknown = dropped & ~known
        if unknown.any():
            n_free = statistics.n - len(statistics.sampled)
            gone = (counts[unknown] - 1).sum()
            share = 1 - gone / n_free if n_free else 0.0
            scatter = statistics.products * share
            statistics = ClassStatistics(statistics.counts, statistics.sums, scatter)
        left = Samples(self.classes, statistics, reserve).among(self.classes[~dropped])
        return left, not unknown.any()
