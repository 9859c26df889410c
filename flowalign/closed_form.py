"""Fits the Gaussian field to support samples: no training, one eigendecomposition."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from flowalign import path
from flowalign.balance import CLIP_SCALE, balance
from flowalign.class_model import Support, estimate_covariance, estimate_means
from flowalign.coupling import thinned
from flowalign.fields import GaussianField
from flowalign.leave_one_out import LeaveOneOutField

MAX_NOISE_RATIO = 4.0
"""Largest ratio of the noise's variance to a variance within classes.

Noise widens a class in its narrow directions before it shrinks, at first at a rate of half this
ratio less one. At a ratio of 4 a first Euler step of 0.1 overshoots by 2 percent, at 10 by 7, at
100 by 88. Smaller variances are raised: noise then acts as the regulariser that it is meant to be.
"""


def fit_gaussian_field(
    x0: Tensor,
    targets: Tensor,
    codes: Tensor,
    *,
    embeddings: Tensor | None,
    joint: bool,
    log_prior: Tensor,
    noise: float,
) -> tuple[GaussianField, LeaveOneOutField]:
    r"""Estimate the Gaussian model of the support set and return its exact velocity field.

    Parameters
    ----------
    x0 : Tensor of shape (n, d)
        Features, float32 or float64. All other tensors of floats are float64, for the estimates'
        sake.
    targets : Tensor of shape (C, d)
        Where each class goes.
    codes : Tensor of shape (n,), int64
        Class of each sample, a row of ``targets``. Classes without samples are allowed.
    embeddings : Tensor of shape (C, e) or None
        Class embeddings, in their own space; None where there is no text.
    joint : bool
        Whether the targets are class embeddings in the space of the features, in which zero-shot
        classification is evidence.
    log_prior : Tensor of shape (C,)
        Log-probabilities of the classes.
    noise : float
        Size of the noise on the path, relative to ``rms(x0)``.

    Returns
    -------
    field : GaussianField
        Where it carries no text evidence it is the exact minimiser of the flow
        matching loss under the model.
    left_out : LeaveOneOutField
        The same without each sample; of large sets, without each of some. Both are in float32.
    """
    support = Support.of(x0, codes, len(targets))
    means = estimate_means(support, embeddings)
    covariance = estimate_covariance(support, x0, means)
    noise_std = noise * path.rms(x0)
    smallest = noise_std**2 / MAX_NOISE_RATIO
    covariance = replace(covariance, variances=covariance.variances.clamp_min(smallest))
    rows = thinned(len(x0), max(len(targets), x0.shape[1]))
    model = LeaveOneOutField.of(
        x0,
        codes,
        targets,
        support,
        means,
        covariance,
        log_prior,
        torch.from_numpy(rows).to(x0.device),
        noise_std=noise_std,
    )
    if joint and embeddings is not None:
        tail = float(covariance.tail)
        beta, tau = balance(model, x0, codes, tail)
        # The field runs at the temperature of the density: softer weights would let classes blend
        # all along the flow. Dividing by beta leaves the order of the classes as calibrated.
        text_weight, log_prior = CLIP_SCALE * tau / beta, log_prior / beta
        model = model.replace(text_weight=text_weight, tail=tail, log_prior=log_prior)
    return model.whole().float(), model.float()
