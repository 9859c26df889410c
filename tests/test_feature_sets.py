"""Feature sets: what a file may hold, which rows are drawn, how pictures become one."""

import itertools
import json
import warnings

import numpy as np
import pytest
from benchmark_sets import write_small_set
from feature_files import write_feature_set
from sklearn.base import BaseEstimator

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.benchmark import load_feature_set
from flowalign.benchmark.feature_sets import encode_split
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


def test_draws(tmp_path):
    data = load_feature_set(write_small_set(tmp_path / "set.npz"))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        expected = [rng.permutation(np.where(data.y_train == c)[0])[:3] for c in range(4)]
        np.testing.assert_array_equal(data.draw(3, seed), np.concatenate(expected))
        assert set(data.draw(1, seed)) < set(data.draw(3, seed))
    assert len(data.draw(99, 0)) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"X_test": np.ones((32, 3))}, "X_train is 16 wide and X_test 3"),
        ({"X_test": np.full((32, 16), np.nan)}, "X_test should be a matrix of finite numbers"),
        ({"X_test": np.ones((32, 16), complex)}, "X_test should be a matrix of finite numbers"),
        ({"y_test": np.zeros(3, int)}, "y_test should have an integer code for each of 32 rows"),
        ({"y_train": np.repeat(["a", "b"], 10)}, "y_train should have an integer code"),
        (
            {"y_train": np.repeat([0, 4], 10)},
            r"shape \(4, 16\).*codes in y, up to 4",
        ),
        ({"X_train": np.zeros((0, 16)), "y_train": np.zeros(0, int)}, "X_train should be a matrix"),
        ({"y_train": np.repeat([None, 1], 10)}, "not an .npz file of plain arrays"),
    ],
)
def test_files_of_another_form_are_refused(changes, message, tmp_path):
    path = write_small_set(tmp_path / "set.npz", **changes)
    with pytest.raises(ValueError, match=message):
        load_feature_set(path)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match=r"set\.npz is not an \.npz file"):
        load_feature_set(path)


class Letters(BaseEstimator):
    """An encoder that reads the last letter of a path."""

    def __init__(self, model="a", cache=None):
        self.model = model
        self.cache = cache

    def fit(self):
        return self

    def transform(self, X):
        Letters.calls += 1
        return np.array([[ord(str(path)[-5]), len(str(path))] for path in X], dtype=np.float32)

    def class_embeddings(self, class_names, templates):
        assert templates == "a photo of a {}."
        return ClassEmbeddings(list(class_names), [[1.0, len(w)] for w in class_names.values()])


def test_a_benchmark_data_set_is_encoded_once(tmp_path):
    rows = {
        "train": [["b/1.jpg", 1, "bee"], ["a/2.jpg", 0, "ant"]],
        "val": [["a/4.jpg", 0, "ant"]],
        "test": [["b/3.jpg", 1, "bee"]],
    }
    pictures = tmp_path / "caltech-101" / "101_ObjectCategories"
    for path, *_ in itertools.chain(*rows.values()):
        (pictures / path).parent.mkdir(parents=True, exist_ok=True)
        (pictures / path).touch()
    listing = tmp_path / "caltech-101" / "split_zhou_Caltech101.json"
    listing.write_text(json.dumps(rows))
    Letters.calls = 0
    path = tmp_path / "out" / "features" / "Caltech101.npz"
    for _ in range(2):
        assert encode_split(tmp_path, "Caltech101", Letters(), path) == path
    encode_split(tmp_path, "Caltech101", Letters(cache="elsewhere"), path)
    assert Letters.calls == 2  # training and test pictures, once each
    with pytest.raises(ValueError, match=r"made by .*'a'.*not .*'b'"):
        encode_split(tmp_path, "Caltech101", Letters("b"), path)
    data = load_feature_set(path)
    assert data.y_train.tolist() == [1, 0]
    assert data.X_train[:, 0].tolist() == [ord("1"), ord("2")]
    assert data.y_test.tolist() == [1]
    np.testing.assert_allclose(data.class_embeddings.vectors, [[1, 3], [1, 3]])
    assert [p.name for p in path.parent.iterdir()] == ["Caltech101.npz"]
