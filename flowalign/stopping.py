r"""When to stop, chosen on samples that the field has not seen.

A common stop at time 0.5 is kept unless another step is right for clearly more samples: with w
samples that it gets right and the default wrong, and l the other way round, it must have
:math:`w - l \ge 2 \sqrt{w + l}`, two standard errors of the difference (McNemar's test). Of
several such steps the one with the largest difference wins, then the earlier. No steps, zero-shot
classification in a joint space, are always among them. Few samples cannot tell neighbouring steps
apart, so a rule that takes the best of them takes a random one; the figures are in
``docs/decisions/0006-stop.md``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign.calibration import calibrate
from flowalign.held_out import HELD_OUT_CLASSES
from flowalign.ode import grid, max_steps, nearest_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.held_out import HeldOut

DEFAULT_STOP = 0.5
"""From here on the closed form hardly changes, and trained fields are within half a point of their
best common step on support data; ``docs/decisions/0003-defaults.md``."""

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
}
"""What is said of each candidate, and its dtype."""


def score_steps(parts: list[HeldOut], step_size: float, solver: str) -> dict[str, NDArray[Any]]:
    """Score the stops of a solver on held-out samples.

    Parameters
    ----------
    parts : list of HeldOut
        At least one.
    step_size, solver
        Of the flow. All its steps are candidates, up to eleven; of more, eleven spread evenly.
        A flow of more than twenty steps is followed in fewer, longer ones.

    Returns
    -------
    dict of ndarray
        One entry a candidate in each: ``n_steps``, ``stop_time``, ``accuracy``, ``n_better`` and
        ``n_worse`` (samples that only this step, and only the default step, gets right),
        ``log_loss`` at ``logit_scale``, the best inverse temperature.
    """
    # Of a fine flow every few steps are taken as one.
    stride = math.ceil(max_steps(step_size) / MAX_STEPS)
    last = max_steps(step_size * stride)
    default = nearest_step(DEFAULT_STOP, step_size * stride)
    steps = np.unique(np.linspace(0, last, min(last + 1, MAX_CANDIDATES)).round().astype(int))
    steps = np.union1d(steps, default)
    times = grid(last, step_size * stride)
    cosines = np.concatenate([part.contrasts(times, steps, solver) for part in parts], axis=1)
    codes = np.concatenate([part.codes for part in parts])
    # A state that left the numbers is like no class.
    finite = np.isfinite(cosines)
    cosines = np.where(finite, cosines, 0)
    hits = (cosines.argmax(axis=2) == codes) & finite.all(axis=2)
    usual = hits[np.flatnonzero(steps == default)[0]]
    scales, losses = zip(*(calibrate(step, codes) for step in cosines), strict=True)
    columns = {
        "n_steps": steps * stride,
        "stop_time": np.array(times)[steps],
        "accuracy": hits.mean(axis=1),
        "n_better": (hits & ~usual).sum(axis=1),
        "n_worse": (usual & ~hits).sum(axis=1),
        "log_loss": losses,
        "logit_scale": scales,
    }
    return {name: np.asarray(columns[name], dtype=dtype) for name, dtype in SCORES.items()}


def choose_stop(
    source: str | None, scores: dict[str, NDArray[Any]] | None, one_shot_stop: float
) -> float:
    """Return the stop time that the held-out samples speak for.

    Where each class has one sample they are silent: classes held out as a whole say how good a
    field is at classes that it has not seen. Then it is `one_shot_stop`.
    """
    if scores is None or source == HELD_OUT_CLASSES:
        return one_shot_stop
    gain = scores["n_better"] - scores["n_worse"]
    error = np.sqrt(scores["n_better"] + scores["n_worse"])
    clear = (gain > 0) & (gain >= STANDARD_ERRORS * error)
    if not clear.any():
        return DEFAULT_STOP
    return float(scores["stop_time"][np.where(clear, gain, 0).argmax()])
