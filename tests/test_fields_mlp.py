"""The MLP field: time modulation, a neutral start, and a pickle of plain arrays."""

import pickle

import numpy as np
import pytest
import torch

from flowalign.fields import MLPField
from flowalign.fields.mlp import time_features


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
