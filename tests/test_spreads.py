"""How far class means lie apart, by their names and apart from them: what is most likely."""

import itertools

import numpy as np
import pytest
from gaussian_toy import make, statistics_of, tensor
from scipy.stats import multivariate_normal

from flowalign.gaussian.means import RESIDUAL_SPREAD, estimate_means


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
    found, _ = estimate_means(statistics_of(X, codes, len(E)), tensor(E))
    # The grid has steps of 1.37.
    assert found.text_spread == pytest.approx(a, rel=0.45)
    assert found.residual_spread == pytest.approx(b, rel=0.45)


def test_spreads_are_recovered_from_unequal_counts():
    """Most classes have few samples, and one has very many."""
    X, codes, E, _ = simulate(0.6, 0.3, n_classes=200, n_shots=30)
    counts = np.resize([1, 2, 2, 30], 200)
    kept = np.arange(len(X)) % 30 < counts[codes]
    found, _ = estimate_means(statistics_of(X[kept], codes[kept], len(E)), tensor(E))
    assert found.text_spread == pytest.approx(0.6, rel=0.45)
    assert found.residual_spread == pytest.approx(0.3, rel=0.45)


def log_likelihood(X, codes, E, a, b):
    """Of the differences between sample means, where the text explains a and the rest is b."""
    n, C = len(X), len(E)
    counts = np.bincount(codes)
    M = np.stack([X[codes == c].mean(axis=0) for c in range(C)])
    contrasts = np.linalg.svd(np.eye(C) - 1 / C)[0][:, : C - 1]
    G = (E - E.mean(axis=0)) @ (E - E.mean(axis=0)).T
    K = a * G * (C - 1) / np.trace(G) + (b + np.mean(1 / counts)) * np.eye(C)
    K, D = contrasts.T @ K @ contrasts, contrasts.T @ M
    if n > C:
        scale = np.square(X - M[codes]).sum() / (n - C) / X.shape[1]
    else:  # samples alone in their class say nothing of its width: whichever suits best
        scale = np.einsum("ik,ij,jk->", D, np.linalg.inv(K), D) / D.size
    return multivariate_normal(np.zeros(C - 1), scale * K).logpdf(D.T).sum()


@pytest.mark.parametrize("counts", [[3] * 8, [1, 1, 2, 9, 30, 1, 4, 2], [1] * 8], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_spreads_are_the_most_likely(counts, seed):
    X, codes, E = make(counts, e=3, d=12, seed=seed, spread=0.5)
    found, _ = estimate_means(statistics_of(X, codes, 8), tensor(E))
    a, b = found.text_spread, found.residual_spread
    best = log_likelihood(X, codes, E, a, b)
    factors = (0.7, 1, 1.4)  # a little more than the steps of the grid
    for f, g in itertools.product(factors, factors if max(counts) > 1 else (1,)):
        assert log_likelihood(X, codes, E, f * max(a, 1e-3), g * max(b, 1e-3)) <= best


def test_one_sample_a_class_shows_the_spread_of_the_text():
    X, codes, E, _ = simulate(2.0, RESIDUAL_SPREAD, n_shots=1)
    found, _ = estimate_means(statistics_of(X, codes, len(E)), tensor(E))
    assert found.text_spread == pytest.approx(2.0, rel=0.45)


def test_text_that_says_nothing_is_left_out():
    X, codes, E, _ = simulate(0.0, 0.5)
    assert estimate_means(statistics_of(X, codes, len(E)), tensor(E))[0].text_spread < 0.02


def test_one_class_shows_no_spread():
    """Nothing is known of the others but where it is."""
    X, _, E = make([3, 3])
    found, _ = estimate_means(statistics_of(X, np.ones(6, dtype=int), 2), tensor(E))
    assert (found.text_spread, found.residual_spread) == (0, RESIDUAL_SPREAD)
    np.testing.assert_allclose(found.means, np.tile(X.mean(axis=0), (2, 1)))


def test_names_that_differ_by_rounding_alone_are_no_text():
    """Even where the classes lie just as the rounding does."""
    X, codes, E, _ = simulate(4.0, 0.0, n_classes=20)
    statistics = statistics_of(X, codes, len(E))
    nearly_equal = [tensor(1 + size * E) for size in (1e-3, 1e-7, 1e-15, 0)]
    some, *none = (estimate_means(statistics, table)[0] for table in nearly_equal)
    without, _ = estimate_means(statistics, None)
    assert some.text_spread == estimate_means(statistics, tensor(E))[0].text_spread > 1
    for found in none:
        assert found.text_spread == 0
        np.testing.assert_array_equal(found.means, without.means)


@pytest.mark.parametrize("n_shots", [1, 4])
def test_text_predicts_classes_without_samples_and_sharpens_the_others(n_shots):
    X, codes, E, means = simulate(2.0, 0.1, n_shots=n_shots)
    kept = codes >= 20
    statistics = statistics_of(X[kept], codes[kept], len(E))
    errors = {
        text: np.square(
            estimate_means(statistics, tensor(E) if text else None)[0].means.numpy() - means
        ).mean(axis=1)
        for text in (True, False)
    }
    assert errors[True][:20].mean() < 0.4 * errors[False][:20].mean()
    assert errors[True][20:].mean() < errors[False][20:].mean()
    sample_means = np.square(statistics.means.numpy()[20:] - means[20:]).mean()
    assert errors[True][20:].mean() < sample_means


def test_one_sample_a_class_cannot_tell_what_text_leaves_from_noise():
    X, codes, E = make([1] * 6)
    found, _ = estimate_means(statistics_of(X, codes, 6), tensor(E))
    assert found.residual_spread == RESIDUAL_SPREAD
