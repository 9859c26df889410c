"""The Gaussian field is the conditional expectation of the target, and carries what it must."""

import math

import numpy as np
import pytest
import torch
from gaussian_toy import Model, time
from scipy.stats import multivariate_normal, multivariate_t

from flowalign import ode, path
from flowalign.gaussian.field import log_t_density
from flowalign.network import MLPField
from flowalign.network.training import train

# ------------------------------------------------------------------ exactness


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.9])
def test_without_noise_the_path_can_be_inverted(d, t):
    model = Model(d)
    x = model.path(t, n=50)[0].numpy()
    # x0 is known once the class is: weigh the classes by the density of that x0.
    x0 = (x[:, None] - t * model.targets) / (1 - t)
    density = np.stack(
        [
            multivariate_normal(mean, model.covariance).logpdf(x0[:, c]) + np.log(model.prior[c])
            for c, mean in enumerate(model.means)
        ],
        axis=1,
    )
    p = np.exp(density - density.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    expected = np.einsum("nc,ncd->nd", p, model.targets - x0)
    field = model.field()
    np.testing.assert_allclose(field.posterior(time(t), torch.from_numpy(x)), p, atol=1e-9)
    np.testing.assert_allclose(field(time(t), torch.from_numpy(x)), expected, atol=1e-8)


@pytest.mark.parametrize(("d", "noise_std"), [(2, 0.5), (20, 2.0)])
@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_with_noise_it_is_a_monte_carlo_estimate(d, noise_std, t):
    """E[u_t | x_t = x] by importance sampling: each draw of x0 and class leaves one noise to x."""
    model = Model(d, noise_std=noise_std)
    codes, x0 = model.sample(150_000)
    x1, width = model.targets[codes], noise_std * math.sqrt(t * (1 - t))
    field = model.field()
    for x in model.path(t, n=4, seed=5)[0].numpy():
        eps = (x - (1 - t) * x0 - t * x1) / width
        weight = -np.square(eps).sum(axis=1) / 2
        weight = np.exp(weight - weight.max())
        weight /= weight.sum()
        u = x1 - x0 + noise_std * (1 - 2 * t) / (2 * math.sqrt(t * (1 - t))) * eps
        mean = weight @ u
        error = np.sqrt(np.square(weight) @ np.square(u - mean))
        assert error.max() < 0.2 * np.abs(mean).max()  # the estimate says something
        v = field(time(t), torch.from_numpy(x[None]))[0].numpy()
        assert (np.abs(v - mean) < 5 * error).all()


def largest_correlation(model, field, t):
    """Largest z-score of the residual u_t - v(t, x_t) against a set of functions of x_t."""
    x, u = model.path(t)
    residual = u - field(time(t), x)
    rng = torch.Generator().manual_seed(2)
    directions = torch.randn(x.shape[1], 6, dtype=x.dtype, generator=rng) / math.sqrt(x.shape[1])
    functions = torch.cat(
        [torch.ones(len(x), 1), x, torch.tanh(x @ directions), field.posterior(time(t), x)], dim=1
    )
    products = functions.T @ residual / len(x)
    spread = (functions.square().T @ residual.square() / len(x) - products.square()).sqrt()
    # Where classes are apart the residual is zero but for rounding, which is no evidence.
    error = spread / math.sqrt(len(x)) + 1e-9
    return float((products / error).abs().max())


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("noise_std", [0.0, 0.7])
@pytest.mark.parametrize("t", [0.05, 0.5, 0.9])
def test_nothing_about_the_state_predicts_the_residual(d, noise_std, t):
    """The residual of a conditional expectation is uncorrelated with every function of x_t."""
    model = Model(d, noise_std=noise_std, separation=0.5, reach=0.5)
    assert largest_correlation(model, model.field(), t) < 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_std": 0.5},
        {"variances": 1.3 * np.geomspace(0.3, 1.5, 20)},
        {"prior": np.full(4, 0.25)},
        {"tail": 10.0},
        {"text_weight": 3.0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_field_would_be_noticed(wrong):
    model = Model(20, noise_std=0.7, separation=0.5, reach=0.5)
    assert largest_correlation(model, model.field(**wrong), 0.2) > 8


# ------------------------------------------------------------------ where the flow goes


def flow(field, x, n_steps=10, step_size=0.1, method="euler"):
    states = ode.integrate(field, torch.as_tensor(x), ode.grid(n_steps, step_size), method)
    return states[-1].numpy()


def test_one_class_is_carried_to_its_embedding():
    model = Model(5, n_classes=1)
    x = model.sample(20)[1]
    # Without noise the paths are straight: Euler's last step lands on the target.
    end = np.broadcast_to(model.targets, x.shape)
    np.testing.assert_allclose(flow(model.field(), x), end, atol=1e-9)
    # With noise the width of the class at the end is that of S(1 - T_MIN), and then moves on.
    noisy = flow(model.field(noise_std=0.3), x, 100, 0.01, "rk4")
    np.testing.assert_allclose(noisy, end, atol=0.3)
    assert np.sqrt(np.square(noisy - end).mean()) < 0.05


@pytest.mark.parametrize("noise_std", [0.0, 0.3])
def test_separated_classes_are_carried_to_their_own_embeddings(noise_std):
    model = Model(20, separation=8.0, noise_std=noise_std)
    codes, x = model.sample(200)
    end = flow(model.field(), x, 100, 0.01)
    distances = np.linalg.norm(end[:, None] - model.targets, axis=2)
    assert (distances.argmin(axis=1) == codes).all()
    assert distances.min(axis=1).max() < 0.5


def test_classes_that_coincide_end_at_their_embeddings_in_proportion():
    model = Model(2, n_classes=2, prior=[0.3, 0.7])
    model.means[1] = model.means[0]
    x = model.sample(4000)[1]
    end = flow(model.field(), x, 200, 0.005)
    distances = np.linalg.norm(end[:, None] - model.targets, axis=2)
    assert np.mean(distances.min(axis=1) < 0.05) > 0.98  # not between them
    share = np.mean(distances.argmin(axis=1) == 0)
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 4000))


@pytest.mark.parametrize("noise_std", [0.0, 0.8])
@pytest.mark.parametrize("t", [0.3, 0.8])
def test_the_flow_carries_the_features_along_the_path(noise_std, t):
    """Features moved by the field have the distribution of the path: two moments and a tail."""
    model = Model(3, noise_std=noise_std)
    x = model.sample(40_000, seed=3)[1]
    moved = flow(model.field(), x, 8, t / 8, "rk4")
    expected = model.path(t, n=40_000, seed=4)[0].numpy()
    scale = expected.std(axis=0)
    np.testing.assert_allclose(moved.mean(axis=0), expected.mean(axis=0), atol=0.03 * scale.max())
    np.testing.assert_allclose(np.cov(moved.T), np.cov(expected.T), atol=0.05 * scale.max() ** 2)
    for quantile in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(
            np.quantile(moved, quantile, axis=0),
            np.quantile(expected, quantile, axis=0),
            atol=0.06 * scale.max(),
        )


@pytest.mark.parametrize("noise_std", [0.0, 0.5])
def test_small_euler_steps_agree_with_an_adaptive_solver(noise_std):
    model = Model(6, noise_std=noise_std, reach=0.7)
    x = torch.from_numpy(model.sample(50)[1])
    field = model.field()
    adaptive = ode.integrate(field, x, ode.grid(19, 0.05), "dopri5")
    assert (x - adaptive[-1]).norm(dim=1).median() > 1  # something moved
    errors = []
    for steps in (500, 1000):
        euler = ode.integrate(field, x, ode.grid(95 * steps // 100, 1 / steps), "euler")
        errors.append((euler[:: steps // 20] - adaptive).abs().amax(dim=(0, 2)))
    assert errors[1].median() < 1e-3
    assert errors[1].max() < 0.1  # rows that pass between two classes
    assert 0.45 < errors[1].median() / errors[0].median() < 0.55  # of first order


@pytest.fixture(scope="module", params=[0.0, 0.5])
def whole_way(request):
    """A model, rows of it, and where small steps carry them."""
    model = Model(6, noise_std=request.param, reach=1.0, separation=2.0)
    x = torch.from_numpy(model.sample(30)[1])
    return model, x, ode.integrate(model.field(), x, ode.grid(1000, 1e-3), "midpoint")[-1]


@pytest.mark.parametrize("solver", ode.SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_solver_reaches_the_end(whole_way, solver, dtype):
    """At time 1 the field is singular: stages of a step that fall there must not blow up."""
    model, x, end = whole_way
    states = ode.integrate(
        model.field().to(dtype), x.to(dtype), ode.grid(10, 0.1), solver, singular_end=True
    )
    assert states.dtype == dtype
    assert states.isfinite().all()
    near = (states[-1] - end).norm(dim=1)
    assert near.median() < 0.25  # of targets that are 3 apart
    nearest = [
        torch.cdist(x.double(), torch.from_numpy(model.targets)).argmin(dim=1)
        for x in (end, states[-1])
    ]
    assert (nearest[0] == nearest[1]).double().mean() > 0.9


@pytest.mark.slow
def test_a_network_trained_on_the_model_converges_to_the_field():
    model = Model(2, n_classes=3, noise_std=0.3, separation=1.5)
    codes, x0 = model.sample(4096)
    x0 = torch.from_numpy(x0).float()
    exact = model.field().float()
    errors = []
    for max_iter in (2, 60):
        network = MLPField(2, 64, 2)
        network.reset_parameters(torch.Generator().manual_seed(0))
        train(
            network, x0, torch.from_numpy(model.targets).float(), torch.from_numpy(codes),
            noise=0.3 / path.rms(x0), max_iter=max_iter, batch_size=256, learning_rate_init=3e-3,
            weight_decay=0.0, seed=0,
        )  # fmt: skip
        squares = [0.0, 0.0]
        for t in (0.1, 0.3, 0.5, 0.7):
            x = model.path(t, n=5000, seed=7)[0].float()
            with torch.no_grad():
                v = exact(time(t).float(), x)
                squares[0] += float((network(time(t).float(), x) - v).square().sum())
            squares[1] += float(v.square().sum())
        errors.append(math.sqrt(squares[0] / squares[1]))
    print("relative error of the network", errors)
    assert errors[1] < 0.1
    assert errors[1] < errors[0] / 3


# ------------------------------------------------------------------ the two additions


def test_text_evidence_is_added_to_the_log_weights():
    model, t = Model(5, noise_std=0.4), time(0.4)
    x = torch.from_numpy(model.sample(10)[1])
    plain = model.field().posterior(t, x).log()
    weighed = model.field(text_weight=3.0).posterior(t, x).log()
    targets = torch.from_numpy(model.targets)
    cosines = torch.cosine_similarity(x[:, None], targets, dim=2)
    difference = weighed - plain - 3 * cosines
    torch.testing.assert_close(difference - difference[:, :1], torch.zeros_like(difference))


@pytest.mark.parametrize("tail", [10.0, 50.0])
def test_heavy_tails_are_those_of_a_t_distribution(tail):
    model, t = Model(3, noise_std=0.4), 0.4
    x = model.sample(10)[1]
    S = (1 - t) ** 2 * model.covariance + 0.4**2 * t * (1 - t) * np.eye(3)
    freedom = tail - 3
    density = np.stack(
        [
            multivariate_t((1 - t) * mean + t * target, S * tail / freedom, freedom).logpdf(x)
            for mean, target in zip(model.means, model.targets, strict=True)
        ],
        axis=1,
    )
    expected = model.prior * np.exp(density - density.max(axis=1, keepdims=True))
    posterior = model.field(tail=tail).posterior(time(t), torch.from_numpy(x))
    np.testing.assert_allclose(posterior, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)


@pytest.mark.parametrize("design", [{}, {"text_weight": 3.0, "tail": 10.0}], ids=len)
def test_at_the_end_classes_weigh_what_they_do_a_thousandth_before(design):
    model = Model(5, noise_std=0.4)
    field, x = model.field(**design), torch.from_numpy(model.targets)
    weights = field.posterior(time(1.0), x)
    torch.testing.assert_close(weights, field.posterior(time(0.999), x))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4, dtype=x.dtype))


def test_with_many_degrees_of_freedom_a_t_is_gaussian():
    distances = torch.tensor([0.0, 1.0, 30.0], dtype=torch.float64)
    torch.testing.assert_close(log_t_density(distances, 1e9), -distances / 2)
