"""Text and samples are weighed by what they say of samples that they have not seen."""

import numpy as np
import pytest
import torch
from gaussian_toy import refit_without, witnesses
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.metrics.pairwise import cosine_similarity

from flowalign.gaussian.evidence import PRIOR_MEDIAN, weigh
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.statistics import ClassStatistics


def test_calibration_recovers_the_weights_that_made_the_labels():
    rng = np.random.default_rng(0)
    samples, text = 30 * rng.normal(size=(2, 20_000, 6))
    text /= 10
    scores = 0.05 * samples + 0.6 * text
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    beta, tau = weigh(*map(torch.from_numpy, (samples, text, np.zeros(6), y)))
    assert beta == pytest.approx(0.05, rel=0.05)
    assert tau == pytest.approx(0.6, rel=0.05)


@pytest.mark.parametrize("n_classes", [2, 3, 12])
@pytest.mark.parametrize("reach", [1.0, 30.0])
def test_the_weights_are_the_stated_maximum(n_classes, reach, joint):
    """Against a plain minimisation of the penalised loss of the left-out samples.

    These are at the start of the flow: how far away the targets are does not matter yet.
    """
    X, codes, targets = joint
    kept = codes < n_classes
    X, codes, targets = X[kept], codes[kept], reach * targets[:n_classes]
    noisy = X + 0.3 * np.random.default_rng(0).normal(size=X.shape)
    prior = np.random.default_rng(1).dirichlet(np.full(n_classes, 3.0))
    found = weights(noisy, codes, targets, torch.tensor(prior).log())
    X, y, E = torch.from_numpy(noisy), torch.from_numpy(codes), torch.from_numpy(targets)
    squares = []
    for i, x in enumerate(noisy):
        mu, covariance = refit_without(X, y, E, i)
        squares.append(np.einsum("cd,de,ce->c", x - mu, np.linalg.inv(covariance), x - mu))
    distances = np.stack(squares)
    tail = len(X) - 1 + X.shape[1]
    samples = -tail / 2 * np.log1p(distances / tail)
    text = 100 * cosine_similarity(noisy, targets)

    def loss(log_weights):
        beta, tau = PRIOR_MEDIAN * np.exp(log_weights[0]), np.exp(log_weights[1])
        scores = beta * samples + tau * text + np.log(prior)
        log_p = scores - logsumexp(scores, axis=1, keepdims=True)
        return -log_p[np.arange(len(y)), codes].sum() + np.square(log_weights).sum() / 2

    best = minimize(loss, [0.5, -0.5], method="Nelder-Mead", options={"fatol": 1e-9}).x
    expected = PRIOR_MEDIAN * np.exp(best[0]), np.exp(best[1])
    np.testing.assert_allclose(found, expected, rtol=0.01)
    assert np.abs(best).max() > 0.1  # not where the search starts


def weights(X, codes, targets, log_prior=None, rows=None):
    C = len(targets)
    X, targets = torch.from_numpy(X), torch.from_numpy(targets)
    codes = torch.from_numpy(codes)
    model = GaussianModel.of(ClassStatistics.of(X, codes, C), targets)
    log_prior = torch.zeros(C, dtype=X.dtype) if log_prior is None else log_prior
    rows = torch.from_numpy(np.arange(len(X)) if rows is None else rows.copy())
    left_out = model.without_each(model.field(targets, log_prior), X[rows], codes[rows])
    return weigh(*witnesses(left_out, X[rows], model.within.tail), log_prior, codes[rows])


@pytest.fixture(scope="module")
def joint():
    """Features near their class embeddings; the residual is the same in every direction."""
    rng = np.random.default_rng(3)
    targets = rng.normal(size=(12, 40))
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    codes = np.repeat(np.arange(12), 6)
    return targets[codes] + 0.15 * rng.normal(size=(72, 40)), codes, targets


def test_the_weights_follow_the_evidence(joint):
    X, codes, targets = joint
    noisy = X + 0.2 * np.random.default_rng(0).normal(size=X.shape)
    right = weights(noisy, codes, targets)
    wrong = weights(noisy, codes, np.roll(targets, 1, axis=0))
    assert right[1] / right[0] > 10 * wrong[1] / wrong[0]
    assert wrong[1] < 0.1  # zero-shot is left where the samples speak against it


def test_the_weights_do_not_depend_on_the_order_of_rows_or_classes(joint):
    X, codes, targets = joint
    rows = np.random.default_rng(0).permutation(len(X))
    classes = np.random.default_rng(1).permutation(len(targets))
    shuffled = weights(X[rows], np.argsort(classes)[codes[rows]], targets[classes])
    np.testing.assert_allclose(shuffled, weights(X, codes, targets), rtol=1e-3)


def test_one_sampled_class_leaves_the_medians():
    X = np.random.default_rng(0).normal(size=(4, 3))
    assert weights(X, np.zeros(4, dtype=int), np.eye(3)) == (0.02, 1.0)


def test_a_density_that_is_right_is_believed():
    """In few dimensions, of many samples: far from the medians, with a weight of about 1."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(4), 250)
    X = 1.5 * rng.normal(size=(4, 3))[codes] + rng.normal(size=(1000, 3))
    samples, text = weights(X, codes, rng.normal(size=(4, 3)))
    assert samples == pytest.approx(1, rel=0.2)
    assert text < 0.02


def test_only_the_samples_that_were_left_out_count(joint):
    """Of large sets some: the others are in the model, and would flatter it."""
    X, codes, targets = joint
    noisy = X + 0.3 * np.random.default_rng(0).normal(size=X.shape)
    every, some = (weights(noisy, codes, targets, rows=r) for r in (None, np.arange(1, 72, 2)))
    again = weights(noisy, codes, targets, rows=np.arange(71, 0, -2))
    np.testing.assert_allclose(again, some, rtol=1e-3)
    assert not np.allclose(some, every, rtol=0.01)
