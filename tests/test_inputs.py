"""Tensors, arrays, frames and lists of them are the same to all that takes arrays.

Every wrong input gets a ValueError or TypeError that names the argument.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.encoders import CallableEncoder
from flowalign.inputs import as_numpy, label_values

X = np.random.default_rng(0).normal(size=(12, 6))
Y = np.repeat(["a", "b", "c"], 4)
E = dict(zip("abc", np.random.default_rng(1).normal(size=(3, 6)), strict=True))


def altered(array, value, index=(2, 1)):
    array = np.array(array, dtype=float)
    array[index] = value
    return array


BAD_DATA = [
    (altered(X, np.nan), Y, E, ValueError, "X contains NaN"),
    (altered(X, np.inf), Y, E, ValueError, "X contains infinity"),
    (altered(X, 0, 2), Y, E, ValueError, r"X has rows of zeros.*: 2\..*normalize=False"),
    (X[:, :, None], Y, E, ValueError, "dim 3"),
    (X[0], Y, E, ValueError, "1D array"),
    (X[:0], Y[:0], None, ValueError, "0 sample"),
    (X + 1j, Y, E, ValueError, "Complex data"),
    (csr_array(X), Y, E, TypeError, "[Ss]parse"),
    (np.full((12, 6), "x"), Y, E, ValueError, "could not convert string"),
    (X, Y[:5], E, ValueError, "inconsistent numbers of samples"),
    (X, None, E, ValueError, "requires y"),
    (X, np.linspace(0, 1, 12), None, ValueError, "[Cc]ontinuous|Unknown label type"),
    (X, np.where(Y == "a", None, Y), E, ValueError, "y has 4 missing labels"),
    (X, [*Y[:-1].tolist(), np.nan], E, ValueError, "y has 1 missing labels"),
    (X, pd.Series([*Y[:-1], pd.NA], dtype="string"), E, ValueError, "y has 1 missing labels"),
    (X, pd.Series([0] * 11 + [pd.NA], dtype="Int64"), None, ValueError, "y has 1 missing labels"),
    (X, [*torch.arange(11) % 3, None], None, ValueError, "y has 1 missing labels"),
    (X, pd.Series([*torch.arange(11) % 3, pd.NA]), None, ValueError, "y has 1 missing labels"),
    ([*([*row] for row in torch.tensor(X[1:])), [None] * 6], Y, E, ValueError, "X contains NaN"),
    (X, [*Y[:-1].tolist(), 3], E, TypeError, "y mixes strings with other types"),
    (torch.tensor(X).to_sparse(), Y, E, TypeError, r"X is a tensor.*sparse.*X\.to_dense\(\)"),
    (torch.tensor(X).cfloat(), Y, E, ValueError, "Complex data"),
    ([*X.tolist()[:-1], [1.0]], Y, E, ValueError, "X must have rows of one width"),
    (pd.Series([*X[:-1], None]), Y, E, ValueError, "X must have rows of one width"),
    (X, Y, torch.ones(3, 6).cfloat(), ValueError, "class_embeddings must be embeddings, numbers"),
    (X, np.stack([Y, Y], axis=1), E, ValueError, "y should be a 1d array"),
    (X, Y, {"a": E["a"], "b": E["b"]}, ValueError, "class_embeddings lacks: 'c'"),
    (X, Y, {}, ValueError, "class_embeddings is an empty dict"),
    (X, Y, {**E, "b": [1.0, 2.0]}, ValueError, "class_embeddings must map every label"),
    (X, Y, {**E, "b": altered(E["b"], np.nan, 0)}, ValueError, "NaN or infinity in rows 1"),
    (X, Y, {**E, "b": np.zeros(6)}, ValueError, "class_embeddings has rows of zeros.*: 1"),
    (X, Y, list(E.values())[:2], ValueError, "2 rows without labels but y has 3 classes"),
    (X, Y, np.ones((6, 3)), ValueError, "6 rows without labels.*3 columns: transpose it"),
    (X, Y, np.ones((12, 3)), ValueError, "12 rows without labels.*3 columns: transpose it"),
    (X, Y, pd.DataFrame(E), ValueError, "y has labels.*They are its columns: transpose it"),
    (X, Y, np.ones((12, 6)), ValueError, "class_embeddings.*ClassEmbeddings"),
    (X, Y, np.ones(3), ValueError, "class_embeddings must be 2-D"),
    (X, Y, "embeddings.npy", ValueError, "class_embeddings must be"),
    (X, Y, [[1.0, 2.0], [1.0], [3.0]], ValueError, "class_embeddings must be embeddings, numbers"),
    (X, np.arange(12) % 3, E, ValueError, "lacks: 0, 1, 2.*integer codes.*relabel"),
]  # fmt: skip


@pytest.mark.parametrize(("X", "y", "class_embeddings", "error", "message"), BAD_DATA)
def test_bad_data(X, y, class_embeddings, error, message):
    with pytest.raises(error, match=message):
        FlowMatchingAligner(max_iter=2, n_blocks=1).fit(X, y, class_embeddings)


def test_class_embeddings_in_columns_are_refused_in_the_constructor():
    for vectors in (np.ones((6, 3)), torch.ones(6, 3), np.ones((2, 3)).tolist()):
        with pytest.raises(ValueError, match="3 columns: transpose it"):
            FlowMatchingAligner(vectors).fit(X, Y)


def test_opposite_rows_of_a_label_leave_no_direction():
    table = ClassEmbeddings(["a", "a", "b", "c"], [[1.0, 0], [-1, 0], [0, 1], [1, 1]])
    with pytest.raises(ValueError, match="averaged per label, has rows of zeros.*: 0"):
        FlowMatchingAligner(max_iter=2, n_blocks=1).fit(X, Y, table)


def test_bad_features_at_predict():
    model = FlowMatchingAligner(max_iter=2, n_blocks=1, random_state=0).fit(X, Y, E)
    for bad, message in [
        (X[:, :5], "X has 5 features, but FlowMatchingAligner is expecting 6"),
        (altered(X, np.nan), "X contains NaN"),
        (altered(X, 0, 2), "X has rows of zeros"),
    ]:
        for method in (model.predict, model.transform, model.predict_proba, model.trajectory):
            with pytest.raises(ValueError, match=message):
                method(bad)


# ------------------------------------------------------------------ the door


def rows_of(array, dtype=torch.float64):
    """Tensors with a gradient, one a row."""
    return [torch.tensor(row, dtype=dtype, requires_grad=True) for row in array]


def column_of(rows):
    """A column whose cells are tensors; pandas itself would ask them for arrays."""
    cells = np.empty(len(rows), dtype=object)
    for place, row in enumerate(rows):
        cells[place] = row
    return pd.Series(cells)


FORMS = {
    "gradient": lambda A: torch.tensor(A, requires_grad=True),
    "parameter": lambda A: torch.nn.Parameter(torch.tensor(A)),
    "negative view": lambda A: (
        torch.complex(torch.zeros(A.shape).double(), -torch.tensor(A)).conj().imag
    ),
    "list of tensors": rows_of,
    "lists of numbers in tensors": lambda A: [rows_of(row) for row in A],
    "tuple of many kinds": lambda A: (A[0], A[1].tolist(), *rows_of(A[2:])),
    "column": lambda A: pd.Series(list(A)),
    "column of lists": lambda A: pd.Series(A.tolist()),
    "column of tensors": lambda A: column_of(rows_of(A)),
    "frame with a column of arrays": lambda A: pd.DataFrame({"x": list(A)}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_array(form):
    found = as_numpy(FORMS[form](X), "X")
    np.testing.assert_array_equal(found, X)
    assert found.dtype == X.dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["tensor", "list", "lists"])
def test_tensors_keep_their_dtype_but_for_16_bits(dtype, form):
    tensor = torch.tensor(X).to(dtype).requires_grad_()
    given = {"tensor": tensor, "list": list(tensor), "lists": [list(row) for row in tensor]}[form]
    found = as_numpy(given, "X")
    assert found.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    np.testing.assert_array_equal(found, tensor.detach().double().numpy())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_tensors_on_cuda():
    tensor = torch.tensor(X, device="cuda", requires_grad=True)
    for given in (tensor, list(tensor), [[row] for row in tensor], pd.Series(list(tensor))):
        np.testing.assert_array_equal(np.squeeze(as_numpy(given, "X")), X)
    codes = torch.arange(3, device="cuda").repeat_interleave(4)
    prior = torch.full((3,), 1 / 3, device="cuda")
    model = FlowMatchingAligner(class_prior=prior, device="cuda")
    model.fit(tensor, codes, list(tensor[::4]), X_val=tensor, y_val=list(codes))
    assert model.score(tensor, codes) > 0.5


def test_arrays_pass_as_they_are(tmp_path):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    frame = pd.DataFrame(X).assign(word="x")
    for given in (X, X.astype(np.float32), mapped, csr_array(X), frame, X[:0], "X", None):
        assert as_numpy(given, "X") is given


@pytest.mark.parametrize("module", ["polars", "pyarrow"])
def test_frames_and_columns_of_other_libraries(module):
    library = pytest.importorskip(module)
    A = X.astype(np.float32)
    columns = {f"f{i}": A[:, i] for i in range(6)}
    if module == "polars":
        frame, nested = library.DataFrame(columns), library.DataFrame({"x": list(A)})
        column, names = nested["x"], library.Series([*Y.tolist()[:-1], None])
    else:
        frame, nested = library.table(columns), library.table({"x": list(A)})
        column, names = nested["x"], library.array([*Y.tolist()[:-1], None])
    for given in (frame, nested, column):
        found = as_numpy(given, "X")
        np.testing.assert_array_equal(found, A)
        assert found.dtype == np.float32
    with pytest.raises(ValueError, match="y has 1 missing labels"):
        label_values(names, "y")
    model = FlowMatchingAligner(E).fit(frame, Y)
    assert model.feature_names_in_.tolist() == list(columns)
    assert model.transform(frame).dtype == np.float32
    plain = FlowMatchingAligner(E).fit(nested, Y)
    assert not hasattr(plain, "feature_names_in_")
    np.testing.assert_array_equal(plain.predict_proba(column), model.predict_proba(frame))
    swapped = frame.select(list(columns)[::-1])
    with pytest.raises(ValueError, match="feature names"):
        model.predict(swapped)


@pytest.mark.parametrize("dtype", ["Float32", "float32", "Float64"])
def test_frames_keep_their_dtype(dtype):
    frame = pd.DataFrame(X).astype(dtype)
    model = FlowMatchingAligner(E).fit(frame, Y)
    assert model.transform(frame).dtype == np.dtype(dtype.lower())


def test_tensors_are_taken_wherever_arrays_are():
    codes = np.searchsorted(list(E), Y)
    table = ClassEmbeddings(range(3), list(E.values()))
    expected = FlowMatchingAligner(table).fit(X, codes, X_val=X, y_val=codes)
    labels = [torch.tensor(c) for c in codes]
    for vectors in (
        {c: [torch.tensor(v).requires_grad_()] for c, v in zip(range(3), E.values(), strict=True)},
        ClassEmbeddings(torch.arange(3), rows_of(E.values())),
        column_of(rows_of(E.values())),
        column_of(rows_of(E.values())).iloc[::-1],
        rows_of(E.values()),
    ):
        model = FlowMatchingAligner(class_prior=torch.full((3,), 1 / 3).half())
        model.fit(rows_of(X), labels, vectors, X_val=rows_of(X), y_val=labels)
        for method in ("predict", "predict_proba", "transform", "trajectory"):
            np.testing.assert_allclose(
                getattr(model, method)(rows_of(X)), getattr(expected, method)(X), rtol=1e-9
            )
        weights = torch.ones(12, requires_grad=True)
        for given in (labels, torch.tensor(codes).bfloat16()):
            assert model.score(rows_of(X), given, weights) == expected.score(X, codes)


def test_an_encoder_may_return_tensors():
    encoder = CallableEncoder(lambda items: rows_of(items, torch.bfloat16))
    np.testing.assert_array_equal(encoder.transform([[1.0, 2.0], [3.0, 4.0]]), [[1, 2], [3, 4]])
