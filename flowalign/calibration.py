r"""How sure to be: the inverse temperature of the cosines, chosen on held-out samples.

The scale s of each step maximises

.. math::

    \sum_i \log \mathrm{softmax}\bigl(s \cos(x_i(t), e_\cdot)\bigr)_{y_i}
        - \tfrac{1}{2} \log^2 (s / 30),

the likelihood of the samples under a log-normal prior. Samples outweigh the prior from a few dozen
on; without it a few samples, all right, would ask for an infinite scale.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIOR_SCALE = 30.0
"""Prior median of the inverse temperature; what it is where nothing can be held out."""

CLIP_SCALE = 100.0
"""Inverse temperature at which CLIP was trained; what it is without samples, which is zero-shot
classification."""

LOG_SCALE_RANGE = (-3.0, 9.0)


def scale_at(
    time: float, scores: dict[str, NDArray[Any]] | None, otherwise: float = PRIOR_SCALE
) -> float:
    """Return the inverse temperature at a time, between those of the candidates.

    Where nobody was held out there are no scores, and it is `otherwise`.
    """
    if scores is None:
        return otherwise
    return float(np.exp(np.interp(time, scores["stop_time"], np.log(scores["logit_scale"]))))


def calibrate(cosines: NDArray[Any], codes: NDArray[Any]) -> tuple[float, float]:
    """Inverse temperature of cosines, (m, C), for classes ``codes``, (m,), and the mean log-loss.

    >>> cosines = np.array([[0.9, 0.8], [0.8, 0.7], [0.7, 0.8]])
    >>> scale, log_loss = calibrate(cosines, np.array([0, 0, 0]))  # two right, one wrong
    >>> 0 < scale < 30
    True
    """
    # Relative to the right class, in which the loss is a log-sum; its largest term is the same
    # class at every scale.
    cosines = cosines.astype(np.float64)
    gaps = cosines - np.take_along_axis(cosines, codes[:, None], axis=1)
    largest = gaps.max(axis=1)
    gaps -= largest[:, None]
    terms = np.empty_like(gaps)

    def log_loss(log_scale: float) -> float:
        scale = math.exp(log_scale)
        np.exp(np.multiply(gaps, scale, out=terms), out=terms)
        return float((np.log(terms.sum(axis=1)) + scale * largest).sum())

    def penalised(log_scale: float) -> float:
        return log_loss(log_scale) + (log_scale - math.log(PRIOR_SCALE)) ** 2 / 2

    best = minimize_scalar(
        penalised, bounds=LOG_SCALE_RANGE, method="bounded", options={"xatol": 5e-3}
    )
    return math.exp(best.x), log_loss(best.x) / len(codes)
