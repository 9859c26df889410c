r"""The class means, tied to each other by what their names have in common.

.. math:: x \mid c \sim N(\mu_c, \Sigma), \qquad \mu \sim GP(m, a G + b I)

Classes whose embeddings are close have close means. How much of the spread between means the text
explains, and how much it does not, is estimated from the means themselves, so that text helps where
it can, and nowhere else. No map between the two spaces is fitted. Classes without samples get the
mean that the text predicts.

C classes of features of width d, of which S have samples; ``E``, (C, e), are the class embeddings.
Variances of means are in units of :math:`\Sigma`. All tensors are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowalign.gaussian.statistics import ClassStatistics

RESIDUAL_SPREAD = 0.25
"""Spread of class means that text does not explain, in units of the within-class variance, where
every class has one sample and the two cannot be told apart. The median of what likelihood finds on
eight feature sets with 16 samples a class; ``docs/decisions/0005-closed-form.md``."""

CERTAIN = 1e8
"""Both spreads where classes have no width: so large that sample means are not shrunk."""

NEGLIGIBLE = 1e-10  # relative to the mean square of the features


@dataclass(frozen=True, eq=False)
class MeansPosterior:
    r"""What is known of the class means after seeing the samples.

    Attributes
    ----------
    means : Tensor of shape (C, d)
        Expected class means.
    covariance : Tensor of shape (C, C)
        Between the means of any two classes, in units of :math:`\Sigma`; it includes the
        uncertainty of the common mean.
    common : Tensor of shape (d,)
        Mean of the process, by generalised least squares.
    common_covariance : Tensor of shape (C,)
        Between it and each class mean, in units of :math:`\Sigma`.
    common_variance : float
        Its own.
    text_spread, residual_spread : float
        a and b: variance between classes that text explains, and that it does not.
    """

    means: Tensor
    covariance: Tensor
    common: Tensor
    common_covariance: Tensor
    common_variance: float
    text_spread: float
    residual_spread: float


def estimate_means(statistics: ClassStatistics, E: Tensor | None) -> tuple[MeansPosterior, Tensor]:
    r"""Class means by Gaussian process regression on the class embeddings.

    With :math:`G` the Gram matrix of the centred embeddings, scaled to a mean variance of one,
    :math:`K = a G + b I` is the prior covariance of the means, and

    .. math::

        \hat\mu = m + K_{\cdot S} \left( K_{SS} + \mathrm{diag}(1 / n_c) \right)^{-1} (M - m)

    for the sample means :math:`M` of the sampled classes S. :math:`a = 0` is shrinkage towards the
    common mean by :math:`1 / (1 + b n_c)`, as of James and Stein.

    Parameters
    ----------
    statistics : ClassStatistics
    E : Tensor of shape (C, e) or None
        Class embeddings; None is a set without text (:math:`a = 0`).

    Returns
    -------
    posterior : MeansPosterior
    precision : Tensor of shape (S, S)
        Inverse covariance of the sample means around the common mean.
    """
    S = statistics.sampled
    G = gram(statistics, E)
    a, b = _spreads(G[S][:, S], statistics)
    posterior, precision = tied_means(G, a, b, statistics.counts[S], statistics.means[S], S)
    return posterior, precision


def tied_means(
    G: Tensor, a: float, b: float, counts: Tensor, M: Tensor, S: Tensor
) -> tuple[MeansPosterior, Tensor]:
    """Means of all classes, given those of some.

    Parameters
    ----------
    G : Tensor of shape (C, C)
        As from :func:`gram`.
    a, b : float
        Spreads of the means.
    counts : Tensor of shape (S,)
        Samples of the classes that have some; not always whole, and above 0.
    M : Tensor of shape (S, d)
        Their means.
    S : Tensor of shape (S,)
        Which classes these are.

    Returns
    -------
    posterior, precision
        As of :func:`estimate_means`.
    """
    K = a * G + b * torch.eye(len(G), dtype=M.dtype, device=M.device)
    precision = torch.linalg.inv(K[S][:, S] + torch.diag(1 / counts))
    weights = precision.sum(dim=0)
    common = weights @ M / weights.sum()
    gain = K[:, S] @ precision
    # What the process leaves of the common mean in each class, and with it of its uncertainty.
    left = 1 - gain.sum(dim=1)
    variance = 1 / float(weights.sum())
    posterior = MeansPosterior(
        common + gain @ (M - common),
        K - gain @ K[S] + torch.outer(left, left) * variance,
        common,
        left * variance,
        variance,
        a,
        b,
    )
    return posterior, precision


def gram(statistics: ClassStatistics, E: Tensor | None) -> Tensor:
    """Scalar products of class embeddings, centred and scaled on the sampled classes: (C, C)."""
    S, n_classes = statistics.sampled, len(statistics.counts)
    if E is None:
        return statistics.sums.new_zeros(n_classes, n_classes)
    centred = E - E[S].mean(dim=0)
    G = centred @ centred.T
    spread = float(G.diagonal()[S].sum()) / max(len(S) - 1, 1)
    if spread <= NEGLIGIBLE * float(E.square().sum(dim=1).mean()):
        return torch.zeros_like(G)
    return G / spread


def _spreads(G: Tensor, statistics: ClassStatistics) -> tuple[float, float]:
    r"""Maximum marginal likelihood of (a, b) on a grid.

    In the eigenvectors of :math:`G` (but for the constant one, which the common mean takes up) the
    sample means are independent with variances :math:`v_j = a g_j + b + \overline{1 / n_c}` times
    the variance within classes: exactly so for equal counts and a covariance that is the same in
    all directions, and near enough otherwise.
    """
    S, within = statistics.sampled, statistics.within
    if len(S) < 2:
        return 0.0, RESIDUAL_SPREAD
    counts, M = statistics.counts[S], statistics.means[S]
    negligible = NEGLIGIBLE * statistics.mean_square * M.shape[1]
    # G is centred: the constant vector has eigenvalue 0, here moved below all others and dropped.
    g, vectors = torch.linalg.eigh(G - 1 / len(S))
    g, squares = g[1:].clamp_min(0), (vectors[:, 1:].T @ M).square().sum(dim=1)
    grid = torch.cat([g.new_zeros(1), torch.logspace(-3, 1, 30, dtype=g.dtype, device=g.device)])
    text_grid = grid if bool(G.any()) else grid[:1]
    if within is None:
        # One sample a class: the scale is free, b is set, and a is found relative to it.
        v = text_grid[:, None] * g + RESIDUAL_SPREAD + 1
        scale = (squares / v).mean(dim=1).clamp_min(negligible)
        loss = v.log().sum(dim=1) + len(g) * scale.log()
        return float(text_grid[loss.argmin()]), RESIDUAL_SPREAD
    if within <= negligible:
        # Samples of a class are equal: next to what separates them, their means are known.
        return float(text_grid[-1] and CERTAIN), CERTAIN
    v = text_grid[:, None, None] * g + grid[:, None] + (1 / counts).mean()
    loss = (v.log() + squares / (within * v)).sum(dim=2)
    a, b = divmod(int(loss.argmin()), len(grid))
    return float(text_grid[a]), float(grid[b])
