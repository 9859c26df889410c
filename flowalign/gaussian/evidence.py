r"""Evidence: how much the samples count, and how much the text in a space that both share.

The Gaussian model of the samples gives class c the log-density :math:`g_c(x)`. In a joint space the
text is further evidence, in two forms,

.. math:: z_c(x) = 100 \cos(x, e_c), \qquad z'_c(x) = 100 \cos(x - m, e_c - \bar e).

The first is zero-shot classification. In the second each modality is taken relative to its own
middle, m of the class means and :math:`\bar e` of the embeddings. This removes the offset that all
features share, which biases zero-shot classification to some classes. Neither form is always
better. All three are weighed by a logistic calibration,

.. math::

    p(c \mid x) \propto \pi_c
        \exp\left(\beta\, g_c(x) + \tau\, z_c(x) + \tau'\, z'_c(x)\right),

whose weights maximise the likelihood of the support samples, each judged by a model without it. The
priors give each kind of evidence some weight unless the samples contradict it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowalign.calibration import calibrate
from flowalign.parameters import IMPOSSIBLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEPENDENT_DIRECTIONS = 100
"""A Gaussian log-density in d dimensions is too confident: it counts all of them, where about so
many are independent. The prior mean of :math:`\\beta` is this over d, half of it beside text. The
best values for the undrawn training samples of nine feature sets with one sample a class have the
median 93 (29 to 157); with more samples the likelihood decides."""

ZERO_SHOT = 0.5
"""Each weight of the text if no sample can weigh it, that of the centred text in units that give
both the same spread over classes: together they are plain zero-shot classification. Otherwise the
prior mean of each is such that it spreads the classes by one nat."""

SHAPES = (1.0, 0.5, 0.5)
"""Of the priors, for density and text. Useless text loses its weight at little cost."""

ONE_SHOT_SHAPE = 16.0
"""Shape for the density if each class has one sample and there is no text beside it. Leaving a
sample out then leaves only the name of its class, whereas new rows will meet the sample too."""


class Evidence(NamedTuple):
    r"""Weights of the three kinds of evidence.

    Attributes
    ----------
    density : float
        :math:`\beta`, of the samples' log-density.
    text : float
        :math:`\tau`, of zero-shot classification; 0 where the space is not joint.
    centred_text : float
        :math:`\tau'`, of the same relative to the middle of each modality; 0 likewise.
    """

    density: float
    text: float = 0.0
    centred_text: float = 0.0

    @property
    def heeds_text(self) -> bool:
        """Whether the text has a weight."""
        return self.text > 0


def evenly(log_prior: NDArray[Any]) -> NDArray[Any]:
    """Log-probabilities that are equal for all classes except those that must not be predicted.

    A prior of the user describes new rows, not the support samples. Judged by it, the samples would
    ask for weights that cancel it.
    """
    return np.where(log_prior < np.log(IMPOSSIBLE) / 2, log_prior, 0.0)


def weigh(
    density: NDArray[Any],
    text: tuple[NDArray[Any], NDArray[Any]] | None,
    log_prior: NDArray[Any],
    codes: NDArray[Any],
    *,
    width: int,
    one_shot: bool,
) -> Evidence:
    r"""Weigh text and samples on left-out samples.

    Parameters
    ----------
    density : ndarray of shape (m, C)
        Log-densities :math:`g_c(x)` of m samples, each in a model without it.
    text : tuple of two ndarrays of shape (m, C), or None
        :math:`z_c(x)` and :math:`z'_c(x)`, the latter relative to the middle without the sample;
        None if the space is not joint.
    log_prior : ndarray of shape (C,)
        Log-probabilities of the classes.
    codes : ndarray of shape (m,)
        Classes of the samples. With fewer than two samples the weights are the means of the priors.
    width : int
        Of the features, d.
    one_shot : bool
        Whether each class has one sample.

    Returns
    -------
    Evidence
    """
    sure = min(1.0, INDEPENDENT_DIRECTIONS / width)
    unweighed = len(np.unique(codes)) < 2
    if text is None:
        witnesses, means = [density], [sure]
        shapes = [ONE_SHOT_SHAPE if one_shot else SHAPES[0]]
    else:
        spreads = np.array([_spread(cosines) for cosines in text])
        spreads = np.where(spreads > 0, spreads, 1.0)
        nats = ZERO_SHOT * spreads[0] if unweighed else 1.0
        witnesses, means, shapes = [density, *text], [sure / 2, *nats / spreads], list(SHAPES)
    if unweighed:
        return Evidence(*map(float, means))
    weights, _ = calibrate(witnesses, codes, means, shapes, log_prior)
    return Evidence(*weights.tolist())


def _spread(cosines: NDArray[Any]) -> float:
    """Root mean square over rows and classes, each row relative to its mean."""
    return float(np.sqrt(np.square(cosines - cosines.mean(axis=1, keepdims=True)).mean()))
