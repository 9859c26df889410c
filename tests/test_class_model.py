"""Class means and covariance: against scikit-learn, against plain Bayes, and in corner cases."""

import numpy as np
import pytest
import torch
from sklearn.covariance import shrunk_covariance

from flowalign.class_model import RESIDUAL_SPREAD, Support, estimate_covariance, estimate_means


def tensor(array):
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def support_of(X, codes, n_classes):
    return Support.of(tensor(X), torch.from_numpy(np.asarray(codes)), n_classes)


def make(counts, d=6, e=5, seed=0, spread=1.0):
    """Features with the given number of samples a class, their codes, and class embeddings."""
    rng = np.random.default_rng(seed)
    counts = np.asarray(counts)
    codes = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    E = rng.normal(size=(len(counts), e))
    X = spread * (E @ rng.normal(size=(e, d)))[codes] + rng.normal(size=(len(codes), d))
    return X + 2.0, codes, E


def covariance_of(X, codes, E):
    support = support_of(X, codes, len(E))
    found = estimate_covariance(support, tensor(X), estimate_means(support, tensor(E)))
    return found, (found.basis * found.variances @ found.basis.T).numpy()


# ------------------------------------------------------------------ covariance


@pytest.mark.parametrize(("counts", "d"), [([9, 5, 7], 6), ([3, 2, 4], 30), ([40] * 5, 3)])
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


def test_one_sample_a_class_takes_the_scatter_of_what_text_leaves():
    """All classes single: the scatter of the sample means under the precision of their process."""
    X, codes, E = make([1] * 8, d=6)
    support = support_of(X, codes, 8)
    means = estimate_means(support, tensor(E))
    found, covariance = covariance_of(X, codes, E)
    r = X[np.argsort(codes)] - means.common.numpy()
    W = r.T @ means.precision.numpy() @ r
    np.testing.assert_allclose(
        covariance, (W + np.trace(W) / 7 * np.eye(6)) / (7 + 6), rtol=1e-7, atol=1e-9
    )
    assert found.single_share == 1


@pytest.mark.parametrize("n_shots", [2, 4, 16])
def test_covariance_has_the_size_of_the_truth(n_shots):
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(50), n_shots)
    X = 3 * rng.normal(size=(50, 20))[codes] + rng.normal(size=(len(codes), 20))
    found, _ = covariance_of(X, codes, rng.normal(size=(50, 4)))
    assert found.variances.mean() == pytest.approx(1, rel=0.1)


def test_no_width_leaves_positive_variances():
    found, _ = covariance_of(np.ones((6, 4)), [0, 0, 1, 1, 2, 2], np.eye(3))
    assert (found.variances > 0).all()


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
    support = support_of(X, codes, 5)
    found = estimate_means(support, tensor(E) if text else None)
    sampled = support.sampled.numpy()
    centred = E - E[sampled].mean(axis=0)
    G = centred @ centred.T
    G *= (len(sampled) - 1) / np.trace(G[np.ix_(sampled, sampled)])
    K = found.text_spread * G + found.residual_spread * np.eye(5)
    if not text:
        assert found.text_spread == 0
    means, covariance = brute_force(support.means.numpy(), support.counts.numpy(), sampled, K)
    np.testing.assert_allclose(found.means, means, atol=1e-3)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-3)


def test_without_text_it_is_shrinkage_to_the_common_mean():
    X, codes, _ = make([4, 4, 4])
    support = support_of(X, codes, 3)
    found = estimate_means(support, None)
    M = support.means.numpy()
    weight = 1 / (1 + found.residual_spread * 4)
    np.testing.assert_allclose(found.means, weight * M.mean(axis=0) + (1 - weight) * M)


def simulate(text_spread, residual_spread, n_classes=150, n_shots=4, d=40, seed=0):
    rng = np.random.default_rng(seed)
    E = rng.normal(size=(n_classes, 8))
    E -= E.mean(axis=0)
    E /= np.sqrt(np.square(E).sum() / n_classes)
    text = E @ rng.normal(size=(8, d))
    means = np.sqrt(text_spread) * text + np.sqrt(residual_spread) * rng.normal(size=text.shape)
    codes = np.repeat(np.arange(n_classes), n_shots)
    return means[codes] + rng.normal(size=(len(codes), d)), codes, E, means


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.2), (2.0, 0.05), (0.05, 1.0)])
def test_spreads_are_recovered(a, b):
    X, codes, E, _ = simulate(a, b)
    found = estimate_means(support_of(X, codes, len(E)), tensor(E))
    # The grid has steps of 1.37.
    assert found.text_spread == pytest.approx(a, rel=0.45)
    assert found.residual_spread == pytest.approx(b, rel=0.45)


def test_one_sample_a_class_shows_the_spread_of_the_text():
    X, codes, E, _ = simulate(2.0, RESIDUAL_SPREAD, n_shots=1)
    found = estimate_means(support_of(X, codes, len(E)), tensor(E))
    assert found.text_spread == pytest.approx(2.0, rel=0.45)


def test_equal_samples_of_a_class_are_its_mean():
    X = np.repeat(np.random.default_rng(0).normal(size=(4, 5)), 3, axis=0)
    found = estimate_means(support_of(X, np.repeat(range(4), 3), 4), tensor(np.eye(4)))
    np.testing.assert_allclose(found.means, X[::3], atol=0.1 * np.ptp(X))


def test_text_that_says_nothing_is_left_out():
    X, codes, E, _ = simulate(0.0, 0.5)
    assert estimate_means(support_of(X, codes, len(E)), tensor(E)).text_spread < 0.02


@pytest.mark.parametrize("n_shots", [1, 4])
def test_text_predicts_classes_without_samples_and_sharpens_the_others(n_shots):
    X, codes, E, means = simulate(2.0, 0.1, n_shots=n_shots)
    kept = codes >= 20
    support = support_of(X[kept], codes[kept], len(E))
    errors = {
        text: np.square(
            estimate_means(support, tensor(E) if text else None).means.numpy() - means
        ).mean(axis=1)
        for text in (True, False)
    }
    assert errors[True][:20].mean() < 0.4 * errors[False][:20].mean()
    assert errors[True][20:].mean() < errors[False][20:].mean()
    sample_means = np.square(support.means.numpy() - means[20:]).mean()
    assert errors[True][20:].mean() < sample_means


def test_units_and_row_order_do_not_matter():
    X, codes, E = make([4, 2, 7, 0, 1])
    order = np.random.default_rng(1).permutation(len(X))
    found = estimate_means(support_of(X, codes, 5), tensor(E))
    other = estimate_means(support_of(1e-3 * X[order], codes[order], 5), tensor(50 * E))
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
    support = support_of(X, codes, 3)
    means = estimate_means(support, None if E is None else tensor(E))
    covariance = estimate_covariance(support, tensor(X), means)
    for values in (means.means, means.covariance, covariance.variances, covariance.basis):
        assert values.isfinite().all()
    assert (covariance.variances > 0).all()


def test_one_sample_a_class_cannot_tell_what_text_leaves_from_noise():
    X, codes, E = make([1] * 6)
    found = estimate_means(support_of(X, codes, 6), tensor(E))
    assert found.residual_spread == RESIDUAL_SPREAD
