"""Several views: a product of what their aligners say, over the views that a row has."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from two_views import NETWORK, ONE, OTHER, WIDTH, fitted, lacking, make_views

from flowalign import FlowMatchingAligner, MultiViewAligner, blocks
from flowalign.fields import KINDS

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(scope="module")
def data():
    return make_views()


@pytest.fixture(scope="module")
def both(data):
    """Fitted to two views, of which some samples lack either; no test changes it."""
    return fitted(data, lacking(data.X, one=[0, 5], other=[1, 9, 13]))


def outputs(aligner, X):
    methods = ("predict_proba", "predict_log_proba", "score_samples", "transform")
    return [getattr(aligner, method)(X) for method in methods]


# --------------------------------------------------------------------------------- one view


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unlabeled", [False, True])
@pytest.mark.parametrize("velocity_field", KINDS)
def test_one_view_is_its_aligner(data, velocity_field, unlabeled, dtype):
    given = {"X_unlabeled": data.X_test[::2, ONE].astype(dtype)} if unlabeled else {}
    params = NETWORK | {"velocity_field": velocity_field}
    X, X_test = (part[:, ONE].astype(dtype) for part in (data.X, data.X_test))
    alone = FlowMatchingAligner(data.tables[0], unknown_label="?", **params).fit(X, data.y, **given)
    views = [("one", FlowMatchingAligner(data.tables[0], **params), slice(None))]
    several = MultiViewAligner(views, unknown_label="?").fit(X, data.y, **given)
    assert_array_equal(several.view_weights_, [1])
    assert_array_equal(several.predict(X_test), alone.predict(X_test))
    for expected, found in zip(outputs(alone, X_test), outputs(several, X_test), strict=True):
        assert_allclose(found, expected, **CLOSE)
        assert found.dtype == expected.dtype
    assert_array_equal(several.support_scores_, alone.support_scores_)
    assert several.unknown_threshold_ == alone.unknown_threshold_


def test_one_view_is_its_aligner_with_class_prior_of_its_own(data):
    # Samples are not drawn by the prior; it counts once, beside what the view says.
    prior = np.array([0.1, 0.3, 0.2, 0.2, 0.2])
    X = data.X[:, ONE]
    even = FlowMatchingAligner(data.tables[0]).fit(X, data.y).predict_log_proba(X)
    views = [("one", FlowMatchingAligner(data.tables[0]), slice(None))]
    several = MultiViewAligner(views, class_prior=prior).fit(X, data.y)
    assert_allclose(several.predict_proba(X), softmax(even + np.log(prior), axis=1), atol=1e-6)


# ----------------------------------------------------------------------------- the product


def product(aligner, X, prior):
    """The formula, from what the aligners of the views say of themselves."""
    total = np.tile(np.log(prior), (len(X), 1))
    for weight, (_, view, columns) in zip(aligner.view_weights_, aligner.views_, strict=True):
        here = ~np.isnan(X[:, columns]).any(axis=1)
        said = view.predict_log_proba(X[here][:, columns]) - np.log(view.class_prior_)
        total[here] += weight * said
    return log_softmax(total, axis=1)


@pytest.mark.parametrize(
    ("class_prior", "expected"),
    [
        ("uniform", np.full(5, 0.2)),
        ("empirical", np.array([2, 5, 5, 5, 5]) / 22),
        ({f"class {c}": p for c, p in enumerate([0.1, 0.1, 0.2, 0.2, 0.4])}, None),
    ],
)
def test_probabilities_are_the_product_of_those_of_the_views(data, class_prior, expected):
    rows = np.concatenate([np.flatnonzero(data.y == "class 0")[:1], np.arange(4, 20)])
    several = fitted(data, data.X[rows], data.y[rows], class_prior=class_prior)
    expected = list(class_prior.values()) if expected is None else expected
    assert_allclose(several.class_prior_, expected)
    X = lacking(data.X_test, one=range(10), other=range(40, 50))
    assert_allclose(several.predict_log_proba(X), product(several, X, expected), atol=1e-5)


def test_predict_scores_and_probabilities_are_one_thing(data, both):
    X = lacking(data.X_test, one=range(10), other=range(40, 50))
    scores, proba = both.decision_function(X), both.predict_proba(X)
    assert_allclose(softmax(scores, axis=1), proba, **CLOSE)
    assert_allclose(np.exp(both.predict_log_proba(X)), proba, **CLOSE)
    assert_allclose(proba.sum(axis=1), 1)
    assert_array_equal(both.predict(X), both.classes_[proba.argmax(axis=1)])
    assert both.score(X, data.y_test) == (both.predict(X) == data.y_test).mean()


def test_two_classes_have_one_score(data):
    rows = np.isin(data.y, ["class 0", "class 1"])
    views = [("one", FlowMatchingAligner(), ONE), ("other", FlowMatchingAligner(), OTHER)]
    several = MultiViewAligner(views).fit(data.X[rows], data.y[rows])
    scores, proba = several.decision_function(data.X_test), several.predict_log_proba(data.X_test)
    assert_allclose(scores, proba[:, 1] - proba[:, 0], atol=1e-6)


def test_two_views_say_more_than_either(data, both):
    alone = [view.score(data.X_test[:, part], data.y_test) for _, view, part in both.views_]
    assert both.score(data.X_test, data.y_test) > max(alone) + 0.02


def test_scores_of_samples_are_the_weighted_sum(data, both):
    X, total = data.X_test, 0
    for weight, (_, view, columns) in zip(both.view_weights_, both.views_, strict=True):
        total += weight * view._read(X[:, columns], False, lambda rows: rows.ratios, 0)
    assert_allclose(both.score_samples(X), total.max(axis=1), rtol=1e-6)


def test_aligned_features_stand_side_by_side(data, both):
    X = lacking(data.X_test, one=range(10))
    aligned = both.transform(X)
    assert np.isnan(aligned[:10, ONE]).all()
    assert_allclose(aligned[10:, ONE], both.named_views_.one.transform(X[10:, ONE]), **CLOSE)
    assert_allclose(aligned[:, OTHER], both.named_views_.other.transform(X[:, OTHER]), **CLOSE)
    names = both.get_feature_names_out()
    assert len(names) == 2 * WIDTH
    assert names[0].startswith("one__")
    assert names[-1].startswith("other__")


# ------------------------------------------------------------------------- unknown rows


def test_rows_that_lack_a_view_are_judged_by_samples_that_have_theirs(data):
    several = fitted(data, unknown_label="?", unknown_rate=0.2)
    first = several.view_weights_[0]
    one = several.named_views_.one
    X = lacking(data.X_test, other=range(100))
    scores = first * one.score_samples(data.X_test[:, ONE])
    assert_allclose(several.score_samples(X), scores, rtol=1e-6)
    refused = scores < np.quantile(first * one.support_scores_, 0.2)
    assert 0 < refused.sum() < 100
    assert_array_equal(several.predict(X) == "?", refused)
    assert_array_equal(several.predict(np.vstack([X, data.X_test]))[:100] == "?", refused)


def test_the_threshold_is_a_quantile_of_samples_that_have_all_views(data):
    several = fitted(data, lacking(data.X, one=[0], other=[1]), unknown_rate=0.3)
    assert len(several.support_scores_) == len(data.X) - 2
    assert (np.diff(several.support_scores_) >= 0).all()
    assert several.unknown_threshold_ == np.quantile(several.support_scores_, 0.3)
    several.set_params(unknown_rate=2)
    with pytest.raises(AttributeError, match="unknown_rate"):
        _ = several.unknown_threshold_


def test_rows_of_no_class_are_refused():
    data = make_views(difficulty=1)
    several = fitted(data, unknown_label="?")
    strangers = np.random.default_rng(0).normal(size=(50, 2 * WIDTH))
    assert (several.predict(strangers) == "?").mean() > 0.9
    assert (several.predict(data.X_test) == "?").mean() < 0.2
    several.set_params(unknown_label=None)
    assert "?" not in several.predict(strangers)


def test_views_that_no_sample_has_together_refuse_nothing(data):
    half = len(data.X) // 2
    order = np.argsort(np.tile(np.arange(4), 5), kind="stable")
    X, y = lacking(data.X[order], one=range(half), other=range(half, 2 * half)), data.y[order]
    several = fitted(data, X, y, unknown_label="?")
    assert several.unknown_threshold_ == -np.inf
    assert "?" not in several.predict(data.X_test)
    strangers = np.random.default_rng(0).normal(size=(50, 2 * WIDTH))
    assert "?" in several.predict(lacking(strangers, one=range(50)))


def test_rows_of_no_class_in_y_are_dropped(data):
    X, y = np.vstack([data.X_test[:3], data.X]), np.concatenate([["?"] * 3, data.y])
    several = fitted(data, X, y, unknown_label="?")
    assert_array_equal(several.predict_proba(data.X), fitted(data).predict_proba(data.X))


# ------------------------------------------------------------------------- rows in parts


def test_rows_are_read_in_parts(data, both, monkeypatch):
    X = lacking(data.X_test, one=range(10), other=range(40, 50))
    whole = [*outputs(both, X), both.decision_function(X)]
    monkeypatch.setattr(blocks, "STREAM_BYTES", 8 * 5 * 7)  # seven rows
    for expected, found in zip(whole, [*outputs(both, X), both.decision_function(X)], strict=True):
        assert_allclose(found, expected, atol=1e-5)
    X[93, OTHER] = 0
    for read in (both.predict, both.score_samples, both.transform):
        with pytest.raises(ValueError, match=r"View 'other': X has rows of zeros.*: 93\."):
            read(X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_the_features(data, both, dtype):
    for found in [*outputs(both, data.X_test.astype(dtype)), both.decision_function(data.X_test)]:
        assert found.dtype in (dtype, np.float64)
    assert both.predict_proba(data.X_test.astype(dtype)).dtype == dtype


def test_a_row_of_pixels_may_be_dark(data):
    X = np.clip(data.X * 100 + 100, 0, 255).astype(np.uint8)
    X[0] = 0
    several = fitted(data, X)
    proba = several.predict_proba(X)
    assert_allclose(proba[1:], several.predict_proba(X.astype(float)[1:]), **CLOSE)
    with pytest.raises(ValueError, match=r"View 'one': X has rows of zeros.*: 0\."):
        several.predict(X.astype(float))


# --------------------------------------------------------------------- copies and zero shots


def test_copies_and_pickles_are_the_same(data, both):
    expected = both.predict_proba(data.X_test)
    for again in (copy.deepcopy(both), pickle.loads(pickle.dumps(both))):
        assert_array_equal(again.predict_proba(data.X_test), expected)
        assert again.unknown_threshold_ == both.unknown_threshold_
        again.partial_fit(data.X_test, data.y_test)
    assert_array_equal(both.predict_proba(data.X_test), expected)


def test_without_samples_views_are_zero_shot_classifiers():
    data = make_views(difficulty=1)
    several = fitted(data, data.X[:0], data.y[:0])
    assert_allclose(several.view_weights_, 2**-0.5)
    for _, view, columns in several.views_:
        assert view.n_steps_ == 0
        alone = FlowMatchingAligner(view.class_embeddings).fit(data.X[:0, columns], [])
        expected = alone.predict_proba(data.X_test[:, columns])
        assert_array_equal(view.predict_proba(data.X_test[:, columns]), expected)
    assert several.score(data.X_test, data.y_test) > 0.9
