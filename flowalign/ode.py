"""Integrates a velocity field. The only module that uses torchdiffeq.

Early stopping is the choice of the last time. (Events would not do: torchdiffeq reduces them over
the batch, so that the first row would stop all rows.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torchdiffeq
from torch import Tensor

if TYPE_CHECKING:
    from flowalign.fields import Flow

FIXED_GRID_SOLVERS = (
    "euler",
    "midpoint",
    "heun2",
    "heun3",
    "rk4",
    "explicit_adams",
    "implicit_adams",
    "fixed_adams",
)
"""Methods that take exactly one step between two times: the result of a row depends on that row
alone."""

ADAPTIVE_SOLVERS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
"""Methods that choose their steps from an error estimate over the whole batch: rows agree with
those of another batch only up to the tolerance."""

SOLVERS = FIXED_GRID_SOLVERS + ADAPTIVE_SOLVERS

RTOL = 1e-5
ATOL = 1e-6
ADAMS_ORDER = 4  # left alone, the order grows to 12 and the explicit method is unstable


def grid(n_steps: int, step_size: float) -> list[float]:
    """Return the times 0, h, 2 h, ..., n_steps h; one that passes 1 by rounding is exactly 1.

    >>> grid(2, 0.25)
    [0.0, 0.25, 0.5]
    """
    return [min(k * step_size, 1.0) for k in range(n_steps + 1)]


STEP_SIZE = 0.1
"""Length of a step where none is asked for."""


def max_steps(step_size: float) -> int:
    """Return how many whole steps fit into [0, 1], forgiving rounding in ``step_size``."""
    return math.floor(1 / step_size + 1e-9)


def nearest_step(time: float, step_size: float) -> int:
    """Return the number of steps that ends nearest to a time, the later of two.

    A stop after the start takes one step at least.

    >>> nearest_step(0.5, 0.1), nearest_step(0.5, 0.3), nearest_step(0.5, 1.0)
    (5, 2, 1)
    """
    nearest = min(math.floor(time / step_size + 0.5 + 1e-9), max_steps(step_size))
    return max(nearest, 1 if time > 0 else 0)


def solve(
    flow: Flow,
    x: Tensor,
    times: Sequence[float],
    solver: str = "euler",
) -> Tensor:
    """Follow a flow from features ``x``, (n, d): the states of :func:`integrate`.

    They are in the coordinates of the flow; a field's ``rotate_back`` brings them to the feature
    space.
    """
    return integrate(
        flow.velocity,
        flow.rotate(x),
        times,
        solver,
        singular_end=flow.singular_end,
    )


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    times: Sequence[float],
    method: str = "euler",
    *,
    singular_end: bool = False,
    last_only: bool = False,
    first: Tensor | None = None,
) -> Tensor:
    """Solve dx/dt = velocity(t, x) from ``x`` at ``times[0]``.

    Parameters
    ----------
    velocity : callable
        ``velocity(t, x)`` with a 0-dimensional ``t`` and ``x`` of shape (n, d) gives (n, d).
    x : Tensor of shape (n, d)
        The states at ``times[0]``. Dtype and device of the result are those of ``x``.
    times : sequence of float, increasing
        Times of the states to return. A fixed-grid method takes one step from each to the next; an
        adaptive one steps on all of them, so that it never goes beyond the last.
    method : str
        One of :data:`SOLVERS`.
    singular_end : bool
        Whether the velocity grows without bound towards time 1. Then no stage of a fixed step that
        ends there evaluates it beyond the middle of the step: Heun's or Runge's last stage would
        multiply the state by the length of the step over the distance from the end.
    last_only : bool
        Whether to return only the first and the last state. The steps are the same.
    first : Tensor of shape (n, d) or None
        Velocity at ``times[0]``, if it is known; all methods begin with it.

    Returns
    -------
    Tensor of shape (len(times), n, d), or (2, n, d)
        The first state is ``x`` itself.
    """
    if len(times) == 1:
        return x[None]
    adaptive = method in ADAPTIVE_SOLVERS
    # Adaptive steps are chosen in float64 where the device has it, whatever the states' dtype.
    wide = adaptive and x.device.type != "mps"
    t = torch.tensor(times, dtype=torch.float64 if wide else x.dtype, device=x.device)
    options: dict[str, Any] = {}
    rtol = RTOL
    if singular_end and not adaptive:
        velocity = _until(velocity, 1 - (times[-1] - times[-2]) / 2)
    if adaptive:
        options |= {"dtype": t.dtype, "step_t": t[1:]}
    elif method.endswith("adams"):
        # The implicit method repeats its corrector until the whole batch agrees to rtol. Asked for
        # hardly anything it corrects once, which has the same order and lets no row wait for
        # another. (Not infinity: times a velocity of zero that is not a number.)
        options, rtol = {"max_order": ADAMS_ORDER}, 1e30
    wanted = t[[0, -1]] if last_only else t
    if not adaptive:
        options["grid_constructor"] = lambda *_: t
    if first is not None:
        velocity = _beginning_with(first, velocity)
    if method == "euler":
        return _euler(velocity, x, t, last_only=last_only)
    try:
        return torchdiffeq.odeint(
            velocity, x, wanted, method=method, rtol=rtol, atol=ATOL, options=options
        )
    except AssertionError as error:
        raise ValueError(
            f"solver={method!r} could not follow the flow ({error}); use a fixed-grid solver "
            f"({', '.join(FIXED_GRID_SOLVERS)})."
        ) from error


def _euler(
    velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: Tensor, *, last_only: bool
) -> Tensor:
    """Take Euler's steps. torchdiffeq compares times on the device at each, and a GPU waits."""
    kept, state = [x], x
    for t, length in zip(times[:-1].unbind(), times.diff().unbind(), strict=True):
        state = torch.addcmul(state, length, velocity(t, state))
        if not last_only:
            kept.append(state)
    return torch.stack([x, state] if last_only else kept)


def _beginning_with(
    first: Tensor, velocity: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    values = [first]
    return lambda t, x: values.pop() if values else velocity(t, x)


def _until(
    velocity: Callable[[Tensor, Tensor], Tensor], latest: float
) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, x: velocity(t.clamp(max=latest), x)
