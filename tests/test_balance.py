"""Leaving one out in closed form equals leaving it out, and the balance follows the evidence."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from flowalign.balance import (
    PRIOR_MEDIAN,
    _calibrate,
    _spread_rows,
    balance,
    leave_one_out_distances,
)
from flowalign.class_model import Support, estimate_covariance, estimate_means


def fitted(counts, d=6, seed=0):
    """Support set and model with the given number of samples a class."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(counts)), counts)
    E = torch.from_numpy(rng.normal(size=(len(counts), 4)))
    X = torch.from_numpy(
        rng.normal(size=(len(counts), d))[codes] + rng.normal(size=(len(codes), d))
    )
    codes = torch.from_numpy(codes)
    support = Support.of(X, codes, len(counts))
    means = estimate_means(support, E)
    return X, codes, E, support, means, estimate_covariance(support, X, means)


def refitted_distances(X, codes, E, support, means, covariance, i):
    """The model is made again without sample i, from the text of its definition."""
    X, codes, E = X.numpy(), codes.numpy(), E.numpy()
    (n, d), C = X.shape, support.n_classes
    sampled = np.unique(codes)
    G = (E - E[sampled].mean(axis=0)) @ (E - E[sampled].mean(axis=0)).T
    G *= (len(sampled) - 1) / np.trace(G[np.ix_(sampled, sampled)])
    K = means.text_spread * G + means.residual_spread * np.eye(C)
    single = np.bincount(codes, minlength=C) == 1

    def model(rows):
        kept = np.unique(codes[rows])
        counts = np.bincount(codes[rows], minlength=C)[kept]
        M = np.stack([X[rows][codes[rows] == c].mean(axis=0) for c in kept])
        V = np.linalg.inv(K[np.ix_(kept, kept)] + np.diag(1 / counts))
        common = V.sum(axis=0) @ M / V.sum()
        mu = common + K[:, kept] @ V @ (M - common)
        W = np.zeros((d, d))
        for c in kept[~single[kept]]:
            r = X[rows][codes[rows] == c] - M[kept == c]
            W += r.T @ r
        if single.any():
            W += covariance.single_share * (M - common).T @ V @ (M - common)
        return mu, W

    _, W = model(np.arange(n))
    ridge = np.trace(W) / (n - 1)
    mu, W = model(np.delete(np.arange(n), i))
    inverse = np.linalg.inv((W + ridge * np.eye(d)) / covariance.divisor)
    r = X[i] - mu
    return np.einsum("cd,de,ce->c", r, inverse, r)


@pytest.mark.parametrize(
    "counts", [[4, 6, 3, 5], [2, 2, 2], [1, 1, 1, 1, 1], [3, 4, 0, 5]], ids=str
)
@pytest.mark.parametrize("d", [3, 25])
def test_leaving_one_out_equals_refitting(counts, d):
    model = fitted(counts, d)
    X, codes, _, support, means, covariance = model
    rows = torch.arange(len(X))
    distances = leave_one_out_distances(X, codes, support, means, covariance, rows)
    for i in range(len(X)):
        np.testing.assert_allclose(distances[i], refitted_distances(*model, i), rtol=1e-8)


def test_leaving_one_out_of_single_samples_in_a_mixed_set():
    """Exact for the single ones. A sample of a larger class leaves their share of the scatter."""
    model = fitted([1, 4, 1, 3, 5])
    X, codes, _, support, means, covariance = model
    rows = torch.arange(len(X))
    distances = leave_one_out_distances(X, codes, support, means, covariance, rows)
    for i in range(len(X)):
        rtol = 1e-8 if codes[i] in (0, 2) else 0.2
        np.testing.assert_allclose(distances[i], refitted_distances(*model, i), rtol=rtol)


def test_rows_may_be_chosen():
    X, codes, _, support, means, covariance = fitted([4, 6, 3, 5])
    rows = torch.tensor([3, 11, 5])
    some = leave_one_out_distances(X, codes, support, means, covariance, rows)
    every = leave_one_out_distances(X, codes, support, means, covariance, torch.arange(len(X)))
    torch.testing.assert_close(some, every[rows])


def test_calibration_recovers_the_weights_that_made_the_labels():
    rng = np.random.default_rng(0)
    samples, text = 30 * rng.normal(size=(2, 20_000, 6))
    text /= 10
    scores = 0.05 * samples + 0.6 * text
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    beta, tau = _calibrate(*map(torch.from_numpy, (samples, text, np.zeros(6), y)))
    assert beta == pytest.approx(0.05, rel=0.05)
    assert tau == pytest.approx(0.6, rel=0.05)


def test_the_balance_is_the_stated_maximum(joint):
    """Against a plain minimisation of the penalised loss of the left-out samples."""
    X, codes, targets = joint
    noisy = X + 0.3 * np.random.default_rng(0).normal(size=X.shape)
    prior = np.random.default_rng(1).dirichlet(np.full(12, 3.0))
    found = weights(noisy, codes, targets, torch.tensor(prior).log())
    X, y, E = torch.from_numpy(noisy), torch.from_numpy(codes), torch.from_numpy(targets)
    support = Support.of(X, y, 12)
    means = estimate_means(support, E)
    model = (X, y, E, support, means, estimate_covariance(support, X, means))
    distances = np.stack([refitted_distances(*model, i) for i in range(len(X))])
    tail = len(X) - 1 + X.shape[1]
    samples = -tail / 2 * np.log1p(distances / tail)
    text = 100 * noisy @ targets.T / np.linalg.norm(noisy, axis=1, keepdims=True)

    def loss(log_weights):
        beta, tau = PRIOR_MEDIAN * np.exp(log_weights[0]), np.exp(log_weights[1])
        scores = beta * samples + tau * text + np.log(prior)
        log_p = scores - logsumexp(scores, axis=1, keepdims=True)
        return -log_p[np.arange(len(y)), codes].sum() + np.square(log_weights).sum() / 2

    best = minimize(loss, [0.5, -0.5], method="Nelder-Mead", options={"fatol": 1e-9}).x
    expected = PRIOR_MEDIAN * np.exp(best[0]), np.exp(best[1])
    np.testing.assert_allclose(found, expected, rtol=0.01)
    assert abs(np.log(found[1])) > 0.1  # not where the search starts


def weights(X, codes, targets, log_prior=None):
    C = len(targets)
    X, targets = torch.from_numpy(X), torch.from_numpy(targets)
    codes = torch.from_numpy(codes)
    support = Support.of(X, codes, C)
    means = estimate_means(support, targets)
    covariance = estimate_covariance(support, X, means)
    log_prior = torch.zeros(C, dtype=X.dtype) if log_prior is None else log_prior
    return balance(X, codes, targets, support, means, covariance, log_prior)


@pytest.fixture(scope="module")
def joint():
    """Features near their class embeddings; the residual is the same in every direction."""
    rng = np.random.default_rng(3)
    targets = rng.normal(size=(12, 40))
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    codes = np.repeat(np.arange(12), 6)
    return targets[codes] + 0.15 * rng.normal(size=(72, 40)), codes, targets


def test_the_balance_follows_the_evidence(joint):
    X, codes, targets = joint
    noisy = X + 0.2 * np.random.default_rng(0).normal(size=X.shape)
    right = weights(noisy, codes, targets)
    wrong = weights(noisy, codes, np.roll(targets, 1, axis=0))
    assert right[1] / right[0] > 10 * wrong[1] / wrong[0]
    assert wrong[1] < 0.1  # zero-shot is left where the samples speak against it


def test_the_balance_does_not_depend_on_the_order_of_rows_or_classes(joint):
    X, codes, targets = joint
    rows = np.random.default_rng(0).permutation(len(X))
    classes = np.random.default_rng(1).permutation(len(targets))
    shuffled = weights(X[rows], np.argsort(classes)[codes[rows]], targets[classes])
    np.testing.assert_allclose(shuffled, weights(X, codes, targets), rtol=1e-3)


def test_one_sampled_class_leaves_the_medians():
    X = np.random.default_rng(0).normal(size=(4, 3))
    assert weights(X, np.zeros(4, dtype=int), np.eye(3)) == (PRIOR_MEDIAN, 1.0)


def test_many_rows_are_thinned_evenly():
    codes = torch.tensor([0] * 100 + [1] * 10 + [2] * 10 + [3])
    codes = codes[torch.randperm(121, generator=torch.Generator().manual_seed(0))]
    rows = _spread_rows(codes, 40)
    assert len(rows.unique()) == 40
    assert codes[rows].bincount().tolist() == [19, 10, 10, 1]
    assert len(_spread_rows(codes, 500).unique()) == 121
