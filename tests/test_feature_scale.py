"""Features whose common part, or one coordinate, is far larger than what tells classes apart."""

import warnings

import numpy as np
import pytest
from gaussian_toy import statistics_of
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowalign import FlowMatchingAligner
from flowalign.datasets import load_emoji, make_cross_modal
from flowalign.feature_scale import (
    LOUD_SHARE,
    loudest,
    warn_of_loud_column,
    within_variances,
)
from flowalign.sphere import LARGEST, unit_rows


def offset_classes(n_classes, offset, dtype, per_class=8):
    """X, y of Gaussian classes of unit spread far from the origin, in `dtype`."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((n_classes, 64)) + offset * rng.standard_normal(64)
    y = np.repeat(np.arange(n_classes), per_class)
    return (means[y] + rng.standard_normal((len(y), 64))).astype(dtype), y


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("n_classes", [2, 6])
@pytest.mark.parametrize("offset", [3_000, 30_000])
def test_a_common_part_takes_no_digits_from_the_read_out(offset, n_classes, normalize):
    X, y = offset_classes(n_classes, offset, np.float32, 58)
    train = np.arange(len(y)) % 58 < 8
    model = FlowMatchingAligner(normalize=normalize).fit(X[train], y[train])
    assert model.stop_scores_["accuracy"].min() > 0.95  # on samples held out in float32
    for n_steps in (0, 5):
        model.set_params(n_steps=n_steps)
        labels = model.predict(X[~train])
        assert (labels == y[~train]).mean() > 0.99
        # Of a limited temperature probabilities are nearly equal here; none is larger.
        proba = model.predict_proba(X[~train])
        np.testing.assert_array_equal(proba[np.arange(len(labels)), labels], proba.max(axis=1))
    if n_classes == 2:
        np.testing.assert_array_equal(model.decision_function(X[~train]) > 0, labels == 1)


@pytest.mark.parametrize("offset", [0, 100, 30_000])
def test_scores_are_never_in_another_order_than_probabilities(offset):
    X, y = offset_classes(6, offset, np.float32)
    model = FlowMatchingAligner().fit(X, y)
    scores, labels = model.decision_function(X), model.predict(X)
    np.testing.assert_array_equal(scores[np.arange(len(y)), labels], scores.max(axis=1))


@pytest.mark.parametrize("velocity_field", ["gaussian", "mlp"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_keep_their_length_may_have_no_squares_beyond_float32(dtype, velocity_field):
    X, y = offset_classes(3, 0, np.float64)
    X /= np.abs(X).max()
    model = FlowMatchingAligner(normalize=False, velocity_field=velocity_field, max_iter=3)
    large = (0.99 * LARGEST * X).astype(dtype)
    assert np.isfinite(model.fit(large, y, X_val=large, y_val=y).predict_proba(large)).all()
    message = r"{} has values up to 2\.0e\+18, whose squares .* below 1e\+18, or use normalize=True"
    for sign in (2, -2):
        beyond = np.abs(sign * LARGEST * X).astype(dtype) * np.sign(sign).astype(dtype)
        with pytest.raises(ValueError, match=message.format("X")):
            model.predict(beyond)
        with pytest.raises(ValueError, match=message.format("X_val")):
            model.fit(large, y, X_val=beyond, y_val=y)
        with pytest.raises(ValueError, match=message.format("X")):
            model.fit(beyond, y)


# ------------------------------------------------------------------ one loud coordinate


def statistics(X, y):
    classes, codes = np.unique(y, return_inverse=True)
    return statistics_of(X, codes, len(classes))


def loudest_within(X, y):
    return loudest(within_variances(statistics(X, y)))


def loud(loudness, width=64, column=5, per_class=8):
    X, y = offset_classes(6, 0, np.float64, per_class)
    X = X[:, :width]
    X[:, column] = loudness * np.random.default_rng(1).standard_normal(len(X))
    return X, y


@pytest.mark.parametrize("per_class", [1, 8])
def test_fit_names_a_coordinate_that_drowns_the_others(per_class):
    X, y = loud(100, per_class=per_class)
    with pytest.warns(UserWarning, match=r"Column 5 of X has \d\d% .* 64 .*StandardScal") as seen:
        FlowMatchingAligner().fit(X, y)
    assert seen[0].filename == __file__
    make_pipeline(StandardScaler(), FlowMatchingAligner()).fit(X, y)
    FlowMatchingAligner(normalize=False).fit(X, y)  # rows keep what is quiet


@pytest.mark.parametrize("offset", [0, 3_000])
def test_coordinates_alike_pass_without_a_word(offset):
    FlowMatchingAligner().fit(*offset_classes(6, offset, np.float32))


def test_in_few_coordinates_one_may_be_loud():
    FlowMatchingAligner().fit(*loud(100, width=15))


@pytest.mark.parametrize("width", [15, 16, 64])
@pytest.mark.parametrize("share", [0.49, 0.51])
def test_loud_is_more_than_half_of_sixteen_columns_or_more(share, width):
    size = np.ones(width)
    size[3] = np.sqrt((width - 1) * share / (1 - share))
    X, codes = np.stack([size, -size]), np.zeros(2, dtype=int)
    assert loudest_within(X, codes) == (3, pytest.approx(share))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warn_of_loud_column(statistics(X, codes))
    assert len(seen) == (share > 0.5 and width >= 16)


def test_what_tells_classes_apart_may_be_loud():
    X, y = offset_classes(6, 0, np.float64)
    X[:, 5] += 100 * y
    assert loudest_within(X, y)[1] < LOUD_SHARE
    assert loudest_within(X, np.zeros_like(y))[1] > 0.99


def test_the_share_is_of_the_variance_within_classes():
    X = np.array([[0.0, 5.0, 1.0], [2.0, 5.0, 1.0], [9.0, 1.0, 1.0], [9.0, 1.0, 2.0]])
    # Squares about class means: 2, 0, 0.5. About the mean of all: 66, 16, 0.75.
    assert loudest_within(X, np.array([0, 0, 4, 4])) == (0, pytest.approx(2 / 2.5))
    assert loudest_within(X, np.arange(4)) == (0, pytest.approx(66 / 82.75))
    assert loudest_within(X[[1, 1]], np.array([0, 0]))[1] == 0
    large, codes = np.repeat(X, 1000, axis=0), np.repeat([0, 0, 4, 4], 1000)  # of several blocks
    assert loudest_within(large, codes) == (0, pytest.approx(2 / 2.5))


def test_features_of_an_encoder_are_far_from_the_warning():
    emoji = load_emoji()
    rows = unit_rows(emoji.X_train, "X")
    assert loudest_within(rows, emoji.y_train)[1] < LOUD_SHARE / 5
    data = make_cross_modal(random_state=0)
    assert loudest_within(data.X_train, data.y_train)[1] < LOUD_SHARE / 2


# ------------------------------------------------------------------ a large common part


def common_part(offset, scale=1.0, **params):
    """A joint set whose features share an offset, its aligner, and test rows."""
    data = make_cross_modal(6, n_train=4, n_test=20, random_state=0)
    aligner = FlowMatchingAligner(data.class_embeddings, joint=True, **params)
    return (
        scale * (data.X_train + offset),
        data.y_train,
        aligner,
        scale * (data.X_test + offset),
        data,
    )


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("offset", [1.0, 10.0, 1000.0])
def test_noise_far_wider_than_the_classes_does_not_hide_them(scale, offset):
    """It is relative to the size of features, most of which they have in common."""
    X, y, aligner, X_test, data = common_part(offset, scale)
    assert aligner.fit(X, y).score(X_test, data.y_test) == 1
    cosines = cosine_similarity(aligner.transform(X_test), aligner.class_embeddings_)
    arrived = np.mean(aligner.classes_[cosines.argmax(axis=1)] == data.y_test)
    assert arrived > 0.7  # one in six is chance
    aligner.set_params(joint=False).fit(X, y)
    assert aligner.score(X_test, data.y_test) == 1
