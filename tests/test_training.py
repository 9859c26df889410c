"""Flow matching finds the field that it should."""

import math

import pytest
import torch

from flowalign.fields import MLPField
from flowalign.training import train

BUDGET = {
    "noise": 0.0,
    "max_iter": 20,
    "batch_size": 16,
    "learning_rate_init": 1e-3,
    "weight_decay": 0.0,
    "seed": 0,
}


def new_field(dim, hidden_dim=32, n_blocks=2):
    field = MLPField(dim, hidden_dim, n_blocks)
    field.reset_parameters(torch.Generator().manual_seed(0))
    return field


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_recovers_a_constant_displacement():
    x0, shift = normal(512, 5), torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])
    field = new_field(5)
    # every sample is a class of its own, so that each has its own target
    budget = BUDGET | {"max_iter": 60, "learning_rate_init": 3e-3}
    train(field, x0, x0 + shift, torch.arange(512), **budget)
    for t in (0.0, 0.5, 1.0):
        with torch.no_grad():
            velocity = field(torch.tensor(t), normal(20, 5, seed=1) + t * shift)
        torch.testing.assert_close(velocity, shift.expand(20, 5), rtol=0, atol=0.05)


def test_at_the_start_the_field_is_the_expected_displacement():
    # Two classes that cannot be told apart: v*(x, 0) = E[x1] - x, the mean of both targets.
    x0 = 0.01 * normal(400, 3)
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    labels = (torch.arange(400) % 4 == 0).long()  # one quarter goes to the second target
    field = new_field(3)
    train(field, x0, targets, labels, **BUDGET | {"max_iter": 60})
    with torch.no_grad():
        velocity = field(torch.tensor(0.0), torch.zeros(1, 3))[0]
    torch.testing.assert_close(velocity, torch.tensor([0.75, 0.25, 0.0]), rtol=0, atol=0.06)


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
