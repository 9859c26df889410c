r"""Evidence: how much the text and how much the samples count in a space that both share.

In a joint space a class has two witnesses: the Gaussian model of its samples, with log-density
:math:`g_c(x)`, and zero-shot classification, :math:`z_c(x) = 100 \cos(x, e_c)`. They are weighed
by a logistic calibration,

.. math:: p(c \mid x) \propto \pi_c \exp\left(\beta\, g_c(x) + \tau\, z_c(x)\right),

whose two weights maximise the likelihood of the support samples, each seen by a model that was
fitted without it, under a prior that keeps zero-shot unless the samples speak against it.

All tensors are float64; shapes as in :mod:`flowalign.gaussian.model`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from flowalign.calibration import CLIP_SCALE
from flowalign.gaussian.field import log_t_density
from flowalign.gaussian.leave_one_out import LeaveOneOut
from flowalign.sphere import cosine_similarities

PRIOR_MEDIAN = 0.02
"""Prior median of :math:`\\beta`: in hundreds of dimensions a Gaussian log-density is about 50
times too confident. That of :math:`\\tau` is 1, zero-shot as it is. Both priors are log-normal
with a deviation of 1."""


class Evidence(NamedTuple):
    r"""Weights of the two witnesses.

    Attributes
    ----------
    density : float
        :math:`\beta`, of the samples' log-density.
    text : float
        :math:`\tau`, of zero-shot classification.
    """

    density: float
    text: float


def weigh(left_out: LeaveOneOut, x: Tensor, codes: Tensor, tail: float) -> Evidence:
    """Weigh text and samples by what they say of samples that neither has seen.

    Parameters
    ----------
    left_out : LeaveOneOut
        The model without each of the samples; its targets are the class embeddings.
    x : Tensor of shape (m, d)
        These samples.
    codes : Tensor of shape (m,)
        Their classes. With fewer than two of them there is nothing to weigh: the medians of the
        priors.
    tail : float
        Of the density, as in :class:`flowalign.gaussian.field.GaussianField`.
    """
    if len(codes.unique()) < 2:
        return Evidence(PRIOR_MEDIAN, 1.0)
    z = left_out.rotate(x.double())
    samples = log_t_density(left_out.distances(z.new_zeros(()), z), tail)
    text = CLIP_SCALE * cosine_similarities(z, left_out.field.targets)
    return _calibrate(samples, text, left_out.field.log_prior, codes)


def _calibrate(samples: Tensor, text: Tensor, log_prior: Tensor, y: Tensor) -> Evidence:
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
    return Evidence(float(beta), float(tau))
