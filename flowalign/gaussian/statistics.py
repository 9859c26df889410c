r"""What a Gaussian model needs to know of its samples: counts, sums and one scatter.

For ``C`` classes of features of width ``d``, whatever the number of samples:
:math:`n_c`, :math:`\sum_{i \in c} x_i` and
:math:`W = \sum_i (x_i - M_{y_i})(x_i - M_{y_i})^T` around the sample means :math:`M_c`. Statistics
of two parts of the data add up to those of the whole, with, for each class that is in both,

.. math:: \frac{n_a n_b}{n_a + n_b} (M_a - M_b)(M_a - M_b)^T

added to the scatter [1]_. All tensors are float64.

References
----------
.. [1] T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for
   Computing Sample Variances", Stanford STAN-CS-79-773, 1979.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowalign import blocks


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
    def of(cls, X: Tensor, codes: Tensor, n_classes: int) -> ClassStatistics:
        """Collect the statistics of features ``X``, (n, d), with classes ``codes``, (n,).

        ``X`` may be float32; it is widened a block of rows at a time, for there may be many.
        """
        counts = torch.bincount(codes, minlength=n_classes).double()
        sums = counts.new_zeros(n_classes, X.shape[1])
        for part, classes in _blocks(X, codes):
            sums.index_add_(0, classes, part)
        means = sums / counts.clamp_min(1)[:, None]
        several = counts > 1  # a sample that is alone in its class does not deviate from its mean
        deviations = (
            (part - means[classes])[several[classes]] for part, classes in _blocks(X, codes)
        )
        return cls(counts, sums, _scatter(deviations, X))

    def __add__(self, other: ClassStatistics) -> ClassStatistics:
        """Statistics of the samples of both, of the same classes in the same order."""
        if not isinstance(other, ClassStatistics):
            return NotImplemented
        if self.sums.shape != other.sums.shape:
            raise ValueError(
                "Statistics add up if they are of the same classes and features; their sums have "
                f"shapes {tuple(self.sums.shape)} and {tuple(other.sums.shape)}."
            )
        both = (self.counts > 0) & (other.counts > 0)
        counts = self.counts + other.counts
        weights = (self.counts * other.counts / counts.clamp_min(1))[both]
        apart = weights.sqrt()[:, None] * (self.means - other.means)[both]
        rows = [self.scatter, other.scatter, apart]
        if sum(map(len, rows)) < self.scatter.shape[1]:
            scatter = torch.cat(rows)
        else:
            scatter = self.products + other.products + apart.T @ apart
        return ClassStatistics(counts, self.sums + other.sums, scatter)

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
        return self.sums / self.counts.clamp_min(1)[:, None]

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
        centred = self.means - self.sums.sum(dim=0) / self.n
        variance = self._trace + float(self.counts @ centred.square().sum(dim=1))
        square = self._trace + float(self.counts @ self.means.square().sum(dim=1))
        return (variance or square or n_values) / n_values

    @property
    def _trace(self) -> float:
        rows, width = self.scatter.shape
        return float(self.scatter.square().sum() if rows < width else self.scatter.trace())


def _blocks(X: Tensor, codes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features in float64, and their classes, a block of rows at a time."""
    return ((X[rows].double(), codes[rows]) for rows in blocks.slices(len(X)))


def _scatter(parts: Iterator[Tensor], X: Tensor) -> Tensor:
    """Sum of all ``part.T @ part``, or the parts themselves if they are fewer than columns."""
    n, d = X.shape
    if n < d:
        return torch.cat([X.new_zeros(0, d, dtype=torch.float64), *parts])
    products = X.new_zeros(d, d, dtype=torch.float64)
    for part in parts:
        products.addmm_(part.T, part)
    return products
