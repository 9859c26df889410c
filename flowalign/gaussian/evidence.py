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


def weigh(samples: Tensor, text: Tensor, log_prior: Tensor, codes: Tensor) -> Evidence:
    r"""Weigh text and samples by what they say of samples that neither has seen.

    Parameters
    ----------
    samples : Tensor of shape (m, C)
        Log-densities :math:`g_c(x)` of m samples, each in a model without it.
    text : Tensor of shape (m, C)
        Their cosines to the class embeddings, :math:`z_c(x)`, times 100.
    log_prior : Tensor of shape (C,)
        Log-probabilities of the classes.
    codes : Tensor of shape (m,)
        Classes of the samples. With fewer than two of them there is nothing to weigh: the medians
        of the priors.

    Returns
    -------
    Evidence
        Maximum a posteriori, over the logarithms of both weights.
    """
    if len(codes.unique()) < 2:
        return Evidence(PRIOR_MEDIAN, 1.0)
    each = torch.arange(len(codes), device=codes.device)

    def loss(log_weights: np.ndarray) -> tuple[float, np.ndarray]:
        beta, tau = np.exp(log_weights) * [PRIOR_MEDIAN, 1.0]
        log_p = (beta * samples + tau * text + log_prior).log_softmax(dim=1)
        p = log_p.exp()
        surplus = [((p * s).sum() - s[each, codes].sum()).item() for s in (samples, text)]
        gradient = np.array([beta, tau]) * surplus + log_weights
        return -log_p[each, codes].sum().item() + log_weights @ log_weights / 2, gradient

    best = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-12, 6)] * 2)
    beta, tau = np.exp(best.x) * [PRIOR_MEDIAN, 1.0]
    return Evidence(float(beta), float(tau))
