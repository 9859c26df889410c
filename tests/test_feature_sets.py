"""Feature sets: which way round class embeddings stand, and numbers of any type."""

import warnings

import numpy as np
import pytest
from feature_files import write_feature_set

from flowalign import FlowMatchingAligner
from flowalign.benchmark import load_feature_set
from flowalign.datasets import make_cross_modal


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(5, n_train=4, n_test=4, n_features=16, random_state=0)


@pytest.fixture
def load(data, tmp_path):
    """Write a set with some of its arrays changed, and read it."""
    return lambda **changes: load_feature_set(
        write_feature_set(tmp_path / "set.npz", data, **changes)
    )


@pytest.mark.parametrize("n_text_features", [2, 16])
def test_class_embeddings_in_columns_are_refused(n_text_features, load, data):
    """In a joint space d rows, and in a space of few dimensions fewer rows than classes."""
    columns = data.class_embeddings.vectors[:, :n_text_features].T
    with pytest.raises(ValueError, match=r"columns are as many as the classes: transpose it"):
        load(class_embeddings=columns)


def test_class_embeddings_that_may_stand_in_columns_are_warned_about(load, data):
    """They may be 9 classes, of which 5 have samples, or 5 classes in a space of 9."""
    vectors = data.class_embeddings.vectors
    with pytest.warns(UserWarning, match=r"shape \(9, 5\).*Transpose it if"):
        load(class_embeddings=vectors[:, :9].T)
    with pytest.warns(UserWarning, match=r"shape \(16, 6\).*Transpose it if"):
        load(class_embeddings=np.vstack([vectors, vectors[:1]]).T)


@pytest.mark.parametrize(
    "shape", [(5, 16), (5, 5), (5, 3), (5, 40), (9, 16), (40, 16), (40, 3), (16, 3)]
)
def test_class_embeddings_in_rows_are_taken(shape, load):
    """Names without samples, and spaces of any width."""
    vectors = np.random.default_rng(0).normal(size=shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load(class_embeddings=vectors)
    np.testing.assert_array_equal(loaded.class_embeddings.vectors, vectors.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool, np.float16])
def test_features_of_any_type_of_number(dtype, load, data):
    pixels = 100 * np.abs(data.X_train) > 5 if dtype is bool else 100 * np.abs(data.X_train) + 1
    loaded = load(X_train=pixels.astype(dtype))
    assert loaded.X_train.dtype == np.float32
    np.testing.assert_array_equal(loaded.X_train, pixels.astype(dtype).astype(np.float32))
    assert FlowMatchingAligner().fit(pixels.astype(dtype), data.y_train)
