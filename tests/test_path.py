"""The noisy path: its derivative is the regression target."""

import numpy as np
import pytest
import torch

from flowalign import path

# The first use of forward mode compiles decompositions by a call that torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")

NOISE_LEVELS = [0.0, 0.01, 0.3, 3.0]
INSIDE = [1e-3, 0.01, 0.3, 0.5, 0.77, 1 - 1e-3]


@pytest.fixture(scope="module")
def draws():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(5, 7, dtype=torch.float64, generator=g) for _ in range(3)]


def forward_derivative(t, x0, x1, eps, noise_std):
    """d x_t / dt by forward-mode automatic differentiation."""
    moment = torch.full((len(x0),), t, dtype=torch.float64)
    _, tangent = torch.func.jvp(
        lambda s: path.point(s, x0, x1, eps, noise_std), (moment,), (torch.ones_like(moment),)
    )
    return tangent, path.derivative(moment, x0, x1, eps, noise_std)


@pytest.mark.parametrize("t", INSIDE)
@pytest.mark.parametrize("noise_std", NOISE_LEVELS)
def test_derivative_is_the_target(t, noise_std, draws):
    expected, target = forward_derivative(t, *draws, noise_std)
    torch.testing.assert_close(target, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 1e-9, 1e-4, 1 - 1e-4, 1.0])
def test_without_noise_the_target_is_exact_everywhere(t, draws):
    expected, target = forward_derivative(t, *draws, 0.0)
    torch.testing.assert_close(target, expected, rtol=0, atol=0)


@pytest.mark.parametrize("t", [0.0, 1e-9, 1.0])
@pytest.mark.parametrize("noise_std", NOISE_LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_the_ends(t, noise_std, dtype, draws):
    x0, x1, eps = (a.to(dtype) for a in draws)
    moment = torch.full((5,), t, dtype=dtype)
    assert torch.isfinite(path.point(moment, x0, x1, eps, noise_std)).all()
    u = path.derivative(moment, x0, x1, eps, noise_std)
    bound = 1 / (2 * np.sqrt(path.T_MIN)) * noise_std * eps.abs().max() + (x1 - x0).abs().max()
    assert u.abs().max() <= bound


@pytest.mark.parametrize("t", [0.0, 1e-3])
def test_the_noise_of_the_target_is_frozen_next_to_the_ends(t, draws):
    """Within a thousandth of them, at 15.8 times the size of the noise."""
    x0, x1, eps = draws
    factors = {
        s: ((path.derivative(time, x0, x1, eps, 0.4) - (x1 - x0)) / (0.4 * eps)).numpy()
        for s in (t, 2e-3, 1 - 2e-3, 1 - t)
        for time in [torch.tensor(s, dtype=torch.float64)]
    }
    np.testing.assert_allclose(factors[t], 15.78, atol=0.01)
    np.testing.assert_allclose(factors[1 - t], -15.78, atol=0.01)
    np.testing.assert_allclose(factors[2e-3], 11.14, atol=0.01)  # follows the path here
    np.testing.assert_allclose(factors[1 - 2e-3], -11.14, atol=0.01)


def test_nothing_that_comes_in_is_changed(draws):
    before = [a.clone() for a in draws]
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    for noise_std in (0.0, 0.3):
        path.point(t, *draws, noise_std), path.derivative(t, *draws, noise_std)
    torch.testing.assert_close(draws, before, rtol=0, atol=0)
    assert t[0] == 0


def test_path_joins_feature_and_class_embedding(draws):
    x0, x1, eps = draws
    for t, end in [(0.0, x0), (1.0, x1)]:
        torch.testing.assert_close(path.point(torch.tensor(t), x0, x1, eps, 0.7), end)


def test_one_time_for_all_rows_equals_the_same_time_per_row(draws):
    for function in (path.point, path.derivative):
        once = function(torch.tensor(0.3, dtype=torch.float64), *draws, 0.5)
        each = function(torch.full((5,), 0.3, dtype=torch.float64), *draws, 0.5)
        torch.testing.assert_close(once, each)


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_path_is_a_line_with_the_noise_of_a_bridge(t, draws):
    x0, x1, eps = draws
    x_t = path.point(torch.tensor(t, dtype=x0.dtype), x0, x1, eps, 0.7)
    expected = (1 - t) * x0 + t * x1 + 0.7 * np.sqrt(t * (1 - t)) * eps
    torch.testing.assert_close(x_t, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("t", "factor"), [(0.0, 15.8), (1e-4, 15.8), (1 - 1e-4, -15.8)])
def test_the_noise_of_the_target_is_frozen_near_the_ends(t, factor, draws):
    x0, x1, eps = draws
    u_t = path.derivative(torch.tensor(t, dtype=x0.dtype), x0, x1, eps, 2.0)
    torch.testing.assert_close(u_t - (x1 - x0), 2.0 * factor * eps, rtol=2e-3, atol=0)


def test_noise_unit_is_the_rms_of_a_coordinate():
    rows = torch.nn.functional.normalize(torch.randn(50, 400))
    assert path.rms(rows) == pytest.approx(1 / 20)
    assert path.rms(3 * rows) == pytest.approx(3 / 20)
    assert path.rms(torch.tensor([[3.0, 4.0], [0.0, 0.0], [12.0, 0.0]])) == pytest.approx(
        np.sqrt(169 / 6)
    )
    values = 5 + torch.randn(300, 7, generator=torch.Generator().manual_seed(0))
    expected = np.sqrt(np.square(values.numpy().astype(float)).mean())  # about 0, not the mean
    assert path.rms(values) == pytest.approx(expected, rel=1e-6)


def test_the_rms_of_very_many_float32_rows_has_its_digits():
    rows = torch.full((200_000, 8), 0.1)
    assert path.rms(rows) == pytest.approx(float(rows[0, 0]), rel=1e-7)
