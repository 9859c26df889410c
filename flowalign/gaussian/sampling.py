r"""Synthetic features of a class: what the model expects to see of it.

.. math::

    x \mid c \sim t_\tau\left(\hat\mu_c,\ (1 + P_{cc})\, \Sigma\right), \qquad \tau = n - 1 + d,

P the covariance of the means: one draw is as far from the expected mean as a row of the class is
from its own mean, and as that mean may be from where it is expected. The covariance rests on n
samples and on d pseudo-samples that shrink it, hence the degrees of freedom; there the draws have
the covariance :math:`\tau / (\tau - 2)\, (1 + P_{cc})\, \Sigma`.

It is narrower than the density of :meth:`GaussianModel.log_density`, which has n - 1 degrees of
freedom in all of the d dimensions together: a caution that is right where classes are compared,
and one that gives draws of unit features a length of 1.1 to 12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flowalign import blocks

if TYPE_CHECKING:
    from flowalign.gaussian.model import GaussianModel


def draw(model: GaussianModel, codes: Tensor, rng: np.random.RandomState) -> Tensor:
    """Draw one row of each of the given classes.

    Parameters
    ----------
    model : GaussianModel
    codes : Tensor of shape (n,), int64
        Classes as integers, on the device of the model.
    rng : numpy.random.RandomState
        Numbers are drawn on the host, so that every device gives the same rows.

    Returns
    -------
    Tensor of shape (n, d)
        float64, on the device of the model.
    """
    means, within = model.class_means, model.within
    scale = within.basis * within.variances.sqrt()
    squares = torch.from_numpy(rng.chisquare(within.tail, len(codes))).to(codes.device)
    sizes = ((1 + means.covariance.diagonal())[codes] * within.tail / squares).sqrt()
    rows = means.means[codes]
    for block in blocks.slices(len(rows)):
        normal = torch.from_numpy(rng.standard_normal(tuple(rows[block].shape))).to(rows)
        rows[block] += sizes[block, None] * (normal @ scale.T)
    return rows
