r"""A Gaussian model of each class from few samples: empirical Bayes.

.. math::

    x \mid c \sim N(\mu_c, \Sigma), \qquad
    \mu \sim \text{Gaussian process over the class embeddings}

The class means are tied to each other by what their names have in common: classes whose embeddings
are close have close means. How much of the spread between means the text explains, and how much it
does not, is estimated from the means themselves, so that text helps where it can, and nowhere else.
No map between the two spaces is fitted. Classes without samples get the mean that the text
predicts.

Shapes: ``X`` (n, d) support features, ``codes`` (n,) the class of each, a row of ``E``, (C, e), the
class embeddings. Variances of means are in units of :math:`\Sigma`. All is computed in float64, and
all tensors are, but for ``X``, which may be float32: it is widened a block of rows at a time, for
there may be many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from flowalign.spaces import BLOCK_ROWS

RESIDUAL_SPREAD = 0.25
"""Spread of class means that text does not explain, in units of the within-class variance, where
every class has one sample and the two cannot be told apart. The median of what likelihood finds on
eight feature sets with 16 samples a class; ``docs/decisions/0005-closed-form.md``."""

NEGLIGIBLE = 1e-10  # relative to the mean square of the features


@dataclass(frozen=True)
class Support:
    """Sufficient statistics of a support set.

    Attributes
    ----------
    n, n_classes : int
        Samples, and classes with and without samples.
    sampled : Tensor of shape (S,)
        Classes that have samples, ascending.
    counts : Tensor of shape (S,)
        Their samples.
    rows : Tensor of shape (n,)
        Class of each sample as an index into `sampled`.
    means : Tensor of shape (S, d)
        Their means.
    within : float or None
        Variance of a sample within its class, summed over coordinates; None if no class has two.
    mean_square : float
        Mean square of the coordinates, of centred features where these vary: what a variance is
        compared with. Never 0.
    """

    n: int
    n_classes: int
    sampled: Tensor
    counts: Tensor
    rows: Tensor
    means: Tensor
    within: float | None
    mean_square: float

    @classmethod
    def of(cls, X: Tensor, codes: Tensor, n_classes: int) -> Support:
        """Collect the statistics of features ``X`` with classes ``codes``."""
        sampled, rows, counts = codes.unique(return_inverse=True, return_counts=True)
        counts = counts.double()
        sums = counts.new_zeros(len(sampled), X.shape[1])
        for part, classes in _blocks(X, rows):
            sums.index_add_(0, classes, part)
        means, mean = sums / counts[:, None], sums.sum(dim=0) / len(X)
        within, variance, square = counts.new_zeros(3)
        for part, classes in _blocks(X, rows):
            within += (part - means[classes]).square().sum()
            variance += (part - mean).square().sum()
            square += part.square().sum()
        repeats = len(X) - len(sampled)
        return cls(
            len(X),
            n_classes,
            sampled,
            counts,
            rows,
            means,
            float(within) / repeats if repeats else None,
            (float(variance) or float(square) or X.numel()) / X.numel(),
        )

    def deviations(self, X: Tensor) -> Iterator[Tensor]:
        """Yield samples minus the mean of their class, a block of rows at a time.

        Those that are alone in their class are left out.
        """
        several = self.counts > 1
        for part, classes in _blocks(X, self.rows):
            yield (part - self.means[classes])[several[classes]]


def _blocks(X: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features in float64, and their classes, a block of rows at a time."""
    for part, classes in zip(X.split(BLOCK_ROWS), rows.split(BLOCK_ROWS), strict=True):
        yield part.double(), classes


@dataclass(frozen=True)
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
    precision : Tensor of shape (S, S)
        Inverse covariance of the sample means around it.
    text_spread, residual_spread : float
        Variance between classes that text explains, and that it does not.
    """

    means: Tensor
    covariance: Tensor
    common: Tensor
    precision: Tensor
    text_spread: float
    residual_spread: float


def estimate_means(support: Support, E: Tensor | None) -> MeansPosterior:
    r"""Class means by Gaussian process regression on the class embeddings.

    With :math:`G` the Gram matrix of the centred embeddings, scaled to a mean variance of one,
    :math:`K = a G + b I` is the prior covariance of the means, and

    .. math::

        \hat\mu = m + K_{\cdot S} \left( K_{SS} + \mathrm{diag}(1 / n_c) \right)^{-1} (M - m)

    for the sample means :math:`M` of the sampled classes S. :math:`a = 0` is shrinkage towards the
    common mean by :math:`1 / (1 + b n_c)`, as of James and Stein.

    Parameters
    ----------
    support : Support
    E : Tensor of shape (C, e) or None
        Class embeddings; None is a set without text (:math:`a = 0`).
    """
    S, counts, M = support.sampled, support.counts, support.means
    G = _gram(support, E)
    a, b = _spreads(G[S][:, S], support)
    K = a * G + b * torch.eye(support.n_classes, dtype=M.dtype, device=M.device)
    precision = torch.linalg.inv(K[S][:, S] + torch.diag(1 / counts))
    weights = precision.sum(dim=0)
    common = weights @ M / weights.sum()
    gain = K[:, S] @ precision
    # What the process leaves of the common mean in each class, and with it of its uncertainty.
    left = 1 - gain.sum(dim=1)
    covariance = K - gain @ K[S] + torch.outer(left, left) / weights.sum()
    return MeansPosterior(common + gain @ (M - common), covariance, common, precision, a, b)


def _gram(support: Support, E: Tensor | None) -> Tensor:
    """Scalar products of class embeddings, centred and scaled on the sampled classes: (C, C)."""
    S, M = support.sampled, support.means
    if E is None:
        return M.new_zeros(support.n_classes, support.n_classes)
    centred = E - E[S].mean(dim=0)
    G = centred @ centred.T
    spread = float(G.diagonal()[S].sum()) / max(len(S) - 1, 1)
    if spread <= NEGLIGIBLE * float(E.square().sum(dim=1).mean()):
        return torch.zeros_like(G)
    return G / spread


def _spreads(G: Tensor, support: Support) -> tuple[float, float]:
    r"""Maximum marginal likelihood of (a, b) on a grid.

    In the eigenvectors of :math:`G` (but for the constant one, which the common mean takes up) the
    sample means are independent with variances :math:`v_j = a g_j + b + \overline{1 / n_c}` times
    the variance within classes: exactly so for equal counts and a covariance that is the same in
    all directions, and near enough otherwise.
    """
    n_classes, within = len(support.counts), support.within
    negligible = NEGLIGIBLE * support.mean_square * support.means.shape[1]
    if n_classes < 2:
        return 0.0, RESIDUAL_SPREAD
    # G is centred: the constant vector has eigenvalue 0, here moved below all others and dropped.
    g, vectors = torch.linalg.eigh(G - 1 / n_classes)
    g, squares = g[1:].clamp_min(0), (vectors[:, 1:].T @ support.means).square().sum(dim=1)
    grid = torch.cat([g.new_zeros(1), torch.logspace(-3, 1, 30, dtype=g.dtype, device=g.device)])
    text_grid = grid if bool(G.any()) else grid[:1]
    if within is None:
        # One sample a class: the scale is free, b is set, and a is found relative to it.
        v = text_grid[:, None] * g + RESIDUAL_SPREAD + 1
        scale = (squares / v).mean(dim=1).clamp_min(negligible)
        loss = v.log().sum(dim=1) + len(g) * scale.log()
        return float(text_grid[loss.argmin()]), RESIDUAL_SPREAD
    if within <= negligible:
        # Samples of a class are equal. Their means are known, to a tenth of what separates them.
        return float(text_grid[-1]), float(grid[-1])
    v = text_grid[:, None, None] * g + grid[:, None] + (1 / support.counts).mean()
    loss = (v.log() + squares / (within * v)).sum(dim=2)
    a, b = divmod(int(loss.argmin()), len(grid))
    return float(text_grid[a]), float(grid[b])


@dataclass(frozen=True)
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
    tail : int
        Samples and pseudo-samples behind it, n - 1 + d.
    single_share : float
        Share of classes with a single sample, which have no scatter of their own.
    """

    basis: Tensor
    variances: Tensor
    divisor: float
    tail: int
    single_share: float


def estimate_covariance(support: Support, X: Tensor, means: MeansPosterior) -> Covariance:
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
    support : Support
    X : Tensor of shape (n, d)
    means : MeansPosterior

    References
    ----------
    .. [1] Z. Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation",
       ICLR 2024.
    """
    n_sampled = len(support.counts)
    parts: list[Iterable[Tensor]] = [support.deviations(X)]
    share = float((support.counts == 1).double().mean()) if n_sampled > 1 else 0.0
    if share:
        root = torch.linalg.cholesky(means.precision)
        between = root.T @ (support.means - means.common)
        parts.append([share**0.5 * between])
    before = max(support.n - 1, 1)
    tail = before + X.shape[1]
    freedom = max(support.n - n_sampled + share * (n_sampled - 1), 1.0)
    divisor = tail * freedom / before
    basis, scatter = _eigenbasis(chain(*parts), X)
    ridge = float(scatter.sum()) / before
    ridge = max(ridge, NEGLIGIBLE * support.mean_square * divisor)
    return Covariance(basis, (scatter + ridge) / divisor, divisor, tail, share)


def _eigenbasis(parts: Iterable[Tensor], X: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors (d, d) and eigenvalues (d,) of the sum of all ``part.T @ part``.

    The parts are made of the samples ``X``, (n, d), and about as many rows in all.
    """
    n, d = X.shape
    if n >= d:
        products = X.new_zeros(d, d, dtype=torch.float64)
        for part in parts:
            products.addmm_(part.T, part)
        scatter, basis = torch.linalg.eigh(products)
        return basis, scatter.clamp_min(0)
    # Fewer samples than coordinates: from their products, completed by any orthonormal vectors.
    rows = torch.cat(list(parts))
    products, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = products > NEGLIGIBLE * products[-1:]
    scatter = products[kept]
    basis = torch.linalg.qr(rows.T @ (vectors[:, kept] / scatter.sqrt()), mode="complete").Q
    return basis, torch.cat([scatter, scatter.new_zeros(d - len(scatter))])
