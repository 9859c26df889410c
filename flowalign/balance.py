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

from flowalign.fields.gaussian import log_t_density
from flowalign.leave_one_out import LeaveOneOutField
from flowalign.spaces import cosine_similarities

CLIP_SCALE = 100.0
"""Inverse temperature of zero-shot classification in CLIP, the unit of the text's evidence."""

PRIOR_MEDIAN = 0.02
"""Of :math:`\\beta`: a Gaussian density in hundreds of dimensions is overconfident by about that
much. That of :math:`\\tau` is 1, zero-shot as it is. Both priors are log-normal with a deviation
of 1."""


def balance(model: LeaveOneOutField, X: Tensor, codes: Tensor, tail: float) -> tuple[float, float]:
    r"""Weights :math:`\beta` of the samples' and :math:`\tau` of the text's evidence.

    Parameters
    ----------
    model : LeaveOneOutField
        Whose targets are the class embeddings.
    X : Tensor of shape (n, d)
        Support features, of which the model leaves out `rows`.
    codes : Tensor of shape (n,)
        Their classes. With fewer than two of them there is nothing to calibrate: the medians of
        the priors.
    tail : float
        Of the density, as in :class:`flowalign.fields.GaussianField`.
    """
    if len(codes.unique()) < 2:
        return PRIOR_MEDIAN, 1.0
    z = model.encode(X[model.rows].double())
    samples = log_t_density(model.distances(z.new_zeros(()), z), tail)
    text = CLIP_SCALE * cosine_similarities(z, model.targets)
    return _calibrate(samples, text, model.log_prior, codes[model.rows])


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
