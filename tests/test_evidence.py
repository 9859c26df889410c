"""Text and samples are weighed by what they say of samples that they have not seen."""

import numpy as np
import pytest
import torch
from gaussian_toy import refit_without
from scipy.optimize import minimize
from scipy.special import log_softmax

from flowalign.gaussian.evidence import ONE_SHOT_SHAPE, Evidence, weigh
from flowalign.gaussian.left_out import LeftOutSamples
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.statistics import ClassStatistics


def cosines(A, B):
    A, B = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (A, B))
    return A @ B.T


def left_out(X, codes, targets, rows=None, *, joint=True):
    """What a model says of its samples, or of some of them."""
    rows = np.arange(len(X)) if rows is None else rows
    X, E = torch.from_numpy(X), torch.from_numpy(targets)
    model = GaussianModel.of(ClassStatistics.of(X, torch.from_numpy(codes), len(E)), E)
    some = X[rows].float(), torch.from_numpy(codes[rows])
    return LeftOutSamples(model, E, *some, joint=joint)


def weights(X, codes, targets, log_prior=None, rows=None, *, joint=True):
    said = left_out(X, codes, targets, rows, joint=joint)
    log_prior = np.zeros(len(targets)) if log_prior is None else log_prior
    codes = codes if rows is None else codes[rows]
    one_shot = np.bincount(codes).max() == 1
    return weigh(
        said.density, said.text, log_prior, codes, width=X.shape[1], one_shot=one_shot
    )  # fmt: skip


@pytest.fixture(scope="module")
def joint():
    """Features near their class embeddings; the residual is the same in every direction."""
    rng = np.random.default_rng(3)
    targets = rng.normal(size=(12, 40))
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    codes = np.repeat(np.arange(12), 6)
    return targets[codes] + 0.15 * rng.normal(size=(72, 40)), codes, targets


def refitted(X, codes, targets):
    """Density, raw and centred cosines of each sample, by plain refits without it."""
    x, y, E = (torch.from_numpy(a) for a in (X, codes, targets))
    tail = len(X) - 1 + X.shape[1]
    density, centred = [], []
    for i, row in enumerate(X):
        mu, covariance = refit_without(x, y, E, i)
        squares = np.einsum("cd,de,ce->c", row - mu, np.linalg.inv(covariance), row - mu)
        density.append(-tail / 2 * np.log1p(squares / tail))
        units = targets / np.linalg.norm(targets, axis=1, keepdims=True)
        middle = row - mu.mean(axis=0)
        centred.append(100 * cosines(middle[None], units - units.mean(axis=0))[0])
    return np.stack(density), 100 * cosines(X, targets), np.stack(centred)


def contrasts(said):
    return said - said.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("shots", [1, 2, 6])
@pytest.mark.parametrize("unsampled", [0, 2])
def test_witnesses_have_not_seen_the_sample(joint, shots, unsampled):
    """The sample has left means, covariance and middle, names without samples included."""
    X, codes, targets = joint
    kept = (np.arange(72) % 6 < shots) & (codes < 12 - unsampled)
    X, codes = X[kept], codes[kept]
    said = left_out(X, codes, targets)
    for found, expected in zip(
        (said.density, *said.text), refitted(X, codes, targets), strict=True
    ):
        np.testing.assert_allclose(contrasts(found), contrasts(expected), rtol=1e-3, atol=2e-3)
    raw = said.text[0] + said.common_text[:, None]
    np.testing.assert_allclose(raw, 100 * cosines(X, targets), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3, 12])
@pytest.mark.parametrize("reach", [1.0, 30.0])
def test_the_weights_are_the_stated_maximum(n_classes, reach, joint):
    """Against a plain search for the maximum of the penalised likelihood."""
    X, codes, targets = joint
    kept = codes < n_classes
    codes, targets = codes[kept], reach * targets[:n_classes]
    X = X[kept] + 0.3 * np.random.default_rng(0).normal(size=(6 * n_classes, 40))
    log_prior = np.log(np.random.default_rng(1).dirichlet(np.full(n_classes, 3.0)))
    found = weights(X, codes, targets, log_prior)
    density, raw, centred = refitted(X, codes, targets)
    spread = [np.sqrt(np.square(contrasts(said)).mean()) for said in (raw, centred)]
    means = np.array([0.5, *1 / np.array(spread)])  # 100 directions of 40, halved; one nat
    shapes, each = np.array([1, 0.5, 0.5]), np.arange(len(codes))

    def loss(logs):
        beta, tau, centred_tau = np.exp(logs) * means
        scores = beta * density + tau * raw + centred_tau * centred + log_prior
        right = log_softmax(scores, axis=1)[each, codes].sum()
        return -right + (shapes * (np.exp(logs) - logs)).sum()

    best = minimize(loss, [0.5, -0.5, 0], method="Nelder-Mead", options={"fatol": 1e-9}).x
    np.testing.assert_allclose(found, np.exp(best) * means, rtol=0.01)
    assert np.abs(best).max() > 0.1  # not where the search starts


def test_the_weights_follow_the_evidence(joint):
    X, codes, targets = joint
    noisy = X + 0.2 * np.random.default_rng(0).normal(size=X.shape)
    right = weights(noisy, codes, targets)
    wrong = weights(noisy, codes, np.roll(targets, 1, axis=0))
    assert right.text / right.density > 10 * wrong.text / wrong.density
    assert max(wrong.text, wrong.centred_text) < 0.1  # silent where the samples speak against it


def test_a_common_part_of_the_text_is_left_to_the_centred_witness(joint):
    """Zero-shot classification is drawn to one class by what all features share."""
    X, codes, targets = joint
    noisy = X + 0.2 * np.random.default_rng(0).normal(size=X.shape)
    gap = 3 * targets[0]  # all features lie towards one class embedding
    apart = weights(noisy + gap, codes, targets)
    level = weights(noisy, codes, targets)
    assert apart.text / apart.centred_text < 0.5 * level.text / level.centred_text


def test_the_weights_do_not_depend_on_the_order_of_rows_or_classes(joint):
    X, codes, targets = joint
    rows = np.random.default_rng(0).permutation(len(X))
    classes = np.random.default_rng(1).permutation(len(targets))
    shuffled = weights(X[rows], np.argsort(classes)[codes[rows]], targets[classes])
    np.testing.assert_allclose(shuffled, weights(X, codes, targets), rtol=1e-3)


@pytest.mark.parametrize("joint", [True, False])
def test_one_sampled_class_leaves_the_means_of_the_priors(joint):
    X = np.random.default_rng(0).normal(size=(4, 3))
    found = weights(X, np.zeros(4, dtype=int), np.eye(3), joint=joint)
    assert found.density == (0.5 if joint else 1)
    assert found.heeds_text == joint
    if joint:
        said = left_out(X, np.zeros(4, dtype=int), np.eye(3))
        spread = [np.sqrt(np.square(contrasts(w)).mean()) for w in said.text]
        assert found[1:] == pytest.approx((0.5, 0.5 * spread[0] / spread[1]))


def test_one_class_alone():
    X = np.random.default_rng(0).normal(size=(4, 3))
    found = weights(X, np.zeros(4, dtype=int), np.ones((1, 3)))
    assert found == Evidence(0.5, 0.5, 0.5)


def test_a_density_that_is_right_is_believed():
    """In few dimensions, of many samples: with a weight of about 1."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(4), 250)
    X = 1.5 * rng.normal(size=(4, 3))[codes] + rng.normal(size=(1000, 3))
    useless = rng.normal(size=(4, 3))
    found = weights(X, codes, useless)
    assert found.density == pytest.approx(1, rel=0.2)
    assert found.text < 0.02
    alone = weights(X, codes, useless, joint=False)
    assert alone.density == pytest.approx(1, rel=0.1)
    assert alone[1:] == (0, 0)


def test_in_many_dimensions_the_density_is_believed_a_little():
    X = np.random.default_rng(0).normal(size=(8, 400))
    of_one_class = weights(X, np.zeros(8, dtype=int), np.eye(1, 400), joint=False)
    assert of_one_class == Evidence(0.25)  # 100 directions of 400
    single = weights(X, np.arange(8), np.eye(8, 400), joint=False)  # held, as names say little
    assert single.density == pytest.approx(0.25, rel=2 / ONE_SHOT_SHAPE**0.5)


def test_only_the_samples_that_were_left_out_count(joint):
    """Of large sets some: the others are in the model, and would flatter it."""
    X, codes, targets = joint
    noisy = X + 0.3 * np.random.default_rng(0).normal(size=X.shape)
    every, some = (weights(noisy, codes, targets, rows=r) for r in (None, np.arange(1, 72, 2)))
    again = weights(noisy, codes, targets, rows=np.arange(71, 0, -2))
    np.testing.assert_allclose(again, some, rtol=1e-3)
    assert not np.allclose(some, every, rtol=0.01)


def test_equal_embeddings_are_no_evidence():
    X = np.random.default_rng(0).normal(size=(12, 5))
    found = weights(X, np.arange(12) // 4, np.ones((3, 5)))
    assert np.isfinite(found).all()
