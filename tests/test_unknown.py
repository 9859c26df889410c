"""Rows that look like no class: scores, threshold, the label of the unknown."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

import flowalign
from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import make_cross_modal

KNOWN = 6


@pytest.fixture(scope="module")
def data():
    """Ten classes, of which the first six are known; labels as strings and as numbers."""
    return make_cross_modal(10, n_train=8, n_test=40, n_features=48, difficulty=1.5, random_state=0)


@pytest.fixture(scope="module", params=["strings", "numbers"])
def labels(request, data):
    """Labels of training and test rows, the table of known classes, and what unknown rows are."""
    names = data.class_names
    if request.param == "strings":
        train, test, classes, unknown = data.y_train, data.y_test, names[:KNOWN], "none of these"
    else:
        train, test = (np.searchsorted(names, y) for y in (data.y_train, data.y_test))
        classes, unknown = np.arange(KNOWN), -1
    return train, test, ClassEmbeddings(classes, data.class_embeddings.vectors[:KNOWN]), unknown


@pytest.fixture
def small(velocity_field):
    def make(*args, **params):
        settings = {"max_iter": 5, "n_blocks": 1, "random_state": 0}
        return FlowMatchingAligner(
            *args, velocity_field=velocity_field, **settings | params
        )  # fmt: skip

    return make


@pytest.fixture
def setting(data, labels, small):
    """A fitted aligner without a label for the unknown, test rows, labels, and who is known."""
    train, test, table, unknown = labels
    known = np.isin(train, table.classes)
    aligner = small(table).fit(data.X_train[known], train[known])
    return aligner, data.X_test, test, np.isin(test, table.classes), unknown


def test_known_rows_score_higher(setting):
    aligner, X, _, known, _ = setting
    scores = aligner.score_samples(X)
    assert scores.shape == (len(X),)
    assert np.mean(scores[known][:, None] > scores[~known]) > 0.9  # the area under the curve
    assert scores.dtype == X.dtype
    aligner.set_params(n_steps=0)
    np.testing.assert_array_equal(aligner.score_samples(X), scores)


def test_both_fields_have_the_same_score(data):
    table = data.class_embeddings
    one, other = (
        FlowMatchingAligner(table, velocity_field=field, max_iter=1, n_blocks=1, random_state=0)
        .fit(data.X_train, data.y_train)
        for field in ("gaussian", "mlp")
    )  # fmt: skip
    np.testing.assert_allclose(
        one.score_samples(data.X_test), other.score_samples(data.X_test), rtol=1e-5
    )
    np.testing.assert_array_equal(one.support_scores_, other.support_scores_)


def test_the_threshold_is_a_quantile_of_the_support_scores(setting):
    aligner, X, _, known, unknown = setting
    assert len(aligner.support_scores_) == 8 * KNOWN
    assert (np.diff(aligner.support_scores_) >= 0).all()
    for rate in (0.05, 0.3):
        aligner.set_params(unknown_rate=rate)
        assert aligner.unknown_threshold_ == pytest.approx(
            np.quantile(aligner.support_scores_, rate)
        )
    aligner.set_params(unknown_label=unknown)
    refused = np.mean(aligner.predict(X)[known] == unknown)
    assert 0.15 < refused < 0.6


def test_a_row_at_the_threshold_is_known(setting):
    aligner, X, _, _, unknown = setting
    scores = aligner.score_samples(X)
    aligner.support_scores_ = np.sort(scores)[10:11]
    refused = aligner.set_params(unknown_label=unknown).predict(X) == unknown
    np.testing.assert_array_equal(np.sort(scores[refused]), np.sort(scores)[:10])


def test_rows_below_it_are_unknown_and_nothing_else_changes(setting):
    aligner, X, y, known, unknown = setting
    before, proba, scores = aligner.predict(X), aligner.predict_proba(X), aligner.score_samples(X)
    stages = list(aligner.staged_predict(X))
    aligner.set_params(unknown_label=unknown)  # after the fit
    below = scores < aligner.unknown_threshold_
    labels = aligner.predict(X)
    assert (labels[below] == unknown).all()
    np.testing.assert_array_equal(labels[~below], before[~below])
    assert labels.dtype.kind == before.dtype.kind
    np.testing.assert_array_equal(aligner.predict_proba(X), proba)
    assert proba.shape == (len(X), KNOWN)
    assert unknown not in aligner.classes_
    for stage, stage_before in zip(aligner.staged_predict(X), stages, strict=True):
        np.testing.assert_array_equal(stage, np.where(below, unknown, stage_before))
    assert np.mean(labels[~known] == unknown) > 0.5
    assert aligner.score(X, np.where(known, y, unknown)) > np.mean(before == y)


def test_unknown_rows_of_y_are_no_class(data, labels, small):
    """With them or without, what is fitted is the same; they count when scored."""
    train, test, table, unknown = labels
    foreign = ~np.isin(train, table.classes)
    y = np.where(foreign, unknown, train)
    aligner = small(table, unknown_label=unknown).fit(data.X_train, y)
    without = small(table, unknown_label=unknown).fit(data.X_train[~foreign], train[~foreign])
    np.testing.assert_array_equal(aligner.classes_, table.classes)
    np.testing.assert_array_equal(aligner.predict(data.X_test), without.predict(data.X_test))
    np.testing.assert_array_equal(aligner.support_scores_, without.support_scores_)
    truth = np.where(np.isin(test, table.classes), test, unknown)
    expected = np.mean(aligner.predict(data.X_test) == truth)
    assert aligner.score(data.X_test, truth) == expected


def test_class_embeddings_without_labels_follow_the_known_ones(data):
    codes = np.searchsorted(data.class_names, data.y_train)
    y = np.where(codes < KNOWN, codes, -1)
    rows = data.class_embeddings.vectors[:KNOWN]
    aligner = FlowMatchingAligner(rows, unknown_label=-1).fit(data.X_train, y)
    np.testing.assert_array_equal(aligner.classes_, np.arange(KNOWN))


def test_validation_rows_of_no_class_are_dropped(data, labels, small):
    train, test, table, unknown = labels
    known = np.isin(train, table.classes)
    truth = np.where(np.isin(test, table.classes), test, unknown)
    of_known = truth != unknown
    one, other = (
        small(table, unknown_label=unknown).fit(
            data.X_train[known], train[known], X_val=data.X_test[rows], y_val=truth[rows]
        )
        for rows in (np.arange(len(test)), of_known)
    )
    for name, values in one.stop_scores_.items():
        np.testing.assert_array_equal(values, other.stop_scores_[name])


# ------------------------------------------------------------------ in the company of others


def test_a_pipeline_and_a_search_over_the_rate(data, labels, small):
    train, _, table, unknown = labels
    y = np.where(np.isin(train, table.classes), train, unknown)
    pipe = make_pipeline(Normalizer(), small(table, unknown_label=unknown))
    scores = cross_val_score(pipe, data.X_train, y, cv=2, error_score="raise")
    assert (scores > 0.5).all()
    name = "flowmatchingaligner__unknown_rate"
    search = GridSearchCV(pipe, {name: [0.01, 0.2, 0.9]}, cv=2, error_score="raise")
    search.fit(data.X_train, y)
    assert search.best_params_[name] < 0.9
    assert clone(search.best_estimator_)[-1].unknown_label == unknown
    assert search.score_samples(data.X_test).shape == (len(data.X_test),)


def test_it_is_kept_in_a_file(setting, tmp_path):
    aligner, X, _, _, unknown = setting
    aligner.set_params(unknown_label=unknown, unknown_rate=0.2)
    flowalign.save(aligner, tmp_path / "model")
    for kept in (flowalign.load(tmp_path / "model"), flowalign.SavedAligner(tmp_path / "model")):
        np.testing.assert_array_equal(kept.predict(X), aligner.predict(X))
        np.testing.assert_array_equal(kept.score_samples(X), aligner.score_samples(X))
    assert flowalign.SavedAligner(tmp_path / "model").score_samples(X[:0]).shape == (0,)


def test_float64_is_scored_in_float64(setting):
    aligner, X, *_ = setting
    single, double = (aligner.score_samples(X.astype(t)) for t in (np.float32, np.float64))
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(aligner.score_samples(X[:3].astype(float)), double[:3], rtol=1e-12)


@pytest.mark.parametrize("form", [pd.Series, list, torch.tensor], ids=["series", "list", "tensor"])
def test_forms_of_labels(form, data):
    codes = np.searchsorted(data.class_names, data.y_train)
    y = np.where(codes < KNOWN, codes, -1)
    aligner = FlowMatchingAligner(unknown_label=-1).fit(data.X_train, form(y))
    np.testing.assert_array_equal(aligner.classes_, np.arange(KNOWN))


# ------------------------------------------------------------------ little to go by


def test_one_sample_a_class(data, small):
    first = np.unique(data.y_train, return_index=True)[1][:KNOWN]
    aligner = small(data.class_embeddings.subset(data.y_train[first]))
    aligner.fit(data.X_train[first], data.y_train[first])
    known = np.isin(data.y_test, data.y_train[first])
    scores = aligner.score_samples(data.X_test)
    assert np.mean(scores[known][:, None] > scores[~known]) > 0.75
    assert np.isfinite(aligner.unknown_threshold_)


@pytest.mark.parametrize("n_samples", [0, 1])
def test_too_few_samples_refuse_nothing(n_samples, data, small):
    aligner = small(data.class_embeddings, unknown_label="none", joint=True)
    aligner.fit(data.X_train[:n_samples], data.y_train[:n_samples])
    assert aligner.unknown_threshold_ == -np.inf
    assert "none" not in aligner.predict(data.X_test)
    if not n_samples:
        cosines = data.X_test @ aligner.class_embeddings_.T
        cosines /= np.linalg.norm(data.X_test, axis=1, keepdims=True)
        np.testing.assert_allclose(
            aligner.score_samples(data.X_test), 100 * cosines.max(axis=1), rtol=1e-4
        )


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        ("class 2", ValueError, "unknown_label='class 2' is the label of a class"),
        (-1, TypeError, "unknown_label=-1 must be a string, as the labels of the classes are"),
        (np.nan, TypeError, "unknown_label must be a string, a whole number or None"),
        (["none"], TypeError, "unknown_label must be a string, a whole number or None"),
    ],
)
def test_a_label_that_cannot_be(label, error, message, data, small):
    with pytest.raises(error, match=message):
        small(unknown_label=label).fit(data.X_train, data.y_train, data.class_embeddings)
    aligner = small().fit(data.X_train, data.y_train).set_params(unknown_label=label)
    with pytest.raises(error, match=message):
        aligner.predict(data.X_test)
    with pytest.raises(error, match=message):
        next(aligner.staged_predict(data.X_test))


def test_a_string_beside_numbers_is_refused(data):
    codes = np.searchsorted(data.class_names, data.y_train)
    with pytest.raises(TypeError, match="unknown_label='none' must be a number"):
        FlowMatchingAligner(unknown_label="none").fit(data.X_train, codes)


@pytest.mark.parametrize("label", [-0.5, np.inf, 10**30, 2**63])
def test_a_number_that_is_no_label_is_refused(label, data):
    codes = np.searchsorted(data.class_names, data.y_train)
    with pytest.raises(TypeError, match="unknown_label"):
        FlowMatchingAligner(unknown_label=label).fit(data.X_train, codes)


@pytest.mark.parametrize(
    ("start", "dtype", "unknown"),
    [(2**60, np.int64, -1.0), (2**63, np.uint64, 0), (0, np.uint8, -1), (0, np.int8, 1000)],
)
def test_labels_of_any_integer_type_keep_their_digits(start, dtype, unknown, data):
    classes = np.array([start + k for k in range(1, 1 + KNOWN)], dtype=dtype)
    codes = np.searchsorted(data.class_names, data.y_train)
    known = codes < KNOWN
    X, y = data.X_train[known], classes[codes[known]]
    aligner = FlowMatchingAligner(unknown_label=unknown).fit(X, y)
    predicted = aligner.predict(data.X_train)
    assert set(predicted.tolist()) == {*classes.tolist(), int(unknown)}
    kept = predicted[known] != int(unknown)
    assert np.mean(predicted[known][kept] == y[kept]) > 0.9


@pytest.mark.parametrize(
    ("labels", "unknown"),
    [
        (np.arange(2**63, 2**63 + 10, dtype=np.uint64), -1),
        (np.datetime64("2020-01-01") + np.arange(10), -1),
    ],
    ids=["large", "dates"],
)
def test_a_label_that_fits_no_array_with_the_classes_is_refused(labels, unknown, data):
    y = labels[np.searchsorted(data.class_names, data.y_train)]
    with pytest.raises(TypeError, match="unknown_label=-1 and the labels of the classes, of dtype"):
        FlowMatchingAligner(unknown_label=unknown).fit(data.X_train, y)


def test_validation_data_without_a_known_class_are_refused(data):
    aligner = FlowMatchingAligner(data.class_embeddings, unknown_label="none")
    y_val = ["none"] * len(data.X_test)
    with pytest.raises(ValueError, match="y_val has no labels of classes"):
        aligner.fit(data.X_train, data.y_train, X_val=data.X_test, y_val=y_val)


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, np.nan, "a"])
def test_a_rate_that_is_none(rate, data):
    with pytest.raises((TypeError, ValueError), match="unknown_rate must be"):
        FlowMatchingAligner(unknown_rate=rate).fit(data.X_train, data.y_train)
    aligner = FlowMatchingAligner().fit(data.X_train, data.y_train)
    with pytest.raises((TypeError, ValueError), match="unknown_rate must be"):
        aligner.set_params(unknown_rate=rate).predict(data.X_test)
    assert not hasattr(aligner, "unknown_threshold_")
    assert "FlowMatchingAligner" in aligner._repr_html_()  # it can be shown all the same
