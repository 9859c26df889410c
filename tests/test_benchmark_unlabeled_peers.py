"""Peers that learn from unlabelled rows and answer for others are what they are named after."""

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from flowalign.benchmark.unlabeled_peers import (
    UNLABELED,
    SelfTraining,
    Spreading,
    SSTextU,
    balanced,
)
from flowalign.datasets import make_cross_modal


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(
        4, n_train=3, n_test=40, n_features=12, misalignment=1, difficulty=2, random_state=1
    )


def fitted(peer, data):
    pool = data.X_test[:100]
    return peer.fit(data.X_train, data.y_train, data.class_embeddings, X_unlabeled=pool)


def rows_and_codes(data):
    known = np.searchsorted(np.unique(data.y_train), data.y_train)
    return np.concatenate([data.X_train, data.X_test[:100]]), np.append(known, np.full(100, -1))


def test_the_names_of_reports():
    assert list(UNLABELED) == [
        "LabelSpreading", "self-training", "TransCLIP", "StatA", "EM-Dirichlet", "SS-Text-U"
    ]  # fmt: skip
    inductive = [name for name, peer in UNLABELED.items() if peer.inductive]
    assert inductive == ["LabelSpreading", "self-training", "SS-Text-U"]


@pytest.mark.parametrize("alpha", [0.2, 0.8])
def test_spreading_is_scikit_learns(alpha, data):
    model = fitted(Spreading(9, alpha), data)
    expected = LabelSpreading(kernel="knn", n_neighbors=9, alpha=alpha, max_iter=100)
    expected.fit(*rows_and_codes(data))
    reached = expected.label_distributions_[-100:].sum(axis=1) > 0
    assert reached.sum() > 80
    np.testing.assert_allclose(
        model.transduction_proba_[reached], expected.label_distributions_[-100:][reached], atol=1e-5
    )
    codes = np.searchsorted(model.classes_, model.transduction_)
    np.testing.assert_array_equal(codes[reached], expected.transduction_[-100:][reached])
    np.testing.assert_allclose(
        model.predict_proba(data.X_test[100:]),
        expected.predict_proba(data.X_test[100:]),
        atol=1e-5,
    )


def test_rows_that_no_label_reaches_are_uniform():
    X = np.repeat(np.eye(6), 4, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(24, 6))
    y = np.repeat(["no", "yes"], 4)
    model = Spreading(3).fit(X[:8], y, X_unlabeled=X[8:])
    np.testing.assert_allclose(model.transduction_proba_, 0.5)
    np.testing.assert_allclose(model.predict_proba(X[8:] + 0.001), 0.5)
    assert model.predict_proba(X[4:8])[:, 1].min() > 0.9


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_self_training_is_scikit_learns(threshold, data):
    model = fitted(SelfTraining(threshold, C=300.0), data)
    logistic = LogisticRegression(C=300.0, max_iter=50)
    expected = SelfTrainingClassifier(logistic, threshold=threshold, max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected.fit(*rows_and_codes(data))
    assert (expected.labeled_iter_ > 0).sum() > 20
    for pool, found in (
        (data.X_test[:100], model.transduction_proba_),
        (data.X_test[100:], model.predict_proba(data.X_test[100:])),
    ):
        np.testing.assert_allclose(found, expected.predict_proba(pool), atol=1e-3)


def test_balanced_assignments_have_the_shares():
    logits = 3 * np.random.default_rng(0).normal(size=(50, 3))
    found = balanced(logits, np.array([0.5, 0.3, 0.2]), 200)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found.mean(axis=0), [0.5, 0.3, 0.2], atol=1e-6)
    # Scaling rows and columns is all that it does: ratios of odds stay.
    odds = np.log(found) - logits
    odds -= odds.mean(axis=0)
    np.testing.assert_allclose(odds - odds.mean(axis=1, keepdims=True), 0, atol=1e-8)
    np.testing.assert_allclose(balanced(logits, np.full(3, 1 / 3), 0), np.exp(logits))


def test_ss_text_u_is_the_formula(data):
    rows = np.concatenate([np.arange(3), np.arange(3, 12, 3)])  # 3, 1, 1 and 1 of the classes
    X, pool, n = data.X_train[rows], data.X_test[:100], 6
    model = SSTextU().fit(X, data.y_train[rows], data.class_embeddings, X_unlabeled=pool)
    codes, text = np.array([0, 0, 0, 1, 2, 3]), model.class_embeddings_.astype(float)
    weights = text
    for _ in range(3):  # temperature and number of rows of the pool are both 100
        norms = np.linalg.norm(weights, axis=1, keepdims=True)
        Q = np.exp(100 * pool @ (weights / norms).T)
        for _ in range(10):
            Q = Q / Q.sum(axis=0) * np.array([3, 1, 1, 1]) / 6
            Q = Q / Q.sum(axis=1, keepdims=True)
        weights = np.zeros_like(text)
        for c in range(4):
            own = X[codes == c]
            weights[c] = (
                text[c] + 100 * sum(q * x for q, x in zip(Q[:, c], pool, strict=True)) / 100
            )
            weights[c] += 100 * len(own) / 2 * own.sum(axis=0) / n
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    for found, asked in (
        (model.transduction_proba_, pool),
        (model.predict_proba(data.X_test), data.X_test),
    ):
        np.testing.assert_allclose(found, softmax(100 * asked @ weights.T, axis=1), atol=1e-3)
