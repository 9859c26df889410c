r"""Synthetic features of a class: what the model expects to see of it.

.. math::

    x \mid c \sim t_\tau\left(\hat\mu_c,\ (1 + P_{cc})\, \Sigma\right), \qquad \tau = n - 1 + d,

P the covariance of the means: one draw is as far from the expected mean as a row of the class is
from its own mean, and as that mean may be from where it is expected. The covariance rests on n
samples and on d pseudo-samples that shrink it, hence the degrees of freedom; there the draws have
the covariance :math:`\tau / (\tau - 2)\, (1 + P_{cc})\, \Sigma`.

It is narrower than the density of :meth:`GaussianModel.log_density`, which has n - 1 degrees of
freedom in all of the d dimensions together: a caution that is right where classes are compared,
and one that gives draws of unit features several times their length
(``docs/decisions/0015-classes-by-name.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

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

    Raises
    ------
    ValueError
        If there is no such class.
    """
    means, within = model.class_means, model.within
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < len(means.means):
        raise ValueError(
            f"codes must be classes from 0 to {len(means.means) - 1}, got some from "
            f"{int(codes.min())} to {int(codes.max())}."
        )
    normal = torch.from_numpy(rng.standard_normal((len(codes), len(within.variances))))
    squares = torch.from_numpy(rng.chisquare(within.tail, len(codes))).to(codes.device)
    sizes = ((1 + means.covariance.diagonal())[codes] * within.tail / squares).sqrt()
    directions = (normal.to(codes.device) * within.variances.sqrt()) @ within.basis.T
    return means.means[codes] + sizes[:, None] * directions
