"""Where scikit-learn dispatches on arrays, tensors stay tensors, on their device."""

import pickle

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_array_api_input

from flowalign import FlowMatchingAligner, blocks
from flowalign.datasets import make_cross_modal

try:
    with config_context(array_api_dispatch=True):
        pass
except (ImportError, RuntimeError) as missing:  # what earlier versions ask for
    pytest.skip(f"scikit-learn does not dispatch here: {missing}", allow_module_level=True)

DATA = make_cross_modal(n_classes=6, n_train=8, n_test=40, n_features=16, random_state=0)
CODES = np.searchsorted(DATA.class_names, DATA.y_train)
METHODS = (
    "predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "trajectory",
    "score_samples",
)  # fmt: skip
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_CUDA])


def rows(dtype="float32", device="cpu"):
    return torch.tensor(DATA.X_test, dtype=getattr(torch, dtype), device=device)


@pytest.fixture(scope="module", params=["gaussian", "mlp"])
def aligner(request):
    params = {"velocity_field": request.param, "max_iter": 3, "random_state": 0}
    return FlowMatchingAligner(**params).fit(DATA.X_train, CODES)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
def test_answers_are_tensors_where_the_rows_are(method, dtype, device, aligner):
    X = rows(dtype, device)
    expected = getattr(aligner, method)(X.cpu().numpy())
    with config_context(array_api_dispatch=True):
        found = getattr(aligner, method)(X)
    assert isinstance(found, torch.Tensor)
    assert found.device == X.device
    assert str(found.dtype).removeprefix("torch.") == str(expected.dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if device == "cuda" else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(found.cpu().numpy(), expected, **tolerance)
    assert isinstance(getattr(aligner, method)(X), np.ndarray)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "uint8", "bool"])
def test_other_numbers_are_widened(dtype):
    X = (10 * torch.rand(30, 16, generator=torch.Generator().manual_seed(0)) + 1).to(
        getattr(torch, dtype)
    )
    y = np.arange(30) % 3
    X[0] = 0 if dtype in ("int32", "uint8") else 1  # an empty picture is one like any other
    aligner = FlowMatchingAligner().fit(X, y)
    expected = aligner.predict_proba(X)
    with config_context(array_api_dispatch=True):
        found = aligner.predict_proba(X)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_no_row_goes_through_an_array(aligner, monkeypatch):
    X, seen = rows(), []

    def watched(name):
        whole = getattr(torch.Tensor, name)

        def call(tensor, *args, **kwargs):
            seen.append((name, tuple(tensor.shape)))
            return whole(tensor, *args, **kwargs)

        return call

    for name in ("cpu", "numpy", "__array__", "tolist", "item"):
        monkeypatch.setattr(torch.Tensor, name, watched(name))
    with config_context(array_api_dispatch=True):
        for method in METHODS:
            getattr(aligner, method)(X)
    assert {"tolist"} <= {name for name, _ in seen}  # one look at whether all was well
    assert [shape for _, shape in seen if len(X) in shape] == []


@pytest.mark.parametrize("wanted", ["labels", "refused"])
def test_labels(wanted):
    """Numbers are a tensor; strings, which it cannot hold, an array."""
    refuse = {"unknown_rate": 0.5}
    numbers, strings = (
        FlowMatchingAligner(unknown_label=label if wanted == "refused" else None, **refuse).fit(
            DATA.X_train, y
        )
        for label, y in ((-1, CODES), ("none", DATA.y_train))
    )
    X = rows()
    with config_context(array_api_dispatch=True):
        found, named = numbers.predict(X), strings.predict(X)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), numbers.predict(X))
    np.testing.assert_array_equal(named, strings.predict(X))
    assert (-1 in found) == (wanted == "refused")


def test_tensors_in_fit_give_attributes_that_are_tensors():
    X, y = torch.tensor(DATA.X_train), torch.tensor(CODES)
    table = dict(enumerate(DATA.class_embeddings.vectors))
    usual = FlowMatchingAligner().fit(DATA.X_train, CODES, table)
    with config_context(array_api_dispatch=True):
        aligner = FlowMatchingAligner().fit(X, y, table)
        assert aligner.score(X, y) == usual.score(X, y)
    for name in ("class_embeddings_", "class_prior_", "support_scores_"):
        found = getattr(aligner, name)
        assert found.device == X.device
        np.testing.assert_array_equal(found.numpy(), getattr(usual, name))
    # What it goes on with are arrays, in a pickle too, and with the next fit.
    assert (aligner.predict(DATA.X_test) == usual.predict(DATA.X_test)).all()
    for other in (pickle.loads(pickle.dumps(aligner)), aligner.fit(DATA.X_train, CODES, table)):
        assert isinstance(other.class_prior_, np.ndarray)
    assert not hasattr(FlowMatchingAligner(), "class_prior_")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X: X.__setitem__((3, 2), torch.nan), ValueError, r"NaN or infinity in rows 3;"),
        (lambda X: X.__setitem__((39, 0), -torch.inf), ValueError, r"NaN or infinity in rows 39;"),
        (lambda X: X.__setitem__(slice(30, 32), 0), ValueError, "rows of zeros.*: 30, 31"),
    ],
    ids=["nan", "inf", "zero"],
)
def test_what_is_wrong_with_rows_is_told_at_the_end(change, error, message, aligner, monkeypatch):
    monkeypatch.setattr(blocks, "STATE_BYTES", {"cpu": 2**9})  # several blocks
    X = rows()
    change(X)
    with config_context(array_api_dispatch=True), pytest.raises(error, match=message):
        aligner.predict(X)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (torch.ones(16), ValueError, r"got shape \(16,\)"),
        (torch.ones(0, 16), ValueError, "not empty"),
        (torch.ones(3, 5), ValueError, "5 features"),
        (torch.ones(3, 16, dtype=torch.complex64), TypeError, "real numbers"),
        (torch.eye(16).to_sparse(), TypeError, "dense"),
    ],
    ids=["flat", "empty", "narrow", "complex", "sparse"],
)
def test_tensors_that_are_no_features(X, error, message, aligner):
    with config_context(array_api_dispatch=True), pytest.raises(error, match=message):
        aligner.predict(X)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_check_of_scikit_learn(dtype, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    assert get_tags(FlowMatchingAligner()).array_api_support
    # The namespace, the device, the dtype: their names differ between versions.
    given = "torch", "cpu", dtype
    check_array_api_input("plain", FlowMatchingAligner(), *given, check_values=True)


@pytest.mark.gpu
@NEEDS_CUDA
def test_nothing_waits_within_the_solve(aligner, monkeypatch):
    monkeypatch.setattr(blocks, "STATE_BYTES", {"cuda": 2**9})  # several blocks
    solved = aligner._solve(rows(device="cuda"), False, aligner.n_steps_, last_only=True)
    first = next(solved).contrasts()  # what all blocks need is there now
    torch.cuda.set_sync_debug_mode("error")
    try:
        second = next(solved).contrasts()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert second.shape == first.shape
