r"""None of these: how much a row looks like a known class.

The model also describes a class that it has never seen: its mean comes from the same process as all
others, so a row of it has the density

.. math:: N\bigl(x;\ m,\ (1 + a + b + P_{mm})\, \Sigma\bigr),

m the common mean and :math:`P_{mm}` its own uncertainty. A row of class c has
:math:`N(x; \hat\mu_c, (1 + P_{cc})\, \Sigma)`. The ratio of the two says how much more a row looks
like class c than like a class that is none of these. It is relative Mahalanobis distance [1]_ with
the constants of the hierarchical model [2]_, and with the tails of a t density.

References
----------
.. [1] J. Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
   arXiv 2106.09022, 2021.
.. [2] "A Bayesian Nonparametric Perspective on Mahalanobis Distance for Out of Distribution
   Detection", arXiv 2502.08695, 2025.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowalign.gaussian.field import log_t_density
from flowalign.gaussian.statistics import ClassStatistics

if TYPE_CHECKING:
    from flowalign.gaussian.model import GaussianModel


def with_unseen_class(model: GaussianModel) -> GaussianModel:
    """Return a model with one class more, the last, of which nothing is known.

    Its mean is correlated with all others through the common mean.
    """
    means, statistics = model.class_means, model.statistics
    beside = means.common_covariance[:, None]
    own = means.common_variance + means.text_spread + means.residual_spread
    row = torch.cat([beside.T, beside.new_full((1, 1), own)], dim=1)
    covariance = torch.cat([torch.cat([means.covariance, beside], dim=1), row])
    return replace(
        model,
        statistics=ClassStatistics(
            torch.cat([statistics.counts, statistics.counts.new_zeros(1)]),
            torch.cat([statistics.sums, statistics.sums.new_zeros(1, statistics.sums.shape[1])]),
            statistics.scatter,
        ),
        class_means=replace(
            means, means=torch.cat([means.means, means.common[None]]), covariance=covariance
        ),
    )


def log_ratios(distances: Tensor, widening: Tensor, tail: float, width: int) -> Tensor:
    """Log-density of each known class over that of an unseen one, (n, C).

    Parameters
    ----------
    distances : Tensor of shape (n, C + 1)
        Squared Mahalanobis distances in units of the covariance within classes; the last column is
        of the unseen class.
    widening : Tensor of shape (C + 1,) or (n, C + 1)
        Variance of a new row in those units: 1 and the uncertainty of the mean.
    tail : float
        As of :func:`flowalign.gaussian.field.log_t_density`.
    width : int
        Of the features.
    """
    density = log_t_density(distances / widening, tail) - width / 2 * widening.log()
    return density[:, :-1] - density[:, -1:]
