"""Leaving one out in closed form equals leaving it out and fitting again."""

import numpy as np
import pytest
import torch
from gaussian_toy import refit_without

from flowalign import ode
from flowalign.gaussian import GaussianField, GaussianModel
from flowalign.gaussian.statistics import ClassStatistics

COUNTS = [[4, 6, 3, 5], [2, 2, 2], [1, 1, 1, 1, 1], [3, 4, 0, 5]]
# Text evidence and heavy tails, as in joint spaces.
DESIGN = {"text_weight": 3.0, "centred_text_weight": 2.0, "tail": 40.0}


def support_set(counts, d, seed=0):
    """X, codes, embeddings of the class names, and targets."""
    rng = np.random.default_rng(seed)
    C = len(counts)
    codes = np.repeat(np.arange(C), counts)
    X = rng.normal(size=(C, d))[codes] + rng.normal(size=(len(codes), d))
    E, targets = rng.normal(size=(C, 4)), rng.normal(size=(C, d))
    return tuple(torch.from_numpy(array) for array in (X, codes, E, targets))


def left_out(X, codes, E, targets, rows=None, noise_std=0.4, dtype=torch.float64, **design):
    model = GaussianModel.of(ClassStatistics.of(X, codes, len(targets)), E)
    log_prior = torch.linspace(-1, 0, len(targets), dtype=X.dtype)
    field = model.field(targets, log_prior, noise_std=noise_std).replace(**design).to(dtype)
    # What is tested is the arithmetic, so the noise does not raise any variance.
    field = field.replace(variances=model.within.variances.to(dtype))
    rows = torch.arange(len(X)) if rows is None else rows
    return model.without_each(field, X[rows], codes[rows])


def refitted_field(data, i, log_prior, **numbers):
    """Ordinary field of the model that never saw sample i."""
    X, codes, E, targets = data
    mu, covariance = refit_without(X, codes, E, i)
    variances, basis = torch.linalg.eigh(torch.from_numpy(covariance))
    return GaussianField(
        basis, variances, torch.from_numpy(mu) @ basis, targets @ basis, log_prior, **numbers
    )


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("d", [3, 25])
def test_distances_equal_those_of_a_refit(counts, d):
    data = support_set(counts, d)
    model = left_out(*data)
    distances = model.distances(torch.tensor(0.0), model.rotate(data[0]))
    for i, x in enumerate(data[0].numpy()):
        mu, covariance = refit_without(*data[:3], i)
        expected = np.einsum("cd,de,ce->c", x - mu, np.linalg.inv(covariance), x - mu)
        np.testing.assert_allclose(distances[i], expected, rtol=1e-8)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("noise_std", [0.0, 0.4])
@pytest.mark.parametrize("design", [{}, DESIGN], ids=["exact", "design"])
def test_the_flow_equals_that_of_a_refit(counts, noise_std, design):
    data = support_set(counts, d=6)
    model = left_out(*data, noise_std=noise_std, **design)
    times = ode.grid(10, 0.1)
    states = model.rotate_back(ode.solve(model, data[0], times))
    for i, x in enumerate(data[0]):
        field = refitted_field(data, i, model.field.log_prior, noise_std=noise_std, **design)
        expected = ode.integrate(field, x[None], times, singular_end=True)
        torch.testing.assert_close(states[:, i : i + 1], expected, rtol=1e-7, atol=1e-7)


def test_single_samples_in_a_mixed_set():
    """Exact for the single ones. A sample of a larger class leaves their share of the scatter."""
    data = support_set([1, 4, 1, 3, 5], d=6)
    model = left_out(*data)
    distances = model.distances(torch.tensor(0.0), model.rotate(data[0]))
    for i, x in enumerate(data[0].numpy()):
        mu, covariance = refit_without(*data[:3], i)
        expected = np.einsum("cd,de,ce->c", x - mu, np.linalg.inv(covariance), x - mu)
        rtol = 1e-8 if data[1][i] in (0, 2) else 0.2
        np.testing.assert_allclose(distances[i], expected, rtol=rtol)


def test_a_sample_left_out_is_missed():
    """With all samples the flow of a sample is drawn to its own class more than without it."""
    data = support_set([3, 3, 3], d=25)
    model = left_out(*data)
    field = model.field
    z, t = model.rotate(data[0]), torch.tensor(0.0)
    own = torch.arange(9), data[1]
    with_it = torch.cdist(z / field.variances.sqrt(), field.means / field.variances.sqrt()) ** 2
    assert (model.distances(t, z)[own] > 1.5 * with_it[own]).all()


def test_samples_may_be_chosen():
    data = support_set([4, 6, 3, 5], d=6)
    index, t = torch.tensor([3, 11, 5]), torch.tensor(0.3)
    every, some = left_out(*data), left_out(*data, rows=index)
    z = every.rotate(data[0])
    torch.testing.assert_close(some.velocity(t, z[index]), every.velocity(t, z)[index])


def test_a_common_offset_does_not_take_the_digits():
    """In float32, with features far from the origin."""
    X, codes, E, targets = support_set([4, 6, 3, 5], d=6)
    near = left_out(X, codes, E, targets)
    far = left_out(X + 1e3, codes, E, targets + 1e3, dtype=torch.float32)
    expected = near.distances(torch.tensor(0.3), near.rotate(X))
    found = far.distances(torch.tensor(0.3), far.rotate((X + 1e3).float()))
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02)


def test_class_weights_are_those_of_the_velocity():
    X, codes, E, targets = support_set([4, 6, 3, 5], d=6)
    model, t = left_out(X, codes, E, targets, noise_std=0.0), torch.tensor(0.3)
    straight = (model.posterior(t, X) @ model.field.targets - model.rotate(X)) / 0.7
    torch.testing.assert_close(model.velocity(t, model.rotate(X)), straight)


@pytest.mark.parametrize("noise_std", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_end_it_is_what_it_is_a_thousandth_before(noise_std, dtype):
    data = support_set([4, 6, 3, 5], d=6)
    model = left_out(*data, noise_std=noise_std, dtype=dtype)
    z = model.rotate(data[3][data[1]].to(dtype))  # each sample at the target of its class
    last, end = (torch.tensor(t, dtype=dtype) for t in (0.999, 1.0))
    for read, x in ((model.velocity, z), (model.posterior, model.rotate_back(z))):
        assert read(end, x).isfinite().all()
        torch.testing.assert_close(read(end, x), read(last, x))
