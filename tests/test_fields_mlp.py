"""The MLP field: time modulation, a neutral start, and a pickle of plain arrays."""

import pickle

import numpy as np
import pytest
import torch

from flowalign.network import MLPField
from flowalign.network.field import time_features

MODES = [torch.enable_grad, torch.no_grad, torch.inference_mode]


def make_field(seed=0, *, random_output=True):
    field = MLPField(dim=6, hidden_dim=16, n_blocks=3)
    generator = torch.Generator().manual_seed(seed)
    field.reset_parameters(generator)
    if random_output:  # a fresh field is zero; give every weight a part in the result
        with torch.no_grad():
            for weight in field.parameters():
                weight.normal_(std=0.3, generator=generator)
    return field.double()


@pytest.fixture(scope="module")
def x():
    return torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_an_untrained_field_moves_nothing(x):
    field = make_field(random_output=False)
    assert torch.equal(field(torch.tensor(0.3, dtype=x.dtype), x), torch.zeros_like(x))


def test_one_time_for_all_rows_equals_the_same_time_per_row(x):
    field = make_field()
    once = field(torch.tensor(0.3, dtype=x.dtype), x)
    torch.testing.assert_close(once, field(torch.full((5,), 0.3, dtype=x.dtype), x))


def velocity_by_hand(weights, t, x):
    """The formula, row by row, with the weights as they stand in a file."""

    def linear(name, v):
        return weights[f"{name}.weight"] @ v + weights[f"{name}.bias"]

    def silu(v):
        return v / (1 + np.exp(-v))

    def norm(v):
        return (v - v.mean()) / np.sqrt(v.var() + 1e-5)

    angles = 1000 * t * 10_000 ** (-np.arange(32) / 32)
    features = np.concatenate([np.cos(angles), np.sin(angles)])
    modulation = linear("time_out", silu(linear("time_in", features))).reshape(3, -1)
    offsets = weights["modulation_offset"]
    h = linear("project_in", x)
    for k in range((len(offsets) - 2) // 3):
        a, b, g = offsets[3 * k : 3 * k + 3] + modulation
        h = h + g * linear(f"outer.{k}", silu(linear(f"inner.{k}", (1 + b) * norm(h) + a)))
    a, b = offsets[-2:] + modulation[:2]
    return linear("project_out", (1 + b) * norm(h) + a)


@pytest.mark.parametrize("mode", MODES)
def test_the_velocity_is_that_of_the_formula(mode, x):
    """Which row of the offsets is shift, scale or gate is part of the file format."""
    field = make_field()
    weights = {name: w.numpy() for name, w in field.state_dict().items()}
    for t in (0.0, 0.37, 1.0):
        expected = torch.from_numpy(
            np.stack([velocity_by_hand(weights, t, row) for row in x.numpy()])
        )
        with mode():
            once = field(torch.tensor(t, dtype=x.dtype), x)
            each = field(torch.full((5,), t, dtype=x.dtype), x)
        torch.testing.assert_close(once, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(each, expected, rtol=1e-9, atol=1e-9)


def test_asking_for_a_velocity_changes_no_position(x):
    """In inference the states of the blocks are overwritten; a solver still needs its own."""
    before = x.clone()
    with torch.inference_mode():
        make_field()(torch.tensor(0.3, dtype=x.dtype), x)
    assert torch.equal(x, before)


def test_new_weights_are_glorot_uniform():
    field = MLPField(dim=40, hidden_dim=100, n_blocks=2)
    field.reset_parameters(torch.Generator().manual_seed(0))
    state = field.state_dict()
    zero = {"time_out.weight", "project_out.weight", "modulation_offset"}
    for name, w in state.items():
        if name in zero or name.endswith("bias"):
            assert (w == 0).all(), name
        else:
            bound = np.sqrt(6 / sum(w.shape))
            assert w.abs().max() <= bound, name
            assert float(w.square().mean()) == pytest.approx(bound**2 / 3, rel=0.1), name


def test_the_width_is_that_of_the_widest_state():
    assert MLPField(dim=6, hidden_dim=16, n_blocks=3).row_size == 16
    assert MLPField(dim=60, hidden_dim=16, n_blocks=3).row_size == 60


def test_time_is_modulated_once_per_step_not_per_row(x):
    field = make_field()
    rows = []
    field.time_out.register_forward_hook(lambda module, args, out: rows.append(out.shape))
    field(torch.tensor(0.3, dtype=x.dtype), x)
    assert rows == [(3 * 16,)]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_velocity_depends_on_time_and_on_every_coordinate(x):
    field = make_field()
    t = torch.tensor(0.3, dtype=x.dtype)
    assert not torch.allclose(field(t, x), field(t + 0.05, x))
    jacobian = torch.func.jacfwd(lambda v: field(t, v[None])[0])(x[0])
    assert (jacobian.abs() > 0).all()


def test_every_parameter_is_trained(x):
    field = make_field()
    field(torch.rand(5, dtype=x.dtype), x).square().sum().backward()
    assert all((w.grad is not None) and w.grad.abs().sum() > 0 for w in field.parameters())


def test_same_generator_same_weights():
    a, b, c = (make_field(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_weights_are_not_drawn_from_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    make_field()
    assert torch.equal(torch.get_rng_state(), before)


def test_time_features_are_unit_phases():
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    features = time_features(t)
    cosines, sines = features.chunk(2, dim=-1)
    torch.testing.assert_close(cosines**2 + sines**2, torch.ones_like(cosines))
    torch.testing.assert_close(sines[:, 0], torch.sin(1000 * t))


def test_pickle_holds_arrays_and_restores_the_field(x):
    field = make_field()
    state = field.__getstate__()
    assert all(isinstance(w, np.ndarray) for w in state["weights"].values())
    t = torch.tensor(0.7, dtype=x.dtype)
    assert torch.equal(pickle.loads(pickle.dumps(field))(t, x), field(t, x))
