"""EM-Dirichlet is expectation-maximisation of a mixture of Dirichlet distributions."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, log_softmax, psi, softmax

from flowalign.benchmark import dirichlet_peer
from flowalign.benchmark.dirichlet_peer import MOST_CONCENTRATED, EMDirichlet, dirichlet
from flowalign.datasets import make_cross_modal


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(
        4, n_train=3, n_test=30, n_features=12, misalignment=1, difficulty=2, random_state=1
    )


def test_parameters_are_the_most_likely():
    rng = np.random.default_rng(0)
    truth = np.array([[2.0, 5.0, 0.3], [30.0, 1.0, 8.0]])
    log_rows = [np.log(rng.dirichlet(a, size=5000)) for a in truth]
    log_means = np.stack([rows.mean(axis=0) for rows in log_rows])
    found = dirichlet(log_means, np.ones((2, 3)), n_steps=30)
    np.testing.assert_allclose(psi(found) - psi(found.sum(axis=1, keepdims=True)), log_means)
    np.testing.assert_allclose(found, truth, rtol=0.1)


def log_likelihood(parameters, log_means):
    """Mean log-density of the rows of each class."""
    constants = gammaln(parameters.sum(axis=1)) - gammaln(parameters).sum(axis=1)
    return constants + ((parameters - 1) * log_means).sum(axis=1)


def test_no_step_is_worse():
    rng = np.random.default_rng(1)
    log_means = np.log(rng.dirichlet(np.full(4, 0.2), size=(30, 3))).mean(axis=1)
    parameters, before = np.exp(rng.normal(scale=2, size=(30, 4))), -np.inf
    for _ in range(10):
        value = log_likelihood(parameters, log_means)
        assert (value >= before - 1e-9).all()
        before, parameters = value, dirichlet(log_means, parameters, n_steps=1)


def test_a_single_row_has_no_maximum_and_a_bound_holds():
    found = dirichlet(np.log([[0.2, 0.3, 0.5]]), np.ones((1, 3)), n_steps=200)
    assert 1e3 < found.sum() < MOST_CONCENTRATED
    np.testing.assert_allclose(found / found.sum(), [[0.2, 0.3, 0.5]], atol=0.01)


def test_rounds_are_expectation_and_maximisation(data, monkeypatch):
    """The likelihood of labelled and unlabelled rows rises; classes are the posterior's."""
    seen = []
    original = dirichlet_peer.dirichlet

    def watch(log_means, parameters):
        seen.append((log_means, original(log_means, parameters)))
        return seen[-1][1]

    monkeypatch.setattr(dirichlet_peer, "dirichlet", watch)
    model = EMDirichlet(30.0).fit(
        data.X_train, data.y_train, data.class_embeddings, X_unlabeled=data.X_test
    )
    rows, known = model._rows, model._known
    log_rows = log_softmax(30.0 * (rows @ model.class_embeddings_.T).astype(float), axis=1)
    features, asked = np.exp(log_rows), known < 0
    features /= features.sum(axis=1, keepdims=True)
    classes = np.where(asked[:, None], features, np.eye(4)[known])
    likelihoods = []
    for log_means, parameters in seen:
        shares = classes[asked].mean(axis=0)
        expected = classes.T @ log_rows / classes.sum(axis=0)[:, None]
        np.testing.assert_allclose(log_means, expected, rtol=1e-6)
        joint = np.stack(
            [
                np.log(p) + stats.dirichlet(a).logpdf(features.T)
                for a, p in zip(parameters, shares, strict=True)
            ],
            axis=1,
        )
        evidence = np.logaddexp.reduce(joint, axis=1)
        right = (joint - np.log(shares))[np.arange(len(rows)), known]
        likelihoods.append(np.where(asked, evidence, right).sum())
        classes[asked] = softmax(joint[asked], axis=1)
    assert len(likelihoods) == 20
    # The first classes are no posterior: rises count from the second round on.
    assert np.diff(likelihoods[1:]).min() > -1e-6
    assert likelihoods[-1] > likelihoods[1]
    np.testing.assert_allclose(model.transduction_proba_, classes[asked], atol=1e-6)
