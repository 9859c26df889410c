"""A saved aligner travels as a name, and is loaded once."""

import multiprocessing
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

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


def test_threads_load_it_once(path, data, monkeypatch):
    saved = SavedAligner(path)
    saved_module._load.cache_clear()
    reads = []
    monkeypatch.setattr(
        saved_module, "read", lambda p, read=saved_module.read: reads.append(p) or read(p)
    )
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda _: pickle.loads(pickle.dumps(saved)).predict(data.X_test), range(32))
        )
    assert len(reads) == 1
    assert all((labels == results[0]).all() for labels in results)


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
