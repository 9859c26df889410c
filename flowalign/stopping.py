r"""The stop and the read-out, chosen on held-out samples.

The answer is read out of two things: the cosines of the state at time t with the class embeddings,
and the log-probabilities that the model of the classes gives to the row before it moves,

.. math:: s \bigl( \cos(x(t), e_c) + \lambda \log p(c \mid x(0)) \bigr),

whose softmax gives the probabilities. The model is calibrated, and both weights are 1; with
validation data both are fitted to them (:mod:`flowalign.calibration`). Zero steps are zero-shot
classification: :math:`\lambda = 0`, and s is fitted to the held-out samples. Without a model this
holds for every step.

The stop stays at 0.5 unless another step is right for clearly more samples. With w samples that the
other step gets right and the default wrong, and l the other way round, it must have
:math:`w - l \ge 2 \sqrt{w + l}`, two standard errors of the difference (McNemar's test). Of
several such steps the one with the largest difference wins, then the earlier. Zero steps are always
a candidate. Few samples cannot tell neighbouring steps apart, so the best of them would be best by
chance; the figures are in ``docs/decisions/0006-stop.md``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowalign.calibration import calibrate
from flowalign.held_out import HELD_OUT_CLASSES, VALIDATION_DATA
from flowalign.ode import grid, max_steps, nearest_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.held_out import HeldOut

DEFAULT_STOP = 0.5
"""From here on the closed form hardly changes, and trained fields are within half a point of their
best common step on support data; ``docs/decisions/0003-defaults.md``."""

PRIOR_SCALE = 30.0
"""Prior mean of s where cosines are all there is; what it is where nothing can be held out."""

STANDARD_ERRORS = 2.0
MAX_CANDIDATES = 11
MAX_STEPS = 20

SCORES = {
    "n_steps": np.int64,
    "stop_time": np.float64,
    "accuracy": np.float64,
    "n_better": np.int64,
    "n_worse": np.int64,
    "log_loss": np.float64,
    "logit_scale": np.float64,
    "posterior_weight": np.float64,
}
"""What is said of each candidate, and its dtype."""


class ReadOut(NamedTuple):
    r"""How the answer is read out.

    Attributes
    ----------
    logit_scale : float
        Inverse temperature s.
    posterior_weight : float
        :math:`\lambda`, of the log-probabilities before the row moves.
    """

    logit_scale: float
    posterior_weight: float


CALIBRATED = ReadOut(1.0, 1.0)
"""If there is a model of the classes. It is calibrated on left-out samples, so the cosine only
decides between classes that the model finds equally probable. Fitting both weights to the same
samples again is no better: ``docs/decisions/0012-read-out.md``."""

SHAPE = 0.5  # of the priors, gamma distributions


class Followed(NamedTuple):
    """Held-out samples at the stops of a solver, m samples at k stops.

    Attributes
    ----------
    n_steps, stop_time : ndarray of shape (k,)
    default : int
        Index of the stop at :data:`DEFAULT_STOP`.
    cosines : ndarray of shape (k, m, C)
        Cosines minus their mean; not finite if a state overflowed.
    before : ndarray of shape (m, C) or None
        Log-probabilities of the classes before the rows move, if there is a model.
    codes : ndarray of shape (m,)
        Classes of the samples.
    rows : ndarray of shape (m,) or None
        Their rows in the coupling; None for validation data.
    """

    n_steps: NDArray[np.int64]
    stop_time: NDArray[np.float64]
    default: int
    cosines: NDArray[np.floating[Any]]
    before: NDArray[np.floating[Any]] | None
    codes: NDArray[Any]
    rows: NDArray[np.intp] | None


def follow(parts: list[HeldOut], step_size: float, solver: str) -> Followed:
    """Follow held-out samples, at least one part of them, to the end of the flow.

    All steps are candidates for the stop, up to eleven; of more, eleven spread evenly. A flow of
    more than twenty steps is followed in fewer, longer ones.
    """
    # Of a fine flow every few steps are taken as one.
    stride = math.ceil(max_steps(step_size) / MAX_STEPS)
    last = max_steps(step_size * stride)
    default = nearest_step(DEFAULT_STOP, step_size * stride)
    steps = np.unique(np.linspace(0, last, min(last + 1, MAX_CANDIDATES)).round().astype(int))
    steps = np.union1d(steps, default)
    times = grid(last, step_size * stride)
    before = rows = None
    if all(part.classifier is not None for part in parts):
        before = np.concatenate([part.log_proba() for part in parts])
    if all(part.rows is not None for part in parts):
        rows = np.concatenate([part.rows for part in parts])
    return Followed(
        steps * stride,
        np.array(times)[steps],
        int(np.flatnonzero(steps == default)[0]),
        np.concatenate([part.contrasts(times, steps, solver) for part in parts], axis=1),
        before,
        np.concatenate([part.codes for part in parts]),
        rows,
    )


def score_steps(source: str, followed: Followed) -> dict[str, NDArray[Any]]:
    """Score the stops of a solver on held-out samples.

    Parameters
    ----------
    source : str
        Where the samples come from, one of :data:`flowalign.held_out.SOURCES`.
    followed : Followed
        Through the flow.

    Returns
    -------
    dict of ndarray
        Each with one entry for a candidate: ``n_steps``, ``stop_time``, ``accuracy``, ``n_better``
        and ``n_worse`` (samples that only this step, and only the default step, gets right),
        ``log_loss``, and ``logit_scale`` and ``posterior_weight``, under which it is smallest.
    """
    n_steps, times, default, cosines, before, codes, _ = followed
    # A state that left the numbers is like no class.
    finite = np.isfinite(cosines)
    cosines = np.where(finite, cosines, 0)
    read = [
        _read_out(c, before if step else None, codes, fixed=source != VALIDATION_DATA)
        for step, c in zip(n_steps, cosines, strict=True)
    ]
    choices, losses, right = zip(*read, strict=True)
    hits = np.stack(right) & finite.all(axis=2)
    usual = hits[default]
    columns = {
        "n_steps": n_steps,
        "stop_time": times,
        "accuracy": hits.mean(axis=1),
        "n_better": (hits & ~usual).sum(axis=1),
        "n_worse": (usual & ~hits).sum(axis=1),
        "log_loss": losses,
        "logit_scale": [choice.logit_scale for choice in choices],
        "posterior_weight": [choice.posterior_weight for choice in choices],
    }
    return {name: np.asarray(columns[name], dtype=dtype) for name, dtype in SCORES.items()}


def _read_out(
    cosines: NDArray[Any], before: NDArray[Any] | None, codes: NDArray[Any], *, fixed: bool
) -> tuple[ReadOut, float, NDArray[np.bool_]]:
    """Choose how to read out a step, unless that is fixed; its log-loss, and which are right."""
    if before is None:
        (scale,), loss = calibrate([cosines], codes, [PRIOR_SCALE], [SHAPE])
        choice, scores = ReadOut(scale, 0.0), cosines
    else:
        said = [cosines, before]
        weights, loss = calibrate(said, codes, CALIBRATED, [SHAPE, SHAPE], fixed=fixed)
        choice = ReadOut(weights[0], weights[1] / weights[0])
        scores = cosines + choice.posterior_weight * before
    return choice, loss, scores.argmax(axis=1) == codes


def read_out_at(time: float, scores: dict[str, NDArray[Any]] | None, otherwise: ReadOut) -> ReadOut:
    """How the answer is read out at a time, interpolated between the candidates.

    If nothing was held out there are no scores, and it is `otherwise`.
    """
    if scores is None:
        return otherwise
    # Zero steps are read out in another way.
    alike = (scores["stop_time"] > 0) == (time > 0)
    times, scales = scores["stop_time"][alike], scores["logit_scale"][alike]
    weights = scales * scores["posterior_weight"][alike]
    scale = float(np.exp(np.interp(time, times, np.log(scales))))
    return ReadOut(scale, float(np.interp(time, times, weights)) / scale)


def choose_stop(
    source: str | None, scores: dict[str, NDArray[Any]] | None, one_shot_stop: float
) -> float:
    """Return the stop that the held-out samples show to be best, or the default.

    If each class has one sample, holding it out holds out its class, and tells only how good a
    field is at classes that it has not seen. Then the stop is `one_shot_stop`.
    """
    if scores is None or source == HELD_OUT_CLASSES:
        return one_shot_stop
    gain = scores["n_better"] - scores["n_worse"]
    error = np.sqrt(scores["n_better"] + scores["n_worse"])
    clear = (gain > 0) & (gain >= STANDARD_ERRORS * error)
    if not clear.any():
        return DEFAULT_STOP
    return float(scores["stop_time"][np.where(clear, gain, 0).argmax()])
