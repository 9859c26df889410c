"""Flow matching finds the field that it should, wherever the data are."""

import math

import numpy as np
import pytest
import torch

from flowalign.network import MLPField
from flowalign.network.training import train

BUDGET = {
    "noise": 0.0,
    "max_iter": 20,
    "batch_size": 16,
    "learning_rate_init": 1e-3,
    "weight_decay": 0.0,
    "seed": 0,
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    return request.param


def new_field(dim, hidden_dim=32, n_blocks=2):
    field = MLPField(dim, hidden_dim, n_blocks)
    field.reset_parameters(torch.Generator().manual_seed(0))
    return field


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_recovers_a_constant_displacement(device):
    x0 = normal(512, 5).to(device)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0], device=device)
    field = new_field(5).to(device)
    # every sample is a class of its own, so that each has its own target
    budget = BUDGET | {"max_iter": 60, "learning_rate_init": 3e-3}
    train(field, x0, x0 + shift, torch.arange(512, device=device), **budget)
    for t in (0.0, 0.5, 1.0):
        x = normal(20, 5, seed=1).to(device) + t * shift
        with torch.no_grad():
            velocity = field(torch.tensor(t, device=device), x)
        torch.testing.assert_close(velocity, shift.expand(20, 5), rtol=0, atol=0.05)


def test_at_the_start_the_field_is_the_expected_displacement(device):
    # Two classes that cannot be told apart: v*(x, 0) = E[x1] - x, the mean of both targets.
    x0 = 0.01 * normal(400, 3).to(device)
    targets = torch.eye(3, device=device)[:2]
    labels = (torch.arange(400, device=device) % 4 == 0).long()  # a quarter goes to the second
    field = new_field(3).to(device)
    train(field, x0, targets, labels, **BUDGET | {"max_iter": 60})
    with torch.no_grad():
        velocity = field(torch.tensor(0.0, device=device), torch.zeros(1, 3, device=device))[0]
    torch.testing.assert_close(velocity.cpu(), torch.tensor([0.75, 0.25, 0.0]), rtol=0, atol=0.06)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_first_loss_is_that_of_standing_still(noise):
    # A new field is zero: its loss is E|u_t|^2 = |x1 - x0|^2 + d sigma^2 E[(1-2t)^2 / (4 t (1-t))].
    n, d = 2000, 4
    x0, targets = normal(n, d), torch.zeros(1, d)
    field = new_field(d)
    for weight in field.parameters():
        weight.requires_grad_(False)
    field.project_out.bias.requires_grad_(True)
    losses = train(
        field, x0, targets, torch.zeros(n, dtype=torch.long), **BUDGET
        | {"noise": noise, "max_iter": 1, "batch_size": n, "learning_rate_init": 1e-12}
    )  # fmt: skip
    # E[(1-2t)^2 / (4 t (1-t))] with the ends frozen at T_MIN; by quadrature on a fine grid
    t = ((torch.arange(200_000) + 0.5) / 200_000).double().clamp(1e-3, 1 - 1e-3)
    factor = float(((1 - 2 * t) ** 2 / (4 * t * (1 - t))).mean())
    mean_square = float(x0.square().mean())
    expected = float(x0.square().sum(dim=1).mean()) + d * noise**2 * mean_square * factor
    assert losses[0] == pytest.approx(expected, rel=0.2 if noise else 1e-4)


def test_the_loss_falls_and_there_is_one_per_epoch():
    x0, targets = normal(40, 6), normal(4, 6, seed=1)
    losses = train(new_field(6), x0, targets, torch.arange(40) % 4, **BUDGET | {"max_iter": 40})
    assert len(losses) == 40
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("batch_size", [10, 4, 3, 99])
def test_the_loss_of_an_epoch_is_the_mean_over_its_samples(batch_size):
    """Whatever the last batch is left with. The samples differ much; the field stands still."""
    x0 = normal(10, 3) * torch.logspace(-1, 1, 10)[:, None]
    losses = train(
        new_field(3), x0, torch.zeros(1, 3), torch.zeros(10, dtype=torch.long), **BUDGET
        | {"batch_size": batch_size, "max_iter": 3, "learning_rate_init": 1e-20}
    )  # fmt: skip
    assert losses == pytest.approx([float(x0.square().sum(dim=1).mean())] * 3, rel=1e-5)


@pytest.mark.parametrize(("max_iter", "batch_size"), [(5, 4), (3, 12), (1, 5), (1, 12)])
def test_weights_decay_by_the_schedule(max_iter, batch_size):
    """Where there is nothing to learn, AdamW multiplies weights by 1 - rate * decay in each step.

    The rate rises linearly over the first epoch and then falls to zero along a cosine.
    """
    x0 = normal(12, 4).double()
    field = new_field(4).double()
    before = field.state_dict()["project_in.weight"].clone()
    budget = {"max_iter": max_iter, "batch_size": batch_size, "learning_rate_init": 0.1}
    losses = train(field, x0, x0, torch.arange(12), **BUDGET | budget | {"weight_decay": 4.0})
    assert losses == [0.0] * max_iter
    epoch = math.ceil(12 / batch_size)
    falling = (max_iter - 1) * epoch
    rates = [(k + 1) / epoch for k in range(epoch)]
    rates += [(1 + math.cos(math.pi * k / falling)) / 2 for k in range(falling)]
    factor = np.prod(1 - 0.1 * 4.0 * np.array(rates))
    torch.testing.assert_close(field.state_dict()["project_in.weight"], factor * before)


def test_every_epoch_visits_each_sample_once_at_a_time_of_its_own():
    x0 = normal(12, 4)
    field = new_field(4)
    visits = []
    field.register_forward_pre_hook(
        lambda module, inputs: visits.append([tensor.clone() for tensor in inputs])
    )
    # Samples rest at their targets, so that a position tells which one it is.
    train(field, x0, x0, torch.arange(12), **BUDGET | {"max_iter": 2, "batch_size": 5})
    assert [len(x) for _, x in visits] == [5, 5, 2] * 2
    times = torch.cat([t for t, _ in visits])
    rows = torch.cat([torch.cdist(x, x0).argmin(dim=1) for _, x in visits])
    first, second = rows.split(12)
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(12))
    assert first.tolist() != second.tolist() != list(range(12)) != first.tolist()
    assert len(times.unique()) == 24
    assert 0 <= times.min() < 0.2 < 0.8 < times.max() <= 1


def test_noise_is_relative_to_the_size_of_the_features():
    """Standing still costs d sigma^2 times a constant, of which sigma^2 is the only part of X."""
    x0 = normal(4000, 4)
    labels = torch.arange(4000)  # each sample rests, so that noise is all there is
    budget = BUDGET | {"max_iter": 1, "batch_size": 4000, "learning_rate_init": 1e-20}
    (one,), (other,), (louder,) = (
        train(new_field(4), scale * x0, scale * x0, labels, **budget | {"noise": noise})
        for scale, noise in [(1, 0.3), (5, 0.3), (1, 0.6)]
    )
    assert other == pytest.approx(25 * one, rel=1e-4)
    assert louder == pytest.approx(4 * one, rel=1e-4)


def test_same_seed_same_field_whatever_the_global_generator():
    x0, targets, labels = normal(20, 4), normal(2, 4, seed=1), torch.arange(20) % 2
    results = []
    for global_seed, seed in [(0, 7), (1, 7), (0, 8)]:
        torch.manual_seed(global_seed)
        field = new_field(4)
        train(field, x0, targets, labels, **BUDGET | {"seed": seed, "noise": 0.3})
        results.append(field.state_dict()["project_out.weight"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("rate", [1e30, math.inf])
def test_divergence_names_the_learning_rate(rate):
    x0, targets, labels = normal(20, 4), normal(2, 4, seed=1), torch.arange(20) % 2
    with pytest.raises(ValueError, match="learning_rate_init"):
        train(new_field(4), x0, targets, labels, **BUDGET | {"learning_rate_init": rate})
