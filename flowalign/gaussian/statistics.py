r"""What a Gaussian model needs to know of its samples: counts, sums and one scatter.

For ``C`` classes of features of width ``d``, whatever the number of samples:
:math:`n_c`, :math:`\sum_{i \in c} x_i` and
:math:`W = \sum_i (x_i - M_{y_i})(x_i - M_{y_i})^T` around the sample means :math:`M_c`. Statistics
of two parts of the data add up to those of the whole, with, for each class that is in both,

.. math:: \frac{n_a n_b}{n_a + n_b} (M_a - M_b)(M_a - M_b)^T

added to the scatter [1]_, and taken from it when a part is taken away. All tensors are float64.

References
----------
.. [1] T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for
   Computing Sample Variances", Stanford STAN-CS-79-773, 1979.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowalign import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANY = 2**13
"""Samples from which on products of float32 are float32: they cost half, and the rounding of so
many is lost in their sum."""

ROUNDING = 1e-24  # of a square, relative to it


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Sufficient statistics of labelled samples; two of the same classes can be added.

    Attributes
    ----------
    counts : Tensor of shape (C,)
        Samples of each class; 0 is allowed.
    sums : Tensor of shape (C, d)
        Their sums.
    scatter : Tensor of shape (d, d), or (r, d) with r < d
        The scatter W within classes, or, of few samples, rows R with :math:`W = R^T R`: their
        eigenvectors cost less.

    Examples
    --------
    >>> import torch
    >>> from flowalign.gaussian.statistics import ClassStatistics
    >>> X, codes = torch.randn(20, 3), torch.arange(20) % 2
    >>> parts = [ClassStatistics.of(X[k::3], codes[k::3], n_classes=2) for k in range(3)]
    >>> whole = ClassStatistics.of(X, codes, n_classes=2)
    >>> torch.allclose((parts[0] + parts[1] + parts[2]).products, whole.products)
    True
    """

    counts: Tensor
    sums: Tensor
    scatter: Tensor

    @classmethod
    def of(
        cls, X: Tensor, codes: Tensor, n_classes: int, weights: Tensor | None = None
    ) -> ClassStatistics:
        """Collect the statistics of features ``X``, (n, d), with classes ``codes``, (n,).

        Each counts for one sample, or for ``weights``, (n,). ``X`` is widened to float64 a block of
        rows at a time. Of :data:`MANY` samples in float32 or more, deviations from the class means
        are multiplied as they are, and their products summed in float64.
        """
        dtype = X.dtype if len(X) >= max(MANY, X.shape[1]) else torch.float64
        w = None if weights is None else weights.double()
        counts = torch.bincount(codes, w, minlength=n_classes).double()
        sums = counts.new_zeros(n_classes, X.shape[1])
        for rows in blocks.slices(len(X)):
            part = X[rows].double()
            sums.index_add_(0, codes[rows], part if w is None else part * w[rows, None])
        means = (sums / counts.clamp_min(1)[:, None]).to(dtype)
        several = counts > 1  # a sample that is alone in its class does not deviate from its mean
        alone = not bool(several.any())

        def deviations() -> Iterator[Tensor]:
            for rows in blocks.slices(0 if alone else len(X)):
                part = X[rows].to(dtype) - means[codes[rows]]
                if w is not None:
                    part = part * w[rows, None].sqrt().to(dtype)
                yield part[several[codes[rows]]]

        scatter = _scatter(deviations(), counts, *X.shape)
        if dtype == torch.float64:
            return cls(counts, sums, scatter)
        # The means were rounded: the scatter about them is larger by the square of the difference.
        apart = (sums / counts.clamp_min(1)[:, None] - means) * counts.sqrt()[:, None]
        apart = apart[several]
        return cls(counts, sums, scatter - apart.T @ apart)

    @classmethod
    def none(cls, n_classes: int, width: int) -> ClassStatistics:
        """Statistics of no samples."""
        counts = torch.zeros(n_classes, dtype=torch.float64)
        return cls(counts, counts.new_zeros(n_classes, width), counts.new_zeros(0, width))

    def __add__(self, other: ClassStatistics) -> ClassStatistics:
        """Statistics of the samples of both, of the same classes in the same order."""
        if not isinstance(other, ClassStatistics):
            return NotImplemented
        self._check_alike(other)
        counts = self.counts + other.counts
        apart = self._apart(other, counts)
        rows = [self.scatter, other.scatter, apart]
        if sum(map(len, rows)) < self.scatter.shape[1]:
            scatter = torch.cat(rows)
        else:
            scatter = self.products + other.products + apart.T @ apart
        return ClassStatistics(counts, self.sums + other.sums, scatter)

    def __sub__(self, other: ClassStatistics) -> ClassStatistics:
        """Statistics without samples that are in them: what was added before is as it was."""
        if not isinstance(other, ClassStatistics):
            return NotImplemented
        self._check_alike(other)
        counts = self.counts - other.counts
        if bool((counts < 0).any()):
            raise ValueError("Of some classes there are fewer samples than are to be taken away.")
        # What rounding leaves of a class without samples is nothing.
        left = ClassStatistics(
            counts, (self.sums - other.sums) * (counts > 0)[:, None], self.scatter
        )
        if not bool((counts > 1).any()):
            return replace(left, scatter=self.scatter[:0])
        apart = left._apart(other, self.counts)
        return replace(left, scatter=self.products - other.products - apart.T @ apart)

    def _apart(self, other: ClassStatistics, together: Tensor) -> Tensor:
        """Differences of the means of classes that are in both, (r, d), of the size they count."""
        weights = self.counts * other.counts / together.clamp_min(1)
        both = weights > 0
        return weights[both].sqrt()[:, None] * (self.means - other.means)[both]

    def _check_alike(self, other: ClassStatistics) -> None:
        if self.sums.shape != other.sums.shape:
            raise ValueError(
                "Statistics add up if they are of the same classes and features; their sums have "
                f"shapes {tuple(self.sums.shape)} and {tuple(other.sums.shape)}."
            )

    def placed(self, positions: NDArray[np.int64], n_classes: int) -> ClassStatistics:
        """Let class c be class ``positions[c]`` of ``n_classes``, or none of them below 0.

        What classes add to the scatter stays.
        """
        (kept,) = np.nonzero(positions >= 0)
        place = self.counts.device
        old, new = (torch.from_numpy(rows).to(place) for rows in (kept, positions[kept]))
        counts = self.counts.new_zeros(n_classes).index_copy(0, new, self.counts[old])
        sums = self.sums.new_zeros(n_classes, self.sums.shape[1])
        return ClassStatistics(counts, sums.index_copy(0, new, self.sums[old]), self.scatter)

    def to(self, device: torch.device | str) -> ClassStatistics:
        """Move to a device."""
        return ClassStatistics(*(part.to(device) for part in vars(self).values()))

    def __getstate__(self) -> dict[str, Any]:
        return {name: part.cpu().numpy() for name, part in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, part in state.items():
            object.__setattr__(self, name, torch.from_numpy(np.array(part)))

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.counts.sum())

    @property
    def sampled(self) -> Tensor:
        """Classes that have samples, ascending: (S,)."""
        return self.counts.nonzero()[:, 0]

    @property
    def means(self) -> Tensor:
        """Mean of the samples of each class, (C, d); zero where there are none."""
        return self.sums / torch.where(self.counts > 0, self.counts, 1)[:, None]

    @property
    def products(self) -> Tensor:
        """The scatter within classes, (d, d)."""
        rows, width = self.scatter.shape
        return self.scatter.T @ self.scatter if rows < width else self.scatter

    @property
    def within(self) -> float | None:
        """Variance of a sample within its class, summed over coordinates; None if no class has two.

        Unbiased: divided by the samples less the sampled classes.
        """
        repeats = self.n - len(self.sampled)
        return self._trace / repeats if repeats else None

    @property
    def mean_square(self) -> float:
        """Mean square of the coordinates, of centred features where these vary; never 0.

        It is what a variance is compared with.
        """
        n_values = self.n * self.sums.shape[1]
        variance, square = float(self.spread.sum()), self.square
        # Of samples that are all equal, rounding may leave some variance.
        return (variance if variance > ROUNDING * square else square or n_values) / n_values

    @property
    def spread(self) -> Tensor:
        """Sum of the squares of each coordinate about the mean of all samples: (d,)."""
        centred = self.means - self.sums.sum(dim=0) / max(self.n, 1)
        rows, width = self.scatter.shape
        few = rows < width
        squares = self.scatter.square().sum(dim=0) if few else self.scatter.diagonal()
        return squares + self.counts @ centred.square()

    @property
    def square(self) -> float:
        """Sum of the squares of all coordinates."""
        return self._trace + float(self.counts @ self.means.square().sum(dim=1))

    @property
    def _trace(self) -> float:
        rows, width = self.scatter.shape
        return float(self.scatter.square().sum() if rows < width else self.scatter.trace())


def _scatter(parts: Iterator[Tensor], like: Tensor, n: int, width: int) -> Tensor:
    """Sum of all ``part.T @ part``, or the parts themselves if they are fewer than columns."""
    if n < width:
        return torch.cat([like.new_zeros(0, width), *parts])
    products = like.new_zeros(width, width)
    for part in parts:
        products += part.T @ part
    return products
