r"""How much the text and how much the samples count in a space that both share.

In a joint space a class has two witnesses: the Gaussian model of its samples, with log-density
:math:`g_c(x)`, and zero-shot classification, :math:`z_c(x) = 100 \cos(x, e_c)`. Their balance is a
logistic calibration,

.. math:: p(c \mid x) \propto \pi_c \exp\left(\beta\, g_c(x) + \tau\, z_c(x)\right),

whose two weights maximise the likelihood of the support samples, each seen by a model that was
fitted without it, under a prior that keeps zero-shot unless the samples speak against it.

All tensors are float64; shapes as in :mod:`flowalign.class_model`.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from flowalign.class_model import Covariance, MeansPosterior, Support
from flowalign.fields.gaussian import log_t_density
from flowalign.spaces import cosine_similarities

CLIP_SCALE = 100.0
"""Inverse temperature of zero-shot classification in CLIP, the unit of the text's evidence."""

PRIOR_MEDIAN = 0.02
"""Of :math:`\\beta`: a Gaussian density in hundreds of dimensions is overconfident by about that
much. That of :math:`\\tau` is 1, zero-shot as it is. Both priors are log-normal with a deviation
of 1."""

MAX_ENTRIES = 2**22  # of an array of rows by classes or by features, in the calibration


def balance(
    X: Tensor,
    codes: Tensor,
    targets: Tensor,
    support: Support,
    means: MeansPosterior,
    covariance: Covariance,
    log_prior: Tensor,
) -> tuple[float, float]:
    r"""Weights :math:`\beta` of the samples' and :math:`\tau` of the text's evidence.

    With fewer than two sampled classes there is nothing to calibrate: the medians of the priors.
    """
    if len(support.sampled) < 2:
        return PRIOR_MEDIAN, 1.0
    rows = _spread_rows(codes, max(1, MAX_ENTRIES // max(support.n_classes, X.shape[1])))
    distances = leave_one_out_distances(X, codes, support, means, covariance, rows)
    samples = log_t_density(distances, covariance.tail)
    text = CLIP_SCALE * cosine_similarities(X[rows], targets)
    return _calibrate(samples, text, log_prior, codes[rows])


def leave_one_out_distances(
    X: Tensor,
    codes: Tensor,
    support: Support,
    means: MeansPosterior,
    covariance: Covariance,
    rows: Tensor,
) -> Tensor:
    r"""Squared Mahalanobis distances of samples to all classes, in models without the sample.

    The sample leaves both the class means and the covariance; held are the spreads (a, b), the
    ridge and the rotation. With :math:`P` the covariance of the means, y the class of sample i and
    :math:`r = x_i - \hat\mu_y`,

    .. math::

        \hat\mu_c^{(-i)} = \hat\mu_c - \frac{P_{cy}}{1 - P_{yy}}\, r, \qquad
        W^{(-i)} = W - \alpha_i\, \rho_i \rho_i^T,

    where :math:`\rho_i = x_i - M_y` and :math:`\alpha_i = n_y / (n_y - 1)`; for the only sample of
    its class :math:`\rho_i = r` and :math:`\alpha_i = s / (1 - P_{yy})`, s the share of such
    classes. The inverse follows by Sherman and Morrison, so that all costs products of shapes
    (n, d) x (d, C). In a set with both kinds of classes a sample of a larger one leaves the single
    samples' share of the scatter as it is, an approximation.

    Parameters
    ----------
    rows : Tensor of shape (m,)
        Which samples.

    Returns
    -------
    Tensor of shape (m, C)
    """
    y, place = codes[rows], support.rows[rows]
    each = torch.arange(len(rows), device=X.device)
    whiten = covariance.basis / covariance.variances.sqrt()
    Z, M = X[rows] @ whiten, means.means @ whiten
    ZM, MM = Z @ M.T, M @ M.T

    remaining = 1 - means.covariance[y, y]
    shift = means.covariance[y] / remaining[:, None]  # of the means, against r
    # (x - mu_c) . r, and in column y its square length.
    along = (Z.square().sum(dim=1) - ZM[each, y])[:, None] - ZM + MM[y]
    length = along[each, y][:, None]
    distances = torch.cdist(Z, M).square() + 2 * shift * along + shift.square() * length

    # The same for rho: scalar products (x - mu_c^(-i)) . rho and the square length.
    deviations = Z - (support.means @ whiten)[place]
    across = (Z * deviations).sum(dim=1)[:, None] - deviations @ M.T
    across = across + shift * across[each, y][:, None]
    square = deviations.square().sum(dim=1)
    count = support.counts[place]
    alpha = count / (count - 1).clamp_min(1)
    alone = count == 1
    across = torch.where(alone[:, None], along + shift * length, across)
    square = torch.where(alone, length[:, 0], square)
    alpha = torch.where(alone, covariance.single_share / remaining, alpha) / covariance.divisor
    downdate = alpha / (1 - alpha * square)  # the ridge keeps alpha * square below 1
    return distances + downdate[:, None] * across.square()


def _calibrate(samples: Tensor, text: Tensor, log_prior: Tensor, y: Tensor) -> tuple[float, float]:
    """Maximum a posteriori of (beta, tau), over the logarithms of both."""
    each = torch.arange(len(y), device=y.device)

    def loss(log_weights: np.ndarray) -> tuple[float, np.ndarray]:
        beta, tau = np.exp(log_weights) * [PRIOR_MEDIAN, 1.0]
        log_p = (beta * samples + tau * text + log_prior).log_softmax(dim=1)
        p = log_p.exp()
        surplus = [((p * s).sum() - s[each, y].sum()).item() for s in (samples, text)]
        gradient = np.array([beta, tau]) * surplus + log_weights
        return -log_p[each, y].sum().item() + log_weights @ log_weights / 2, gradient

    best = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-12, 6)] * 2)
    beta, tau = np.exp(best.x) * [PRIOR_MEDIAN, 1.0]
    return float(beta), float(tau)


def _spread_rows(codes: Tensor, most: int) -> Tensor:
    """Rows of at most ``most`` samples, as evenly over the classes as they allow."""
    order = torch.argsort(codes, stable=True)
    counts = codes.bincount()
    first = counts.cumsum(0) - counts
    turn = torch.arange(len(codes), device=codes.device) - first[codes[order]]  # within its class
    return order[torch.argsort(turn, stable=True)[:most]]
