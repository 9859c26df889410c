r"""A product of experts: the probabilities of several views of a sample, multiplied.

.. math:: p(c \mid x) \propto \pi_c \prod_v \Bigl(\frac{p_v(c \mid x_v)}{\pi_{vc}}\Bigr)^{w_v},

over the views that the sample has [1]_. If views were independent within a class, all weights would
be 1; if they were the same, 1 over their number V. The weights maximise the likelihood of support
samples that are left out of all views, under gamma priors. The mean of these is halfway between the
two on a logarithmic scale, :math:`V^{-1/2}`.

References
----------
.. [1] G. E. Hinton, "Training Products of Experts by Minimizing Contrastive Divergence", Neural
   Computation 14, 2002.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax

from flowalign import blocks
from flowalign.calibration import calibrate
from flowalign.parameters import IMPOSSIBLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.aligner import Estimate, FlowMatchingAligner
    from flowalign.coupling import Coupling

SHAPE = 4.0
"""Of the priors: about as narrow as a log-normal one whose logarithm has a deviation of a half."""


def weigh(
    said: list[NDArray[Any]], codes: NDArray[Any], log_prior: NDArray[Any], *, fixed: bool
) -> NDArray[np.float64]:
    """Weigh views on samples that are left out of them.

    Parameters
    ----------
    said : list of V ndarrays of shape (m, C)
        Log-probabilities of the classes minus their prior ones; NaN in rows that lack the view.
    codes : ndarray of shape (m,)
        Classes of the samples.
    log_prior : ndarray of shape (C,)
        Prior log-probabilities of the classes.
    fixed : bool
        Whether the weights stay at the means of their priors. Set if every class has one sample:
        leaving it out leaves only the name of its class, and how well a view knows a class by name
        does not tell how well it knows it by a sample.

    Returns
    -------
    ndarray of shape (V,)
    """
    if len(said) == 1:
        return np.ones(1)
    means = np.full(len(said), len(said) ** -0.5)
    if fixed or not len(codes):
        return means
    witnesses = [np.nan_to_num(part, nan=0.0) for part in said]
    return calibrate(witnesses, codes, means, np.full(len(said), SHAPE), log_prior)[0]


def held_out_log_proba(
    aligner: FlowMatchingAligner, estimate: Estimate, n: int
) -> NDArray[np.float64]:
    """Log-probabilities of samples by flows that have not seen them, (n, C), read out as now.

    Less what classes had beforehand. NaN for samples of the coupling, n, that were not held out.
    """
    prior = aligner.class_prior_
    found = np.full((n, len(prior)), np.nan)
    followed, read_out = estimate.followed, aligner._read_out()
    if followed is None or followed.rows is None:
        return found
    nearest = np.abs(followed.stop_time - aligner.stop_time_).argmin()
    scores = followed.cosines[nearest].astype(np.float64)
    if followed.before is not None:
        scores += read_out.posterior_weight * followed.before
    # A state that left the numbers says nothing.
    finite = np.isfinite(scores).all(axis=1)
    found[followed.rows[finite]] = log_softmax(read_out.logit_scale * scores[finite], axis=1)
    return beyond_prior(found, prior)


def beyond_prior(log_proba: NDArray[Any], prior: NDArray[Any]) -> NDArray[np.float64]:
    """Take what was believed of classes beforehand, (C,), off what is said of them, (n, C).

    Of a class that must not be predicted, since nothing is known of it, nothing is said: 0, as if
    its probability stayed what it was. Another view may know it.
    """
    heard = prior > IMPOSSIBLE
    said = 0.0 * log_proba.astype(np.float64)  # NaN stays
    believed = np.log(prior[heard] / prior[heard].sum())
    said[:, heard] = log_softmax(log_proba[:, heard].astype(np.float64), axis=1) - believed
    return said


def support_ratios(coupling: Coupling, estimate: Estimate) -> NDArray[np.float32]:
    """How much more samples of a coupling, n, look like each class than like none: (n, C).

    NaN for samples of which that is not known.
    """
    n, ratios = len(coupling.X), estimate.fitted.support_ratios
    found = np.full((n, len(coupling.targets)), np.nan, dtype=np.float32)
    if ratios is not None and len(ratios):
        found[blocks.thinned(n, max(coupling.targets.shape))] = ratios
    return found


def positions(
    X: NDArray[Any], codes: NDArray[Any], among: NDArray[Any], codes_among: NDArray[Any]
) -> NDArray[np.int64]:
    """Where rows, (n, d), with classes, (n,), are among others; -1 where they are not."""

    def names(X: NDArray[Any], codes: NDArray[Any]) -> list[tuple[int, bytes]]:
        X = X + 0  # -0 becomes 0: equal rows have equal bytes
        return [(code, row.tobytes()) for code, row in zip(codes.tolist(), X, strict=True)]

    places = {name: i for i, name in enumerate(names(among, codes_among))}
    return np.array([places.get(name, -1) for name in names(X, codes)], dtype=np.int64)
