"""TransCLIP and StatA minimise what their papers say, block by block."""

import itertools

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.special import log_softmax, softmax, xlogy
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.mixture import GaussianMixture

from flowalign.benchmark import gaussian_peers
from flowalign.benchmark.gaussian_peers import (
    Gaussians,
    StatA,
    TransCLIP,
    anchored,
    neighbors,
    shared_spread,
    spread,
)
from flowalign.datasets import make_cross_modal


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(
        4, n_train=3, n_test=30, n_features=12, misalignment=1, difficulty=2, random_state=1
    )


def fitted(peer, data):
    return clone(peer).fit(
        data.X_train, data.y_train, data.class_embeddings, X_unlabeled=data.X_test
    )


@pytest.fixture
def mixture():
    """Rows, soft classes and weights, (20, 5), (20, 3) and (20,)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 5)), rng.dirichlet(np.ones(3), size=20), rng.uniform(1, 2, size=20)


def test_neighbors_are_the_nearest_others():
    rows = np.random.default_rng(0).normal(size=(9, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.zeros((9, 9))
    for i in range(9):
        cosines = rows @ rows[i]
        others = [j for j in np.argsort(-cosines) if j != i][:3]
        for j in others:
            expected[i, j] += max(cosines[j], 0) / 2
            expected[j, i] += max(cosines[j], 0) / 2
    np.testing.assert_allclose(neighbors(rows).toarray(), expected)
    assert neighbors(rows[:2]).shape == (2, 2)


def test_densities_are_those_of_gaussians(mixture):
    rows, _, _ = mixture
    means, variances = rows[:3], np.square(rows[3:6]) + 0.1
    for diagonals in (variances, variances[:1]):
        found = Gaussians(means, diagonals).log_density(rows)
        expected = np.stack(
            [
                multivariate_normal(m, np.diag(v)).logpdf(rows)
                for m, v in zip(means, np.broadcast_to(diagonals, (3, 5)), strict=True)
            ],
            axis=1,
        )
        np.testing.assert_allclose(found - expected, (found - expected)[0, 0])


def test_gaussians_with_a_shared_spread_are_weighted_moments(mixture):
    rows, classes, weights = mixture
    found = shared_spread(rows, weights, classes)
    means, variance = np.zeros((3, 5)), np.zeros(5)
    for c in range(3):
        mass = sum(weights[i] * classes[i, c] for i in range(20))
        means[c] = sum(weights[i] * classes[i, c] * rows[i] for i in range(20)) / mass
        variance += sum(weights[i] * classes[i, c] * (rows[i] - means[c]) ** 2 for i in range(20))
    np.testing.assert_allclose(found.means, means)
    np.testing.assert_allclose(found.variances, [variance / weights.sum()])


def test_without_an_anchor_a_step_is_that_of_a_gaussian_mixture(mixture):
    """With means of one step of GaussianMixture from the same responsibilities."""
    rows, _, _ = mixture
    start = {"weights_init": np.full(3, 1 / 3), "means_init": rows[:3]}
    start["precisions_init"] = np.ones((3, 5))
    model = GaussianMixture(3, covariance_type="diag", reg_covar=0, max_iter=1, **start)
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(rows)
    first = Gaussians(rows[:3], np.ones((1, 5)))
    classes = softmax(first.log_density(rows), axis=1)
    found = anchored(rows, 0.0, first, classes)
    np.testing.assert_allclose(found.means, model.means_)
    np.testing.assert_allclose(found.variances, model.covariances_)


@pytest.mark.parametrize("alpha", [0.5, 3.0])
def test_anchored_gaussians_minimise_likelihood_and_divergence(alpha, mixture):
    rows, classes, _ = mixture
    anchors = Gaussians(rows[:3] + 1, np.square(rows[3:6]) + 0.5)

    def objective(means, variances):
        own = -(classes * Gaussians(means, variances).log_density(rows)).sum()
        ratio = (anchors.variances + np.square(anchors.means - means)) / variances
        return own + alpha * (ratio + np.log(variances / anchors.variances) - 1).sum() / 2

    best = anchored(rows, alpha, anchors, classes)
    lowest, rng = objective(*best), np.random.default_rng(1)
    for step in (1e-3, 0.1):
        for _ in range(20):
            means = best.means + step * rng.normal(size=best.means.shape)
            assert objective(means, best.variances) > lowest
            variances = best.variances * np.exp(step * rng.normal(size=best.means.shape))
            assert objective(best.means, variances) > lowest
    far = anchored(rows, 1e9, anchors, classes)
    np.testing.assert_allclose(far.means, anchors.means, rtol=1e-6)
    np.testing.assert_allclose(far.variances, anchors.variances, rtol=1e-6)


def test_a_feature_that_is_the_same_everywhere_does_not_divide_by_zero(mixture):
    rows, classes, weights = mixture
    rows[:, 2] = 0.5
    assert shared_spread(rows, weights, classes).variances[0, 2] > 0
    none = Gaussians(rows[:3], np.zeros((3, 5)))
    assert (anchored(rows, 1.0, none, classes).variances > 0).all()


def test_with_heavy_anchors_stata_is_their_classifier(data, monkeypatch):
    monkeypatch.setattr(gaussian_peers, "neighbors", lambda rows: csr_matrix((len(rows),) * 2))
    model = fitted(StatA(alpha=1e7), data)
    text, X, pool = model.class_embeddings_, model._rows[:12], model._pool
    zero_shot = log_softmax(100 * pool @ text.T, axis=1)
    shares = np.concatenate([np.eye(4)[model._known[:12]], np.exp(zero_shot)])
    rows = np.concatenate([X, pool])
    logits = zero_shot.astype(float)
    for c in range(4):
        variance = np.average(np.square(rows - text[c]), axis=0, weights=shares[:, c])
        logits[:, c] += multivariate_normal(text[c], np.diag(variance)).logpdf(pool)
    np.testing.assert_allclose(model.transduction_proba_, softmax(logits, axis=1), atol=1e-3)


@pytest.mark.parametrize("peer", [TransCLIP(gamma=0.2), StatA(), StatA(alpha=10.0)])
def test_the_objective_does_not_rise(peer, data, monkeypatch):
    seen = []
    original = type(peer)._estimator

    def watch(self, rows, known, classes, text, **setting):
        estimate = original(self, rows, known, classes, text, **setting)

        def kept(z):
            gaussians = estimate(z)
            seen.append((z.copy(), gaussians))
            return gaussians

        return kept

    monkeypatch.setattr(type(peer), "_estimator", watch)
    model = fitted(peer, data)
    rows, known = model._rows.astype(float), model._known
    asked = known < 0
    zero_shot = log_softmax(100 * rows @ model.class_embeddings_.T.astype(float), axis=1)
    W = neighbors(model._rows).toarray()
    start = seen[0][0].astype(float)
    own = spread(rows, start, model.class_embeddings_) / start.sum(axis=0)[:, None]

    def objective(z, gaussians):
        z = z.astype(float)
        log_p = Gaussians(*(a.astype(float) for a in gaussians)).log_density(rows)
        per_row = np.ones(len(rows))
        if isinstance(peer, TransCLIP):
            per_row[~asked] = 0.2 * asked.sum() / (~asked).sum()
        value = -(per_row[:, None] * z * log_p).sum() - (z * (W @ z)).sum() / 2
        if isinstance(peer, StatA):
            means, variances = gaussians
            ratio = (own + np.square(model.class_embeddings_ - means)) / variances
            value += peer.alpha * (ratio + np.log(variances)).sum() / 2
        return value + (xlogy(z, z) - peer.text_weight * z * zero_shot)[asked].sum()

    values = []
    for (z, gaussians), (z_next, _) in itertools.pairwise(seen):
        values += [objective(z, gaussians), objective(z_next, gaussians)]
    assert len(values) == 18
    assert values[-1] < values[0] - 1
    assert np.diff(values).max() < 1e-3
    for z, _ in seen:  # labelled rows keep their class
        np.testing.assert_array_equal(z[~asked], np.eye(4)[known[~asked]])
