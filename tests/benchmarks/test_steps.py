"""One solver step, and one training step, against the matrix products that they cannot do without.

Run with ``pytest -n 0 tests/benchmarks --benchmark-only``.
"""

import numpy as np
import pytest
import torch
from paper_network import PaperField

from flowalign import ode
from flowalign.gaussian import GaussianField
from flowalign.network import MLPField
from flowalign.network.field import TIME_FEATURES
from flowalign.network.training import train

N_STEPS = 5


def _generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def mlp():
    field = MLPField(512, 512, 2)
    field.reset_parameters(_generator())
    return field


@pytest.mark.parametrize("n", [1024, 4096, 8192])
@torch.inference_mode()
def test_a_solver_step_of_the_network(n, mlp, against):
    x = torch.randn(n, 512, generator=_generator())
    layers = [mlp.project_in, *mlp.inner, *mlp.outer, mlp.project_out]

    def bare():
        for _ in range(N_STEPS):
            z = x
            for layer in layers:
                z = z @ layer.weight.T
        return z

    times = ode.grid(N_STEPS, 0.1)
    ratio = against(lambda: ode.integrate(mlp.velocity, x, times, last_only=True), bare)
    assert ratio < 1.4  # 1.15 is the aim; the rest is left to a busy machine


@torch.inference_mode()
def test_modulation_once_a_step_instead_of_once_a_row(mlp, against):
    x = torch.randn(4096, 512, generator=_generator())
    other, t = PaperField(512, n_blocks=2), torch.tensor(0.3)
    ratio = against(lambda: other(t.expand(len(x)), x), lambda: mlp.velocity(t, x))
    assert ratio > 2


@pytest.mark.parametrize("text_weight", [0.0, 10.0])
@pytest.mark.parametrize("n_classes", [50, 1000])
@torch.inference_mode()
def test_a_solver_step_of_the_closed_form(n_classes, text_weight, against):
    generator = _generator()
    n, d = 4096, 512
    basis, _ = torch.linalg.qr(torch.randn(d, d, generator=generator))
    means, targets = torch.randn(2, n_classes, d, generator=generator) / d**0.5
    field = GaussianField(
        basis,
        torch.full((d,), 1 / d),
        means,
        targets,
        torch.full((n_classes,), -float(np.log(n_classes))),
        text_weight=text_weight,
        tail=600.0,
    )
    x = torch.randn(n, d, generator=generator) / d**0.5

    def bare():
        for _ in range(N_STEPS):
            scores = x @ means.T
            if text_weight:
                x @ targets.T
            z = scores @ targets
        return z

    times = ode.grid(N_STEPS, 0.1)
    ratio = against(lambda: ode.integrate(field.velocity, x, times, last_only=True), bare)
    assert ratio < (3.5 if n_classes == 50 else 2)


@pytest.mark.parametrize("batch_size", [256, 1024])
def test_a_training_step(batch_size, mlp, against):
    generator = _generator()
    n_batches = 4
    x0 = torch.randn(n_batches * batch_size, 512, generator=generator)
    targets = torch.randn(10, 512, generator=generator)
    labels = torch.arange(len(x0)) % 10
    layers = [mlp.project_in, *mlp.inner, *mlp.outer, mlp.project_out]
    weights = [torch.randn_like(layer.weight, requires_grad=True) / 20 for layer in layers]
    weights = [w.detach().requires_grad_() for w in weights]
    modulation = torch.randn(3 * 512, TIME_FEATURES).requires_grad_()
    embedding = torch.randn(batch_size, TIME_FEATURES)

    def bare():
        for batch in x0.split(batch_size):
            z = batch
            for weight in weights:
                z = z @ weight.T
            (z.sum() + (embedding @ modulation.T).sum()).backward()
            for weight in (*weights, modulation):
                weight.grad = None

    def ours():
        train(
            mlp,
            x0,
            targets,
            labels,
            noise=0.3,
            max_iter=1,
            batch_size=batch_size,
            learning_rate_init=1e-4,
            weight_decay=0.01,
            seed=0,
        )

    ratio = against(ours, bare)
    assert ratio < 2  # 1.5 is the aim
