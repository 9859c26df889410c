"""ClassEmbeddings: labels stay with their vectors, whatever looks at it."""

import copy
import pickle
import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import _safe_indexing

from flowalign import ClassEmbeddings, FlowMatchingAligner

VECTORS = {"dog": [0.0, 1.0], "cat": [1.0, 0.0], "emu": [0.6, 0.8]}


@pytest.fixture
def table():
    return ClassEmbeddings.from_dict(VECTORS)


def assert_same(a, b):
    assert a.labels.tolist() == b.labels.tolist()
    np.testing.assert_array_equal(a.vectors, b.vectors)


def test_all_forms_agree(table):
    labels, vectors = list(VECTORS), list(VECTORS.values())
    frame = pd.DataFrame(vectors, index=labels)
    assert_same(table, ClassEmbeddings(labels, vectors))
    assert_same(table, ClassEmbeddings(pd.Index(labels), np.array(vectors)))
    assert_same(
        table,
        ClassEmbeddings(np.array(labels, dtype=object), torch.tensor(vectors, dtype=torch.float64)),
    )
    assert_same(table, ClassEmbeddings.from_frame(frame))
    assert_same(table, ClassEmbeddings.from_dict(table.to_dict()))
    tensors = {label: torch.tensor(v, dtype=torch.float64) for label, v in VECTORS.items()}
    assert_same(table, ClassEmbeddings.from_dict(tensors))


@given(
    st.lists(
        st.one_of(st.integers(-(2**40), 2**40), st.floats(allow_nan=False, width=32)),
        min_size=1,
        max_size=30,
        unique=True,
    )
    | st.lists(st.text(alphabet="abcäß12 ", min_size=1), min_size=1, max_size=30, unique=True)
)
def test_a_label_keeps_its_vector(labels):
    vectors = np.arange(2.0 * len(labels)).reshape(-1, 2)
    table = ClassEmbeddings(labels, vectors)
    assert table.classes.tolist() == sorted(np.array(labels).tolist())
    stored = table.to_dict()
    for label, vector in zip(np.array(labels).tolist(), vectors, strict=True):
        np.testing.assert_array_equal(stored[label], vector)


def test_labels_in_digits_sort_as_strings():
    labels = [str(i) for i in range(12)]
    assert ClassEmbeddings(labels, np.eye(12)).classes[:3].tolist() == ["0", "1", "10"]


def test_several_rows_per_label():
    table = ClassEmbeddings(["b", "a", "b"], [[1.0, 0], [0, 1], [2, 0]])
    assert table.classes.tolist() == ["a", "b"]
    assert repr(table) == "ClassEmbeddings(2 classes, 3 rows, 2 dimensions)"
    np.testing.assert_array_equal(table.to_dict()["b"], [[1, 0], [2, 0]])
    assert_same(table, ClassEmbeddings.from_dict(table.to_dict()))


def test_subset_and_relabel(table):
    assert table.subset(["emu", "cat"]).classes.tolist() == ["cat", "emu"]
    encoder = LabelEncoder().fit(["dog", "cat", "emu"])
    codes = table.relabel(encoder)
    for label, code in zip(encoder.classes_, range(3), strict=True):
        np.testing.assert_array_equal(codes.to_dict()[code], VECTORS[label])
    with pytest.raises(ValueError, match=r"label_encoder does not know 'emu'.*subset"):
        table.relabel(LabelEncoder().fit(["dog", "cat"]))
    with pytest.raises(ValueError, match="'yak'"):
        table.subset(["yak", "cat"])


def test_immutable(table):
    with pytest.raises(ValueError, match="read-only"):
        table.vectors[0, 0] = 5
    with pytest.raises(AttributeError, match="immutable"):
        table.vectors = None
    with pytest.raises(AttributeError, match="immutable"):
        del table.labels
    restored = pickle.loads(pickle.dumps(table))
    assert_same(table, restored)
    with pytest.raises(ValueError, match="read-only"):
        restored.vectors[0, 0] = 5


def test_does_not_keep_the_callers_array():
    vectors = np.eye(2)
    table = ClassEmbeddings([0, 1], vectors)
    vectors[:] = 9
    np.testing.assert_array_equal(table.vectors, np.eye(2))


def test_copies_are_free(table):
    assert copy.deepcopy(table) is table
    assert clone(FlowMatchingAligner(table)).class_embeddings is table


def test_nothing_takes_it_for_a_column_of_samples(table):
    for name in ("__len__", "shape", "__array__", "__getitem__", "__iter__"):
        assert not hasattr(table, name)
    with pytest.raises((TypeError, ValueError)):
        _safe_indexing(table, [0, 1])


def test_repr_of_a_large_table_is_short_and_quick():
    table = ClassEmbeddings(np.arange(1000), np.ones((1000, 512)))
    start = time.perf_counter()
    text = repr(FlowMatchingAligner(table))
    assert time.perf_counter() - start < 1  # a dict of this size takes many seconds
    assert "ClassEmbeddings(1000 classes, 512 dimensions)" in text


@pytest.mark.parametrize(
    ("labels", "vectors", "error", "message"),
    [
        (["a", "b"], [[1.0]], ValueError, "2 labels and 1 rows"),
        ([], np.ones((0, 2)), ValueError, "labels must be a non-empty"),
        ([["a"]], [[1.0]], ValueError, "labels must be"),
        (["a", 1], [[1.0], [2.0]], TypeError, "labels mixes"),
        (np.array(["a", 1], dtype=object), [[1.0], [2.0]], TypeError, "labels mixes"),
        ([0.0, np.nan], [[1.0], [2.0]], ValueError, "1 missing labels"),
        (np.array(["a", None]), [[1.0], [2.0]], ValueError, "1 missing labels"),
        (["a", "b"], [[1.0], [np.nan]], ValueError, "NaN or infinity in rows 1"),
        (["a", "b"], np.ones((3, 2)), ValueError, "2 labels and 3 rows.*2 columns: transpose it"),
        (["a", "b"], [1.0, 2.0], ValueError, "vectors must be 2-D"),
        (["a", "b"], [[1.0, 2.0], [1.0]], ValueError, "vectors must be embeddings, numbers"),
        (["a", "b"], [["x"], ["y"]], ValueError, "vectors must be embeddings, numbers"),
    ],
)
def test_bad_tables(labels, vectors, error, message):
    with pytest.raises(error, match=message):
        ClassEmbeddings(labels, vectors)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ({}, "empty dict"),
        ({"a": [1.0], "b": [1.0, 2.0]}, "one common width"),
        ({"a": [[[1.0]]]}, "3-dimensional"),
    ],
)
def test_bad_dicts(embeddings, message):
    with pytest.raises(ValueError, match=message):
        ClassEmbeddings.from_dict(embeddings)
