"""What leaves the Gaussian field as it is: orders, rotations, precision, distance, storage."""

import pickle

import numpy as np
import pytest
import torch
from gaussian_toy import Model, time
from scipy.stats import ortho_group

from flowalign import ode

# Heavy tails and text evidence, as in joint spaces.
DESIGN = {"tail": 20.0, "text_weight": 2.0, "centred_text_weight": 1.5}


def test_the_order_of_classes_does_not_matter():
    model = Model(6, noise_std=0.3)
    order = [2, 0, 3, 1]
    x, t = torch.from_numpy(model.sample(10)[1]), time(0.6)
    shuffled = model.field(
        means=model.means[order], targets=model.targets[order], prior=model.prior[order]
    )
    torch.testing.assert_close(shuffled(t, x), model.field()(t, x))


def test_a_rotated_space_has_the_rotated_field():
    model, R = Model(6, noise_std=0.3), ortho_group.rvs(6, random_state=9)
    x, t = torch.from_numpy(model.sample(10)[1]), time(0.6)
    rotated = model.field(
        basis=R.T @ model.basis, means=model.means @ R, targets=model.targets @ R, **DESIGN
    )
    R = torch.from_numpy(R)
    torch.testing.assert_close(rotated(t, x @ R), model.field(**DESIGN)(t, x) @ R)


def test_its_own_coordinates_give_the_same_flow():
    model = Model(6, noise_std=0.3)
    field, x = model.field(**DESIGN), torch.from_numpy(model.sample(10)[1])
    torch.testing.assert_close(field.rotate_back(field.rotate(x)), x)
    for method, tolerance in (("euler", 1e-9), ("rk4", 1e-9), ("dopri5", 1e-4)):
        inside = ode.integrate(field.velocity, field.rotate(x), ode.grid(5, 0.1), method)
        outside = ode.integrate(field, x, ode.grid(5, 0.1), method)
        np.testing.assert_allclose(field.rotate_back(inside[-1]), outside[-1], atol=tolerance)


def test_one_time_per_row_is_refused_not_broadcast():
    x = torch.zeros(6, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="one time for all rows, got shape"):
        Model(6).field()(torch.zeros(6, dtype=torch.float64), x)


def test_one_time_per_row_by_vmap():
    model = Model(6, noise_std=0.3)
    field, x = model.field(tail=20.0), torch.from_numpy(model.sample(5)[1])
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    rows = torch.vmap(lambda t, x: field(t, x[None])[0])(t, x)
    one_by_one = torch.cat([field(t[i], x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(rows, one_by_one)


@pytest.mark.parametrize("options", [{}, DESIGN], ids=["exact", "design"])
@pytest.mark.parametrize("noise_std", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_end_it_is_what_it_is_a_thousandth_before(options, noise_std, dtype):
    """At time 1 the classes have no width: the field is evaluated at 0.999 at most."""
    model = Model(6, noise_std=noise_std)
    field = model.field(**options).to(dtype)
    x = torch.from_numpy(model.path(0.99, n=40)[0].numpy()).to(dtype)
    last, end = (torch.tensor(t, dtype=dtype) for t in (0.999, 1.0))
    for read in (field, field.posterior):
        assert read(end, x).isfinite().all()
        torch.testing.assert_close(read(end, x), read(last, x))
        before = torch.tensor(0.998, dtype=dtype)
        assert not torch.allclose(field(before, x), field(last, x))


@pytest.mark.parametrize("tail", [None, 20.0])
@pytest.mark.parametrize("t", [0.0, 0.5])
def test_far_from_the_origin_float32_keeps_its_digits(tail, t):
    """What all features have in common should not take the digits of what tells them apart."""
    model, offset = Model(20, noise_std=0.3, separation=0.2, reach=0.2), 1000.0
    x = torch.from_numpy(model.path(t, n=50)[0].numpy())
    near = model.field(tail=tail)
    far = model.field(tail=tail, means=model.means + offset, targets=model.targets + offset)
    expected = near.posterior(time(t), x)
    assert expected.amax(dim=1).median() < 0.99  # something to tell apart
    found = far.float().posterior(time(t).float(), (x + offset).float())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.02)
    velocity = far.float()(time(t).float(), (x + offset).float())
    torch.testing.assert_close(velocity.double(), near(time(t), x), rtol=0, atol=0.05)


@pytest.mark.parametrize("tail", [None, 5.0])
def test_classes_very_far_apart_are_told_apart(tail):
    """In float32 a squared distance of nearly nothing may come out below zero."""
    model = Model(20, n_classes=6, separation=3e4)
    field, x = model.field(tail=tail).float(), torch.from_numpy(model.means).float()
    posterior = field.posterior(torch.tensor(0.0), x)
    torch.testing.assert_close(posterior, torch.eye(6), rtol=0, atol=1e-3)
    assert field(torch.tensor(0.0), x).isfinite().all()


def test_its_width_is_that_of_its_largest_product():
    """Features or classes, whichever are more: what a block of rows has to have room for."""
    assert Model(6, n_classes=4).field().row_size == 6
    assert Model(6, n_classes=9).field().row_size == 9


def test_a_changed_field_leaves_the_original_as_it_was():
    model = Model(6, noise_std=0.3)
    field, x, t = model.field(tail=20.0), torch.from_numpy(model.sample(5)[1]), time(0.4)
    before = field(t, x)
    changed = field.replace(text_weight=3.0, log_prior=torch.zeros(4, dtype=torch.float64))
    expected = model.field(tail=20.0, text_weight=3.0, prior=np.ones(4))
    torch.testing.assert_close(changed(t, x), expected(t, x))
    torch.testing.assert_close(field(t, x), before, rtol=0, atol=0)


def test_times_may_be_wider_than_the_states():
    """Adaptive solvers count time in float64 whatever they move."""
    model = Model(6, noise_std=0.3)
    field, x = model.field(**DESIGN).float(), torch.from_numpy(model.sample(5)[1]).float()
    wide, own = time(0.4), torch.tensor(0.4)
    for read in (field, field.posterior):
        assert read(wide, x).dtype == torch.float32
        torch.testing.assert_close(read(wide, x), read(own, x))


def test_float32_agrees_with_float64():
    model = Model(20, noise_std=0.3)
    field, x = model.field(tail=200.0, text_weight=5.0), torch.from_numpy(model.sample(100)[1])
    wide = ode.integrate(field, x, ode.grid(10, 0.1))[-1]
    single = ode.integrate(field.float(), x.float(), ode.grid(10, 0.1))[-1]
    np.testing.assert_allclose(single, wide, atol=1e-3)


def test_pickle_holds_arrays_and_restores_the_field():
    model = Model(6, noise_std=0.3)
    field = model.field(**DESIGN)
    state = field.__getstate__()
    assert all(isinstance(w, np.ndarray) for w in state["weights"].values())
    assert state["config"] == DESIGN | {"noise_std": 0.3}
    x = torch.from_numpy(model.sample(5)[1])
    assert torch.equal(pickle.loads(pickle.dumps(field))(time(0.7), x), field(time(0.7), x))
