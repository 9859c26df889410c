"""A saved aligner travels as a name, and is loaded once."""

import multiprocessing
import os
import pickle
import shutil
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse

from flowalign import FlowMatchingAligner, SavedAligner, save
from flowalign.datasets import make_cross_modal
from flowalign.persistence import saved as saved_module


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(6, n_features=8, random_state=0)


@pytest.fixture
def aligner(data):
    return FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)


@pytest.fixture
def path(aligner, tmp_path):
    save(aligner, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_it_predicts_as_the_aligner_does(aligner, path, data):
    saved = SavedAligner(path)
    for method in ("predict", "predict_proba", "transform"):
        expected = getattr(aligner, method)(data.X_test)
        np.testing.assert_array_equal(getattr(saved, method)(data.X_test), expected)


def test_its_name_travels_whatever_the_folder(path, data, monkeypatch):
    monkeypatch.chdir(path.parent)
    saved = SavedAligner(path.name)
    state = pickle.dumps(saved.predict)
    assert len(state) < 500
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(state)(data.X_test), saved.predict(data.X_test))
    assert repr(saved) == f"SavedAligner({str(path)!r})"


def counted(monkeypatch):
    """Return a list that gets the path of every file that is read from now on."""
    reads = []

    def slowly(path, read=saved_module.read):
        reads.append(path)
        time.sleep(0.02)  # others come meanwhile
        return read(path)

    monkeypatch.setattr(saved_module, "read", slowly)
    return reads


def test_threads_load_it_once(path, data, monkeypatch):
    saved = SavedAligner(path)
    saved_module._load.cache_clear()
    reads = counted(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda _: pickle.loads(pickle.dumps(saved)).predict(data.X_test), range(32))
        )
    assert len(reads) == 1
    assert all((labels == results[0]).all() for labels in results)


def test_a_process_keeps_the_last_eight(path, data, monkeypatch):
    models = [SavedAligner(shutil.copy(path, path.with_name(f"{k}.safetensors"))) for k in range(9)]
    saved_module._load.cache_clear()
    reads = counted(monkeypatch)
    for k in [*range(8), *range(8)]:
        models[k].predict(data.X_test[:1])
    assert len(reads) == 8
    for k in (8, 0):  # the ninth takes the place of the one that was not asked for longest
        models[k].predict(data.X_test[:1])
    assert len(reads) == 10


def test_another_process_loads_it(path, data):
    saved = SavedAligner(path)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        proba = pool.submit(saved.predict_proba, data.X_test).result()
    np.testing.assert_array_equal(proba, saved.predict_proba(data.X_test))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_a_thread_loads():
    """The thread that holds the lock is not in the child, which must not wait for it."""
    with saved_module._loading, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
        if child == 0:
            os._exit(0 if saved_module._loading.acquire(timeout=20) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_another_model_under_its_name_is_refused(aligner, path, data):
    saved = SavedAligner(path)
    saved.predict(data.X_test)
    other = FlowMatchingAligner(n_steps=1).fit(data.X_train, data.y_train, data.class_embeddings)
    save(other, path)
    # This process has it.
    np.testing.assert_array_equal(saved.predict(data.X_test), aligner.predict(data.X_test))
    saved_module._load.cache_clear()
    with pytest.raises(ValueError, match="was replaced"):
        saved.predict(data.X_test)
    np.testing.assert_array_equal(
        SavedAligner(path).predict(data.X_test), other.predict(data.X_test)
    )
    path.unlink()
    saved_module._load.cache_clear()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        saved.predict(data.X_test)


def test_what_is_no_model_is_refused_at_once(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        SavedAligner(path)
    with pytest.raises(FileNotFoundError):
        SavedAligner(path.with_name("other"))


# A filter may leave blocks without rows.

METHODS = ("predict", "predict_proba", "transform")
FORMS = {
    "float32": lambda X: X.astype(np.float32),
    "float64": lambda X: X.astype(np.float64),
    "float16": lambda X: X.astype(np.float16),
    "integers": lambda X: (100 * X).astype(np.int16),
    "columns first": np.asfortranarray,
    "tensor": lambda X: torch.tensor(X, requires_grad=True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_no_rows_are_answered_with_no_rows(method, form, aligner, path, data):
    X = FORMS[form](data.X_test)
    one = getattr(aligner, method)(X[:1])
    none = getattr(SavedAligner(path), method)(X[:0])
    assert none.shape == (0, *one.shape[1:])
    assert none.dtype == one.dtype
    with pytest.raises(ValueError, match="0 sample"):
        getattr(aligner, method)(X[:0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_no_rows_of_a_frame(method, dtype, data, tmp_path):
    def frame(X):
        return pd.DataFrame(X.astype(dtype)).add_prefix("f")

    X = frame(data.X_test)
    aligner = FlowMatchingAligner().fit(frame(data.X_train), data.y_train)
    save(aligner, tmp_path / "model")
    saved = SavedAligner(tmp_path / "model")
    one, none = getattr(aligner, method)(X[:1]), getattr(saved, method)(X[:0])
    assert (none.shape, none.dtype) == ((0, *one.shape[1:]), one.dtype)
    with pytest.raises(ValueError, match="feature names"):
        getattr(saved, method)(X[:0].rename(columns={"f0": "g0"}))
    # The model has not lost what it knows.
    np.testing.assert_array_equal(saved.aligner.feature_names_in_, X.columns)
    np.testing.assert_array_equal(saved.predict(X), aligner.predict(X))


@pytest.mark.parametrize("method", METHODS)
def test_no_rows_of_another_width_are_an_error(method, path, data):
    answer = getattr(SavedAligner(path), method)
    X = data.X_test
    for wrong in (X[:0, :-1], X[:0, 0], np.empty((0, 0)), [], X[:0].astype(complex), X[:0][None]):
        with pytest.raises(ValueError, match="features|feature|2D|dim|Complex"):
            answer(wrong)
    with pytest.raises(TypeError, match="Sparse"):
        answer(sparse.csr_matrix(X[:0]))


@pytest.mark.parametrize("method", METHODS)
def test_no_rows_of_a_column_of_arrays(method, path, data):
    column = pd.Series([*data.X_test])
    saved = SavedAligner(path)
    one = getattr(saved, method)(column[:1])
    for given in (column[:0], column[:0].to_frame(), column[:0].to_numpy()):
        none = getattr(saved, method)(given)
        assert none.shape == (0, *one.shape[1:])
        assert none.dtype.kind == one.dtype.kind


def test_no_rows_where_output_is_a_frame(path, data):
    with sklearn.config_context(transform_output="pandas"):
        none = SavedAligner(path).transform(data.X_test[:0])
        one = SavedAligner(path).transform(data.X_test[:1])
    pd.testing.assert_frame_equal(none, one[:0])
