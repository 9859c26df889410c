r"""How much each of several witnesses counts: a logistic calibration on held-out samples.

A witness is a source of evidence, such as a density or a cosine. Witness k gives each class c the
value :math:`f_{kc}(x)`. Together they give the probabilities

.. math:: p(c \mid x) \propto \exp \Bigl( o_c + \sum_k w_k f_{kc}(x) \Bigr),

with weights that maximise the likelihood of samples that no witness has seen, under gamma priors.
The mean of a prior is the weight without any sample; its shape says how many samples it takes to
change that. The priors hardly oppose small weights, so a wrong witness loses its weight. They
oppose large weights, so a few samples that are all classified correctly do not ask for an infinite
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

MAX_ITERATIONS = 100
RANGE = (1e-5, 1e3)
"""Weights stay within these multiples of their prior means."""


def calibrate(
    witnesses: Sequence[NDArray[Any]],
    codes: NDArray[Any],
    means: ArrayLike,
    shapes: ArrayLike,
    offsets: NDArray[Any] | float = 0.0,
    *,
    fixed: bool = False,
) -> tuple[NDArray[np.float64], float]:
    r"""Weigh witnesses on held-out samples.

    Parameters
    ----------
    witnesses : sequence of K ndarrays of shape (m, C)
        Value of each witness for every sample and class; adding a number to a row changes nothing.
    codes : ndarray of shape (m,)
        Classes of the samples.
    means, shapes : array-like of shape (K,)
        Of the gamma distributions that are the priors of the weights.
    offsets : ndarray of shape (C,) or float
        Prior log-probabilities of the classes.
    fixed : bool
        Whether the weights stay at the means of their priors.

    Returns
    -------
    weights : ndarray of shape (K,)
        Maximum a posteriori over their logarithms, all positive.
    log_loss : float
        Mean over the samples.

    Examples
    --------
    >>> cosines = np.array([[0.9, 0.8], [0.8, 0.7], [0.7, 0.8]])
    >>> weights, log_loss = calibrate([cosines], np.array([0, 0, 0]), [30], [0.5])
    >>> bool(0 < weights[0] < 30)  # two right, one wrong
    True
    """
    means, shapes = np.asarray(means, dtype=float), np.asarray(shapes, dtype=float)
    # Relative to the right class, in which the loss is a log-sum of exponentials.
    said = np.stack([np.asarray(w, dtype=np.float64) for w in (*witnesses, witnesses[0] * 0)])
    said[-1] += offsets
    said -= np.take_along_axis(said, codes[None, :, None], axis=2)
    said, offset = said[:-1] * means[:, None, None], said[-1]

    def look(u: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        """Penalised loss, and the probabilities (m, C)."""
        logits = np.tensordot(u, said, axes=1)
        logits += offset
        largest = logits.max(axis=1, keepdims=True)
        p = np.exp(logits - largest)
        total = p.sum(axis=1, keepdims=True)
        loss = (np.log(total) + largest).sum()
        p /= total
        return float(loss + (shapes * (u - np.log(u))).sum()), p

    # The loss is convex in the weights, and so is the penalty: Newton's steps, halved if too long.
    u = np.ones(len(said))
    value, p = look(u)
    for _ in range(0 if fixed else MAX_ITERATIONS):
        expected = (said * p).sum(axis=2)
        slope = expected.sum(axis=1) + shapes * (1 - 1 / u)
        # As a sum of squares: a difference of two large sums may come out negative.
        apart = said - expected[:, :, None]
        curvature = (p * apart).reshape(len(u), -1) @ apart.reshape(len(u), -1).T
        curvature += np.diag(shapes / u**2)
        # In units in which all are as curved; of equal witnesses the same step for both.
        unit = 1 / np.sqrt(curvature.diagonal())
        scaled = unit * curvature * unit[:, None]
        step = unit * np.linalg.lstsq(scaled, -unit * slope, rcond=None)[0]
        length = 1.0
        while length > 1e-6:
            tried = np.clip(u + length * step, np.maximum(RANGE[0], u / 10), RANGE[1])
            found, p_there = look(tried)
            if found <= value:
                break
            length /= 2
        else:
            break
        moved = np.abs(np.log(tried / u)).max()
        u, value, p = tried, found, p_there
        if moved < 1e-4:
            break
    loss = value - (shapes * (u - np.log(u))).sum()
    return u * means, float(loss / len(codes))
