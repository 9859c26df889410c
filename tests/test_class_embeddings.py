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


@pytest.mark.parametrize("n_rows", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("fit_argument", [True, False])
def test_bare_rows_must_be_as_many_as_the_classes(n_rows, fit_argument):
    """Fewer or more, an array of them says nothing about whose they are."""
    vectors = np.eye(8)[:n_rows]
    constructor, argument = (None, vectors) if fit_argument else (vectors, None)
    message = rf"has {n_rows} rows without labels but y has 3 classes.*np\.unique\(y\)"
    with pytest.raises(ValueError, match=message):
        FlowMatchingAligner(constructor).fit(np.eye(6, 8), [0, 1, 2, 0, 1, 2], argument)


def test_bare_rows_as_many_as_the_samples_are_refused_by_fit_alone():
    X, y = np.eye(3), ["c", "a", "b"]
    with pytest.raises(ValueError, match="as many as there are samples.*to the constructor"):
        FlowMatchingAligner().fit(X, y, np.eye(3))
    model = FlowMatchingAligner(np.eye(3), joint=True).fit(X, y)
    assert model.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(model.class_embeddings_, np.eye(3))


@pytest.mark.parametrize(("y", "codes"), [([0, 1, 2], True), ([0, 1, 3], False), ([-1, 0], False)])
def test_labels_that_look_like_codes_are_said_to(y, codes, table):
    with pytest.raises(ValueError, match="y has labels that class_embeddings lacks") as error:
        FlowMatchingAligner(table).fit(np.eye(len(y), 2) + 1, y)
    assert ("relabel" in str(error.value)) == codes
    assert str(y[0]) in str(error.value)
    assert "'cat', 'dog', 'emu'" in str(error.value)


def test_the_ensemble_of_prompts_is_the_mean_of_directions():
    """How long the embedding of a prompt is plays no part, unless lengths mean something."""
    table = ClassEmbeddings(["b", "a", "b"], [[3.0, 0], [0, 2], [0, 1]])
    X, y = np.eye(2), ["a", "b"]
    unit = FlowMatchingAligner(table, joint=True).fit(X, y).class_embeddings_
    np.testing.assert_allclose(unit, [[0, 1], [np.sqrt(0.5)] * 2])
    as_they_are = FlowMatchingAligner(table, joint=True, normalize=False).fit(X, y)
    np.testing.assert_allclose(as_they_are.class_embeddings_, [[0, 2], [1.5, 0.5]])


def test_rows_of_a_label_keep_their_order():
    rng = np.random.default_rng(0)
    labels, vectors = rng.integers(5, size=40), np.arange(40.0)[:, None]
    table = ClassEmbeddings(labels, vectors)
    for label, rows in table.to_dict().items():
        np.testing.assert_array_equal(rows, vectors[labels == label])


def test_a_subset_keeps_all_rows_of_its_labels_and_no_others():
    table = ClassEmbeddings(["b", "a", "b", "c"], np.eye(4))
    assert table.subset(["b"]).labels.tolist() == ["b", "b"]
    np.testing.assert_array_equal(table.subset(["b"]).vectors, np.eye(4)[[0, 2]])
    np.testing.assert_array_equal(table.subset(["c", "a"]).vectors, np.eye(4)[[1, 3]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_of_the_vectors_stays(dtype):
    table = ClassEmbeddings(["b", "a"], np.eye(2, dtype=dtype))
    assert table.vectors.dtype == dtype
    assert table.subset(["a"]).vectors.dtype == dtype
    assert not table.classes.flags.writeable
    assert not table.labels.flags.writeable


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
