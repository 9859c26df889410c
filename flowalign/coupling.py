"""The coupling: which feature travels where.

Every sample is paired with the target of its own class. Arrays are numpy: ``X``
(r, d) features, ``codes`` (r,) the class of each, ``E`` (C, e) class embeddings, ``targets`` (C, d)
where each class lies in the feature space.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowalign import spaces
from flowalign.gaussian.statistics import ClassStatistics
from flowalign.reserve import Reserve, byte_order, equals_next

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Coupling:
    """Support samples and the targets of their classes.

    Attributes
    ----------
    X : ndarray of shape (r, d)
        Distinct rows of samples: all of them, or a share of each class.
    codes : ndarray of shape (r,)
        Their classes, rows of `targets`.
    multiplicity : ndarray of shape (r,)
        How often each row was given.
    statistics : ClassStatistics
        Of all samples, on the device of the fit.
    E : ndarray of shape (C, e) or None
        None if there are no class embeddings: targets are then the class means.
    targets : ndarray of shape (C, d)
    joint : bool
        Whether `E` was taken as it is.
    embedding_map : ProcrustesMap or None
        How `E` was mapped; None if it was not.
    """

    X: NDArray[Any]
    codes: NDArray[Any]
    multiplicity: NDArray[Any]
    statistics: ClassStatistics
    E: NDArray[Any] | None
    targets: NDArray[Any]
    joint: bool
    embedding_map: spaces.ProcrustesMap | None

    @classmethod
    def of(
        cls,
        rows: Reserve,
        statistics: ClassStatistics,
        E: NDArray[Any] | None,
        joint: str | bool = "auto",
    ) -> Coupling:
        """Place the targets; `joint` as in :func:`flowalign.spaces.place_targets`.

        Rows are sorted by their bytes, so that results do not depend on their order. Equal features
        of several classes are sorted by the bytes of their class embeddings.
        """
        X, codes, multiplicity = rows.X, rows.codes, rows.multiplicity
        if E is not None and equals_next(X).any():
            order = byte_order(np.hstack([X, E[codes]]))
            X, codes, multiplicity = X[order], codes[order], multiplicity[order]
        return cls(X, codes, multiplicity, statistics, E, *_placed(statistics, E, X.dtype, joint))

    @classmethod
    def by_class(
        cls,
        X: NDArray[Any],
        codes: NDArray[Any],
        E: NDArray[Any] | None,
        joint: str | bool = "auto",
    ) -> Coupling:
        """Couple all samples, (n, d), with classes, (n,)."""
        n_classes = int(codes.max(initial=-1)) + 1 if E is None else len(E)
        order = byte_order(X)
        X, codes = X[order], np.asarray(codes, dtype=np.int64)[order]
        statistics = ClassStatistics.of(torch.from_numpy(X), torch.from_numpy(codes), n_classes)
        return cls.of(Reserve.of(X, codes, most=max(len(X), 1)), statistics, E, joint)

    @property
    def fixed_targets(self) -> bool:
        """Whether the targets do not depend on the samples."""
        return self.joint and self.E is not None

    @property
    def counts(self) -> NDArray[np.float64]:
        """Samples of each class, (C,), here or not."""
        return self.statistics.counts.cpu().numpy()

    @property
    def complete(self) -> bool:
        """Whether all samples are here."""
        return int(self.multiplicity.sum()) == self.statistics.n

    @property
    def copies(self) -> bool:
        """Whether a sample was seen more than once in its class."""
        return bool((self.multiplicity > 1).any())

    @property
    def one_shot(self) -> bool:
        """Whether no class has two samples that differ."""
        # Rows are only left out where others of their class stay.
        return int(np.bincount(self.codes).max()) == 1 and self.complete

    def without(self, rows: NDArray[Any]) -> Coupling:
        """Leave samples out with all their copies, of the targets too."""
        left = self.multiplicity.copy()
        left[rows] = 0
        return self._with(left)

    def without_copies(self) -> Coupling:
        """Leave each sample in once."""
        return self._with(np.ones_like(self.multiplicity))

    def _with(self, multiplicity: NDArray[Any]) -> Coupling:
        """Let each sample be seen so many times."""
        if self.complete:
            kept = multiplicity > 0
            statistics = self._statistics_of(kept, multiplicity)
        else:
            gone = self.multiplicity - multiplicity
            kept = multiplicity > 0
            statistics = self.statistics - self._statistics_of(gone > 0, gone)
        targets, joint, embedding_map = _placed(statistics, self.E, self.X.dtype, self.joint)
        return replace(
            self,
            X=self.X[kept],
            codes=self.codes[kept],
            multiplicity=multiplicity[kept],
            statistics=statistics,
            targets=targets,
            joint=joint,
            embedding_map=embedding_map,
        )

    def _statistics_of(self, rows: NDArray[Any], counts: NDArray[Any]) -> ClassStatistics:
        place = self.statistics.counts.device
        x, codes, weights = (
            torch.tensor(array[rows], device=place) for array in (self.X, self.codes, counts)
        )
        return ClassStatistics.of(x, codes, len(self.statistics.counts), weights)


def _placed(
    statistics: ClassStatistics, E: NDArray[Any] | None, dtype: np.dtype[Any], joint: str | bool
) -> tuple[NDArray[Any], bool, spaces.ProcrustesMap | None]:
    """Place the targets of all classes, (C, d), as :func:`flowalign.spaces.place_targets`."""
    sampled = statistics.sampled.cpu().numpy()
    means = statistics.means.cpu().numpy().astype(dtype)
    if E is not None:
        return spaces.place_targets(E, means[sampled], sampled, joint)
    unsampled = np.setdiff1d(np.arange(len(means)), sampled)
    means[unsampled] = means[sampled].mean(axis=0)
    return means, True, None
