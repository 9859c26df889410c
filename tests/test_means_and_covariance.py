"""Class means and covariance: against scikit-learn, against plain Bayes, and in corner cases."""

import numpy as np
import pytest
import torch
from gaussian_toy import make, statistics_of, tensor
from sklearn.covariance import shrunk_covariance

from flowalign.gaussian.covariance import estimate_covariance
from flowalign.gaussian.means import estimate_means
from flowalign.gaussian.statistics import ClassStatistics


def covariance_of(X, codes, E):
    statistics = statistics_of(X, codes, len(E))
    found = estimate_covariance(statistics, *estimate_means(statistics, tensor(E)))
    return found, (found.basis * found.variances @ found.basis.T).numpy()


# ------------------------------------------------------------------ covariance


@pytest.mark.parametrize(
    ("counts", "d"),
    [([9, 5, 7], 6), ([3, 2, 4], 30), ([3, 2, 4], 9), ([3, 2, 4], 10), ([1300, 900, 700], 4)],
)
def test_covariance_is_scikit_learns_shrunk_one(counts, d):
    X, codes, E = make(counts, d=d)
    within = X - np.stack([X[codes == c].mean(axis=0) for c in range(len(counts))])[codes]
    n = len(X)
    scatter = within.T @ within / (n - len(counts))
    expected = shrunk_covariance(scatter, shrinkage=d / (n - 1 + d))
    found, covariance = covariance_of(X, codes, E)
    np.testing.assert_allclose(covariance, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(d), atol=1e-7)
    assert found.tail == n - 1 + d
    assert found.single_share == 0


@pytest.mark.parametrize("n", [2, 3, 8])
def test_one_sample_a_class_takes_the_scatter_of_what_text_leaves(n):
    """All classes single: the scatter of the sample means under the precision of their process."""
    X, codes, E = make([1] * n, d=6)
    statistics = statistics_of(X, codes, n)
    means, precision = estimate_means(statistics, tensor(E))
    found, covariance = covariance_of(X, codes, E)
    r = X[np.argsort(codes)] - means.common.numpy()
    W = r.T @ precision.numpy() @ r
    np.testing.assert_allclose(
        covariance, (W + np.trace(W) / (n - 1) * np.eye(6)) / (n - 1 + 6), rtol=1e-7, atol=1e-9
    )
    assert found.single_share == 1


@pytest.mark.parametrize("d", [3, 30])
def test_single_samples_of_a_mixed_set_count_by_their_share(d):
    """Two of five classes have one sample: in that share the spread of the means joins in."""
    X, codes, E = make([1, 4, 3, 1, 6], d=d)
    statistics = statistics_of(X, codes, 5)
    means, precision = estimate_means(statistics, tensor(E))
    found, covariance = covariance_of(X, codes, E)
    within = X - statistics.means.numpy()[codes]  # none of the single ones
    r = statistics.means.numpy() - means.common.numpy()
    W = within.T @ within + 0.4 * r.T @ precision.numpy() @ r
    freedom = 15 - 5 + 0.4 * 4
    expected = shrunk_covariance(W / freedom, shrinkage=d / (15 - 1 + d))
    np.testing.assert_allclose(covariance, expected, rtol=1e-7, atol=1e-9)
    assert found.single_share == pytest.approx(0.4)


@pytest.mark.parametrize("counts", [[4, 7, 3, 5, 2], [1] * 5, [4, 0, 1, 3, 0], [900, 300, 4, 1, 1]])
def test_where_the_origin_is_does_not_matter(counts):
    """Another origin moves the means along, and nothing else."""
    shift = 1e6 * np.random.default_rng(5).normal(size=6)
    for seed in range(5):
        X, codes, E = make(counts, e=3, seed=seed)
        one, other = (
            estimate_means(statistics_of(x, codes, 5), tensor(E))[0] for x in (X, X + shift)
        )
        assert other.text_spread == one.text_spread
        assert other.residual_spread == one.residual_spread
        np.testing.assert_allclose(other.means.numpy() - shift, one.means, atol=1e-6)
        np.testing.assert_allclose(other.covariance, one.covariance, rtol=1e-6)
        (_, near), (_, far) = (covariance_of(x, codes, E) for x in (X, X + shift))
        np.testing.assert_allclose(far, near, atol=1e-6)


@pytest.mark.parametrize("d", [4, 40])
def test_float32_features_are_summed_in_float64(d):
    X, codes, E = make([1000, 800, 700], d=d)
    X = (X + 100).astype(np.float32)
    (single, means), (double, expected) = (
        (estimate_covariance(statistics, *estimated), estimated[0])
        for x in (torch.from_numpy(X), tensor(X))
        for statistics in [ClassStatistics.of(x, torch.from_numpy(codes), 3)]
        for estimated in [estimate_means(statistics, tensor(E))]
    )
    for one, other in ((single.variances, double.variances), (means.means, expected.means)):
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_shots", [2, 4, 16])
def test_covariance_has_the_size_of_the_truth(n_shots):
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(50), n_shots)
    X = 3 * rng.normal(size=(50, 20))[codes] + rng.normal(size=(len(codes), 20))
    found, _ = covariance_of(X, codes, rng.normal(size=(50, 4)))
    assert found.variances.mean() == pytest.approx(1, rel=0.1)


def test_no_width_leaves_that_of_a_hundred_thousandth_of_the_features():
    for size in (1, 30):
        found, _ = covariance_of(size * np.ones((6, 4)), [0, 0, 1, 1, 2, 2], np.eye(3))
        np.testing.assert_allclose(found.variances.sqrt(), size * 1e-5)


# ------------------------------------------------------------------ class means


def brute_force(M, counts, sampled, K):
    """Posterior of the means by plain Gaussian conditioning, the common mean all but free."""
    prior = K + 1e5
    observed = prior[np.ix_(sampled, sampled)] + np.diag(1 / counts)
    gain = prior[:, sampled] @ np.linalg.inv(observed)
    return gain @ M, prior - gain @ prior[sampled]


@pytest.mark.parametrize("counts", [[4, 2, 7, 3, 5], [1, 1, 1, 1, 1], [4, 0, 1, 3, 0]])
@pytest.mark.parametrize("text", [True, False])
def test_means_and_their_covariance_are_the_bayes_posterior(counts, text):
    X, codes, E = make(counts)
    statistics = statistics_of(X, codes, 5)
    found, _ = estimate_means(statistics, tensor(E) if text else None)
    sampled = statistics.sampled.numpy()
    centred = E - E[sampled].mean(axis=0)
    G = centred @ centred.T
    G *= (len(sampled) - 1) / np.trace(G[np.ix_(sampled, sampled)])
    K = found.text_spread * G + found.residual_spread * np.eye(5)
    if not text:
        assert found.text_spread == 0
    M, counts = (a.numpy()[sampled] for a in (statistics.means, statistics.counts))
    means, covariance = brute_force(M, counts, sampled, K)
    np.testing.assert_allclose(found.means, means, atol=1e-3)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-3)


def test_without_text_it_is_shrinkage_to_the_common_mean():
    X, codes, _ = make([4, 4, 4])
    statistics = statistics_of(X, codes, 3)
    found, _ = estimate_means(statistics, None)
    M = statistics.means.numpy()
    weight = 1 / (1 + found.residual_spread * 4)
    np.testing.assert_allclose(found.means, weight * M.mean(axis=0) + (1 - weight) * M)


def test_single_samples_without_text_lie_a_fifth_nearer_to_each_other():
    """They vary by 1 within their class and by a quarter of that between classes."""
    X, codes, _ = make([1] * 7)
    found, _ = estimate_means(statistics_of(X, codes, 7), None)
    own = X[np.argsort(codes)]
    np.testing.assert_allclose(found.means, 0.8 * X.mean(axis=0) + 0.2 * own)


def test_equal_samples_of_a_class_are_its_mean():
    X = np.repeat(np.random.default_rng(0).normal(size=(4, 5)), 3, axis=0)
    found, _ = estimate_means(statistics_of(X, np.repeat(range(4), 3), 4), tensor(np.eye(4)))
    np.testing.assert_allclose(found.means, X[::3], atol=0.1 * np.ptp(X))


def test_units_and_row_order_do_not_matter():
    X, codes, E = make([4, 2, 7, 0, 1])
    order = np.random.default_rng(1).permutation(len(X))
    found, _ = estimate_means(statistics_of(X, codes, 5), tensor(E))
    other, _ = estimate_means(statistics_of(1e-3 * X[order], codes[order], 5), tensor(50 * E))
    assert found.text_spread == other.text_spread
    assert found.residual_spread == other.residual_spread
    np.testing.assert_allclose(other.means, 1e-3 * found.means)
    np.testing.assert_allclose(other.covariance, found.covariance)
    (_, small), (_, large) = (covariance_of(s * X, codes, E) for s in (1, 10))
    np.testing.assert_allclose(large, 100 * small)


@pytest.mark.parametrize(
    ("X", "codes"),
    [
        (np.ones((4, 3)), [0, 0, 1, 2]),
        (np.zeros((4, 3)), [0, 0, 1, 2]),
        (np.repeat(np.eye(3), 2, axis=0), [0, 0, 1, 1, 2, 2]),
        (np.eye(3)[:1], [1]),
        (np.eye(3)[:2], [1, 1]),
    ],
    ids=["constant", "zero", "duplicates", "one sample", "one class"],
)
@pytest.mark.parametrize("E", [np.eye(3), np.ones((3, 2)), None], ids=["text", "equal text", "no"])
def test_corner_cases_are_finite(X, codes, E):
    statistics = statistics_of(X, codes, 3)
    means, precision = estimate_means(statistics, None if E is None else tensor(E))
    covariance = estimate_covariance(statistics, means, precision)
    for values in (means.means, means.covariance, covariance.variances, covariance.basis):
        assert values.isfinite().all()
    assert (covariance.variances > 0).all()
