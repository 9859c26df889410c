"""The covariance that all classes share, shrunk, by its eigenvectors. All tensors are float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowalign.gaussian.means import NEGLIGIBLE, MeansPosterior
from flowalign.gaussian.statistics import ClassStatistics


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariance within classes, by its eigenvectors.

    Attributes
    ----------
    basis : Tensor of shape (d, d)
        Orthonormal eigenvectors as columns.
    variances : Tensor of shape (d,)
        Eigenvalues, all positive.
    divisor : float
        What the scatter was divided by.
    tail : float
        Samples and pseudo-samples behind it, n - 1 + d.
    single_share : float
        Share of classes with a single sample, which have no scatter of their own.
    """

    basis: Tensor
    variances: Tensor
    divisor: float
    tail: float
    single_share: float


def estimate_covariance(
    statistics: ClassStatistics, means: MeansPosterior, precision: Tensor
) -> Covariance:
    r"""Shrunk covariance within classes.

    .. math::

        \Sigma = (1 - s)\, \frac{W}{f} + s\, \frac{\mathrm{tr}(W)}{f d}\, I, \qquad
        s = \frac{d}{n - 1 + d},

    with :math:`W` the scatter (a sum) around the class means and :math:`f` its degrees of freedom,
    n less the number of sampled classes: ``sklearn.covariance.shrunk_covariance(W / f, s)``, as if
    d samples more had equal variance in all directions. But for its scale this is the estimator of
    GDA-CLIP [1]_.

    A class with a single sample has no scatter. In the share of such classes the scatter between
    the sample means stands in for it, less what the process of the means explains: features vary
    within classes in much the directions in which they vary between them.

    Parameters
    ----------
    statistics : ClassStatistics
    means, precision
        Of the class means, from :func:`flowalign.gaussian.means.estimate_means`.

    References
    ----------
    .. [1] Z. Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation",
       ICLR 2024.
    """
    S, width = statistics.sampled, statistics.sums.shape[1]
    counts, scatter = statistics.counts[S], statistics.scatter
    few = len(scatter) < width
    share = float((counts == 1).double().mean()) if len(S) > 1 else 0.0
    if share:
        root = torch.linalg.cholesky(precision)
        between = share**0.5 * root.T @ (statistics.means[S] - means.common)
        scatter = torch.cat([scatter, between]) if few else scatter + between.T @ between
    before = max(statistics.n - 1, 1)
    tail = before + width
    freedom = max(statistics.n - len(S) + share * (len(S) - 1), 1.0)
    divisor = tail * freedom / before
    basis, squares = _eigenbasis(scatter, few=few)
    ridge = float(squares.sum()) / before
    ridge = max(ridge, NEGLIGIBLE * statistics.mean_square * divisor)
    # Of one layout, so that a model that was stored gives the same result to the last bit.
    return Covariance(basis.contiguous(), (squares + ridge) / divisor, divisor, tail, share)


def _eigenbasis(scatter: Tensor, *, few: bool) -> tuple[Tensor, Tensor]:
    """Eigenvectors (d, d) and eigenvalues (d,) of a scatter, or of the products of a few rows."""
    if not few:
        squares, basis = torch.linalg.eigh(scatter)
        return basis, squares.clamp_min(0)
    # Fewer samples than coordinates: from the rows' products, completed by any orthonormal vectors.
    products, vectors = torch.linalg.eigh(scatter @ scatter.T)
    kept = products > NEGLIGIBLE * products[-1:]
    squares = products[kept]
    basis = torch.linalg.qr(scatter.T @ (vectors[:, kept] / squares.sqrt()), mode="complete").Q
    return basis, torch.cat([squares, squares.new_zeros(len(basis) - len(squares))])
