r"""When to stop, and how sure to be: both chosen on samples that the field has not seen.

**The stop.** A common stop at time 0.5 is kept unless another step is right for clearly more
samples: with w samples that it gets right and the default wrong, and l the other way round, it must
have :math:`w - l \ge 2 \sqrt{w + l}`, two standard errors of the difference (McNemar's test). Of
several such steps the one with the largest difference wins, then the earlier. No steps, zero-shot
classification in a joint space, are always among them. Few samples cannot tell neighbouring steps
apart, so a rule that takes the best of them takes a random one; the figures are in
``docs/decisions/0006-stop.md``.

**The temperature.** The inverse temperature s of each step maximises

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
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from flowalign import ode
from flowalign.spaces import contrasts, directions
from flowalign.validation import max_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.held_out import HeldOut

DEFAULT_STOP = 0.5
"""From here on the closed form hardly changes, and trained fields are within half a point of their
best common step on support data; ``docs/decisions/0003-defaults.md``."""

ONE_SHOT_STOP = 0.2
"""Of a network with one sample a class, which is best stopped early."""

STANDARD_ERRORS = 2.0
MAX_CANDIDATES = 11
MAX_STEPS = 20
PRIOR_SCALE = 30.0  # median of the inverse temperature; what it is where nothing can be held out
LOG_SCALE_RANGE = (-3.0, 9.0)


@torch.inference_mode()
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
    times = ode.grid(last, step_size * stride)
    blocks = []
    for part in parts:
        field = part.field
        states = ode.integrate(
            field.velocity, field.encode(part.x), times, solver, singular_end=field.singular_end
        )
        goals = contrasts(field.encode(part.targets)).T
        block = torch.stack([directions(states[step]) @ goals for step in steps])
        blocks.append(block.cpu())
    cosines, codes = torch.cat(blocks, dim=1), torch.cat([part.codes.cpu() for part in parts])
    # A state that left the numbers is like no class.
    lost = ~cosines.isfinite().all(dim=2)
    cosines = cosines.nan_to_num(0.0)
    hits = ((cosines.argmax(dim=2) == codes) & ~lost).numpy()
    usual = hits[np.flatnonzero(steps == default)[0]]
    scales, losses = zip(*(calibrate(step, codes) for step in cosines), strict=True)
    return {
        "n_steps": steps * stride,
        "stop_time": np.array(times)[steps],
        "accuracy": hits.mean(axis=1),
        "n_better": (hits & ~usual).sum(axis=1),
        "n_worse": (usual & ~hits).sum(axis=1),
        "log_loss": np.array(losses),
        "logit_scale": np.array(scales),
    }


def nearest_step(time: float, step_size: float) -> int:
    """Return the number of steps that ends nearest to a time, the later of two.

    A stop after the start takes one step at least.

    >>> nearest_step(0.5, 0.1), nearest_step(0.5, 0.3), nearest_step(0.5, 1.0)
    (5, 2, 1)
    """
    nearest = min(math.floor(time / step_size + 0.5 + 1e-9), max_steps(step_size))
    return max(nearest, 1 if time > 0 else 0)


def choose_stop(
    source: str | None, scores: dict[str, NDArray[Any]] | None, *, trained: bool
) -> float:
    """Return the stop time that the held-out samples speak for.

    Where each class has one sample they are silent: classes held out as a whole say how good a
    field is at classes that it has not seen. `trained` is whether the field is a network.
    """
    if scores is None or source == "held-out classes":
        return ONE_SHOT_STOP if trained else DEFAULT_STOP
    gain = scores["n_better"] - scores["n_worse"]
    error = np.sqrt(scores["n_better"] + scores["n_worse"])
    clear = (gain > 0) & (gain >= STANDARD_ERRORS * error)
    if not clear.any():
        return DEFAULT_STOP
    return float(scores["stop_time"][np.where(clear, gain, 0).argmax()])


def scale_at(time: float, scores: dict[str, NDArray[Any]] | None) -> float:
    """Return the inverse temperature at a time, between those of the candidates."""
    if scores is None:
        return PRIOR_SCALE
    return float(np.exp(np.interp(time, scores["stop_time"], np.log(scores["logit_scale"]))))


def calibrate(cosines: Tensor, codes: Tensor) -> tuple[float, float]:
    """Inverse temperature of cosines, (m, C), for classes ``codes``, (m,), and the mean log-loss.

    >>> cosines = torch.tensor([[0.9, 0.8], [0.8, 0.7], [0.7, 0.8]])
    >>> scale, log_loss = calibrate(cosines, torch.tensor([0, 0, 0]))  # two right, one wrong
    >>> 0 < scale < 30
    True
    """
    # Relative to the right class, in which the loss is a log-sum.
    gaps = (cosines - cosines.gather(1, codes[:, None])).double()

    def log_loss(log_scale: float) -> float:
        return float((math.exp(log_scale) * gaps).logsumexp(dim=1).sum())

    def penalised(log_scale: float) -> float:
        return log_loss(log_scale) + (log_scale - math.log(PRIOR_SCALE)) ** 2 / 2

    best = minimize_scalar(
        penalised, bounds=LOG_SCALE_RANGE, method="bounded", options={"xatol": 5e-3}
    )
    return math.exp(best.x), log_loss(best.x) / len(codes)
