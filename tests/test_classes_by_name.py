"""Classes that are known by name alone, beside others with samples."""

import copy

import numpy as np
import pytest

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import make_cross_modal

N_CLASSES, BY_NAME = 24, 8  # the last ones


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(
        N_CLASSES, n_train=4, n_test=20, n_features=64, difficulty=2.0, random_state=0
    )


@pytest.fixture(scope="module", params=["joint", "mapped"])
def fitted(data, request):
    """The default, and one to which all classes are alike; the names; test rows of these."""
    labels, vectors = data.class_embeddings.labels, data.class_embeddings.vectors
    if request.param == "mapped":
        vectors = vectors @ np.random.default_rng(0).normal(size=(64, 80)) / 8
    table, names = ClassEmbeddings(labels, vectors), labels[-BY_NAME:]
    known = ~np.isin(data.y_train, names)
    default, alike = (
        FlowMatchingAligner(table, class_prior=prior).fit(data.X_train[known], data.y_train[known])
        for prior in ("uniform", np.full(N_CLASSES, 1 / N_CLASSES))
    )
    assert default.joint_ == (request.param == "joint")
    return default, alike, names


def test_a_name_counts_twice_beside_classes_with_samples(fitted):
    default, alike, names = fitted
    by_name = np.isin(default.classes_, names)
    odds = default.class_prior_ / default.class_prior_[~by_name][0]
    np.testing.assert_allclose(odds, np.where(by_name, 2, 1))
    np.testing.assert_array_equal(alike.class_prior_, 1 / N_CLASSES)


def test_its_odds_are_twice_as_high_and_its_evidence_is_the_same(data, fitted):
    default, alike, names = fitted
    assert default.gaussian_model_.evidence == alike.gaussian_model_.evidence
    by_name = np.isin(default.classes_, names)
    here = ~by_name.argmax()  # a class with samples
    odds = [
        p / p[:, [here]] for p in (model.predict_proba(data.X_test) for model in (default, alike))
    ]
    # Up to the cosines at the stop, where rows travel to classes by their weights.
    ratio = np.median(odds[0] / odds[1], axis=0)
    np.testing.assert_allclose(ratio, np.where(by_name, 2, 1), rtol=0.1)


def test_such_classes_are_found_more_often_and_both_kinds_more_evenly(data, fitted):
    default, alike, names = fitted
    of_names = np.isin(data.y_test, names)

    def recalls(model):
        right = model.predict(data.X_test) == data.y_test
        return np.array([right[of_names].mean(), right[~of_names].mean()])

    after, before = recalls(default), recalls(alike)
    assert after[0] > before[0]
    assert 2 / (1 / after).sum() > 2 / (1 / before).sum()  # the harmonic mean


def test_where_every_class_has_samples_nothing_is_favoured(data):
    default, alike = (
        FlowMatchingAligner(data.class_embeddings, class_prior=prior).fit(
            data.X_train, data.y_train
        )
        for prior in ("uniform", np.full(N_CLASSES, 1 / N_CLASSES))
    )
    np.testing.assert_array_equal(
        default.decision_function(data.X_test), alike.decision_function(data.X_test)
    )
    np.testing.assert_array_equal(default.transform(data.X_test), alike.transform(data.X_test))


def test_zero_steps_stay_zero_shot_classification(data, fitted):
    zero_shot = (copy.copy(model).set_params(n_steps=0) for model in fitted[:2])
    found, expected = (model.predict(data.X_test) for model in zero_shot)
    np.testing.assert_array_equal(found, expected)
