"""Solvers against exact solutions."""

import numpy as np
import pytest
import torch

from flowalign import ode
from flowalign.parameters import max_steps

ORDERS = {
    "euler": 1,
    "midpoint": 2,
    "heun2": 2,
    "heun3": 3,
    "rk4": 4,
    "explicit_adams": 3,
    "implicit_adams": 4,
    "fixed_adams": 4,
}


def velocity(t, x):
    """x' = -x + sin(4 t): a decay onto an oscillation."""
    return -x + torch.sin(4 * t)


def exact(t, x0):
    def oscillation(t):
        return (np.sin(4 * t) - 4 * np.cos(4 * t)) / 17

    return oscillation(t) + (x0 - oscillation(0)) * np.exp(-t)


X0 = torch.tensor([[1.0, -0.5], [2.0, 0.3]], dtype=torch.float64)


def error(method, n):
    states = ode.integrate(velocity, X0, ode.grid(n, 1 / n), method)
    return float((states[-1] - exact(1.0, X0)).abs().max())


def test_every_fixed_grid_solver_has_a_known_order():
    assert set(ORDERS) == set(ode.FIXED_GRID_SOLVERS)


@pytest.mark.parametrize("method", ode.FIXED_GRID_SOLVERS)
def test_order_of_convergence(method):
    n = 40  # fine enough for the start of the multistep methods not to show
    observed = np.log2(error(method, n) / error(method, 2 * n))
    assert observed == pytest.approx(ORDERS[method], abs=0.3)


@pytest.mark.parametrize("method", ode.ADAPTIVE_SOLVERS)
def test_adaptive_solvers_reach_their_tolerance(method):
    times = ode.grid(10, 0.1)
    states = ode.integrate(velocity, X0, times, method)
    for t, state in zip(times, states, strict=True):
        torch.testing.assert_close(state, exact(t, X0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ode.SOLVERS)
def test_no_solver_looks_beyond_the_stop(method):
    seen = []

    def recorded(t, x):
        seen.append(float(t))
        return velocity(t, x)

    ode.integrate(recorded, X0, ode.grid(3, 0.1), method)
    assert max(seen) <= 0.3 + 1e-12


@pytest.mark.parametrize("method", ode.ADAPTIVE_SOLVERS)
def test_an_adaptive_solver_steps_on_every_time(method):
    """A stop is a state that it has computed, not one between two others."""
    seen = set()

    def recorded(t, x):
        seen.add(float(t))
        return velocity(t, x)

    times = ode.grid(7, 0.1)
    ode.integrate(recorded, X0, times, method)
    nearest = np.abs(np.array(sorted(seen))[:, None] - times).min(axis=0)
    np.testing.assert_allclose(nearest, 0, atol=1e-12)


@pytest.mark.parametrize("method", ode.SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_keep_dtype_and_start_at_the_input(method, dtype):
    x = X0.to(dtype)
    states = ode.integrate(velocity, x, ode.grid(2, 0.5), method)
    assert states.dtype == dtype
    assert states.shape == (3, 2, 2)
    torch.testing.assert_close(states[0], x, rtol=0, atol=0)


def test_no_steps_return_the_input():
    assert torch.equal(ode.integrate(velocity, X0, ode.grid(0, 0.1))[0], X0)


@pytest.mark.parametrize(("n", "h"), [(10, 0.1), (3, 1 / 3), (7, 1 / 7), (49, 1 / 49)])
def test_grid_ends_at_one(n, h):
    assert ode.grid(n, h)[-1] == pytest.approx(1.0)
    assert ode.grid(n, h)[-1] <= 1.0


@pytest.mark.parametrize("step_size", [0.1 + 5e-12, 0.25 + 1e-11, 1 / 3, 1 / 49, 0.3])
def test_a_step_size_that_was_rounded_up_does_not_pass_the_end(step_size):
    times = ode.grid(max_steps(step_size), step_size)
    assert max(times) == times[-1] <= 1
    np.testing.assert_allclose(np.diff(times), step_size, rtol=1e-9)


@pytest.mark.parametrize("method", ode.FIXED_GRID_SOLVERS)
def test_a_row_is_solved_as_if_alone(method):
    def stiff(t, x):
        return -8 * x * x.abs()  # rows of different size need different effort

    rows = torch.tensor([[1e-3], [1.0], [3.0]], dtype=torch.float64)
    together = ode.integrate(stiff, rows, ode.grid(20, 0.05), method)
    for k in range(3):
        alone = ode.integrate(stiff, rows[k : k + 1], ode.grid(20, 0.05), method)
        torch.testing.assert_close(together[:, k : k + 1], alone, rtol=1e-12, atol=1e-14)


def test_an_adaptive_solver_that_fails_is_a_value_error():
    with pytest.raises(ValueError, match="solver='dopri5'"):
        ode.integrate(lambda t, x: x * torch.nan, X0, ode.grid(1, 0.5), "dopri5")


@pytest.mark.parametrize("method", ["implicit_adams", "fixed_adams"])
def test_a_coordinate_that_rests_is_no_trouble(method):
    """With warnings as errors: a velocity of exactly zero must not look like no convergence."""
    states = ode.integrate(lambda t, x: x * x.new_tensor([-1.0, 0.0]), X0, ode.grid(9, 0.1), method)
    torch.testing.assert_close(states[-1][:, 1], X0[:, 1])
    torch.testing.assert_close(states[-1][:, 0], X0[:, 0] * np.exp(-0.9), rtol=1e-4, atol=0)


def to_one(t, x, offset=0.0):
    """x' = (1 - x) / (1 - t) ends at 1 whatever it starts from; its rate has no bound.

    With an offset in the denominator, what remains at the end is that share of the whole way.
    """
    return (1 - x) / (1 + offset - t)


@pytest.mark.parametrize("method", ode.FIXED_GRID_SOLVERS)
def test_no_stage_falls_into_a_singular_end(method):
    """The latest stage is in the middle of the last step, and others are where they always are."""
    times = ode.grid(10, 0.1)

    def asked(**options):
        seen = []

        def recorded(t, x):
            seen.append(float(t))
            return to_one(t, x, offset=1e-3)

        ode.integrate(recorded, X0, times, method, **options)
        return np.array(seen)

    np.testing.assert_allclose(asked(singular_end=True), asked().clip(max=0.95), rtol=1e-12)
    states = ode.integrate(to_one, X0, times, method, singular_end=True)
    assert (states[-1] - 1).abs().max() < 0.2


@pytest.mark.parametrize("method", ode.SOLVERS)
def test_a_singular_end_changes_no_step_before_the_last(method):
    times = ode.grid(9, 0.1)
    states = ode.integrate(to_one, X0, times, method, singular_end=True)
    assert torch.equal(states, ode.integrate(to_one, X0, times, method))


@pytest.mark.parametrize("method", ode.ADAPTIVE_SOLVERS)
def test_an_adaptive_solver_follows_a_steep_end_exactly(method):
    """Its steps are as short as the velocity asks for, and so their times need no bound."""
    offset = 0.01
    states = ode.integrate(
        lambda t, x: to_one(t, x, offset), X0, ode.grid(10, 0.1), method, singular_end=True
    )
    expected = 1 - (1 - X0) * offset / (1 + offset)
    torch.testing.assert_close(states[-1], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ode.SOLVERS)
def test_the_last_state_alone_is_the_same(method):
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    times = ode.grid(7, 0.1)

    def velocity(t, x):
        return torch.sin(3 * t) * x - x**3

    states = ode.integrate(velocity, x, times, method)
    ends = ode.integrate(velocity, x, times, method, last_only=True)
    assert ends.shape == (2, 4, 3)
    assert torch.equal(ends[0], x)
    assert torch.equal(ends[1], states[-1])
