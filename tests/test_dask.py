"""The same results from Dask workers, which are processes here, and die."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
from feature_files import write_feature_set

distributed = pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")

import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

import flowalign
from flowalign import FlowMatchingAligner, SavedAligner
from flowalign.benchmark import METHODS, run
from flowalign.benchmark.store import ROWS
from flowalign.datasets import make_cross_modal
from flowalign.encoders import CallableEncoder
from flowalign.encoders.cache import FILE_NAME

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

GRID = {"n_steps": [1, 3, 5], "noise": [0.0, 0.3]}


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def both_workers(client):
    client.wait_for_workers(2, timeout=60)


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(12, n_train=6, n_test=200, n_features=32, difficulty=2, random_state=0)


@pytest.fixture(scope="module")
def aligner(data):
    return FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)


@pytest.fixture
def saved(aligner, tmp_path):
    flowalign.save(aligner, tmp_path / "model.safetensors")
    return SavedAligner(tmp_path / "model.safetensors")


@pytest.fixture
def one_thread():
    """As workers have it."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


def die_once(mark):
    """Kill this process, unless one was killed."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal(ClassifierMixin, BaseEstimator):
    """The first fit with noise takes its process with it."""

    def __init__(
        self, class_embeddings=None, n_steps="auto", noise=0.3, random_state=None, mark=None
    ):
        self.class_embeddings = class_embeddings
        self.n_steps = n_steps
        self.noise = noise
        self.random_state = random_state
        self.mark = mark

    def fit(self, X, y, class_embeddings=None):
        if self.noise:
            die_once(self.mark)
        params = self.get_params(deep=False)
        del params["mark"]
        self.aligner_ = FlowMatchingAligner(**params).fit(X, y, class_embeddings)
        self.classes_ = self.aligner_.classes_
        return self

    def predict(self, X):
        return self.aligner_.predict(X)

    def predict_proba(self, X):
        return self.aligner_.predict_proba(X)


def predict_or_die(block, method, fatal_row, mark):
    """Predict; the process dies with the block that begins with this row."""
    if np.array_equal(block[0], fatal_row):
        die_once(mark)
    return method(block)


# ------------------------------------------------------------------ search and benchmark


def search(data, kind=FlowMatchingAligner):
    grid = GridSearchCV(kind(data.class_embeddings, random_state=0), GRID, cv=3)
    return grid.fit(data.X_train, data.y_train)


def test_a_worker_has_its_share_of_threads(client):
    assert set(client.run(torch.get_num_threads).values()) == {1}


@pytest.mark.parametrize("field", ["gaussian", "mlp"])
def test_a_search_finds_the_same(client, data, field):
    kind = partial(FlowMatchingAligner, velocity_field=field, max_iter=5, hidden_dim=16)
    local = search(data, kind)
    with joblib.parallel_config(backend="dask"):
        spread = search(data, kind)
    scores = "mean_test_score"
    np.testing.assert_array_equal(spread.cv_results_[scores], local.cv_results_[scores])
    assert spread.best_params_ == local.best_params_
    np.testing.assert_array_equal(spread.predict(data.X_test), local.predict(data.X_test))


def test_a_search_outlives_a_worker(client, data, tmp_path):
    mark = tmp_path / "mark"
    with joblib.parallel_config(backend="dask"):
        spread = search(data, partial(Mortal, mark=mark))
    assert mark.exists()
    local = search(data)
    scores = "mean_test_score"
    np.testing.assert_array_equal(spread.cv_results_[scores], local.cv_results_[scores])
    assert spread.best_params_ == local.best_params_


def measured(rows):
    """What does not depend on the clock."""
    return {row["key"]: {k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows}


def test_a_benchmark_is_the_same_and_outlives_a_worker(client, data, tmp_path):
    path = write_feature_set(tmp_path / "set.npz", data)
    methods = {name: METHODS[name] for name in ("flowalign", "zero-shot", "GDA-CLIP")}
    methods["mortal"] = Mortal(mark=tmp_path / "mark")
    with joblib.parallel_config(backend="dask"):
        spread = run([path], tmp_path / "spread", methods=methods, shots=[1, 4], verbose=0)
    assert (tmp_path / "mark").exists()
    local = run([path], tmp_path / "local", methods=methods, shots=[1, 4], verbose=0)
    assert not any("error" in row for row in local)
    assert measured(spread) == measured(local)
    lines = (tmp_path / "spread" / ROWS).read_text().splitlines()
    assert len(lines) == len(local) == 4 * 2 * 3


def feature_sets_read():
    from flowalign.benchmark import feature_sets

    return feature_sets._load.cache_info().misses


def test_the_benchmark_command_takes_a_scheduler(client, tmp_path, data):
    write_feature_set(tmp_path / "set.npz", data)
    client.run(os.chdir, "/")  # a relative path is in our folder, not in theirs
    before = sum(client.run(feature_sets_read).values())
    command = [sys.executable, "-m", "flowalign.benchmark", "--features", "set.npz", "--out", "out"]
    command += ["--methods", "zero-shot", "--shots", "1", "--scheduler", client.scheduler.address]
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    assert (tmp_path / "out" / "report.html").exists()
    assert sum(client.run(feature_sets_read).values()) > before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["tcp://127.0.0.1:1"], "--scheduler tcp://127.0.0.1:1: "),
        (["tcp://127.0.0.1:1", "--jobs", "2"], "--jobs goes without"),
    ],
)
def test_a_scheduler_that_is_none(options, reason, tmp_path):
    command = [sys.executable, "-m", "flowalign.benchmark", "--out", tmp_path, "--scheduler"]
    ended = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=300,
        env={**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"},
    )  # fmt: skip
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


# ------------------------------------------------------------------ prediction in blocks


def test_blocks_of_an_array(client, data, aligner, saved, one_thread):
    X = da.from_array(data.X_test, chunks=(97, -1))
    labels = X.map_blocks(saved.predict, drop_axis=1, meta=aligner.classes_[:0])
    np.testing.assert_array_equal(labels.compute(), aligner.predict(data.X_test))
    n_classes = len(aligner.classes_)
    proba = X.map_blocks(
        saved.predict_proba, chunks=(X.chunks[0], (n_classes,)), meta=np.empty((0, 0))
    ).compute()
    # A product of matrices rounds with their height, and with the number of threads.
    np.testing.assert_allclose(proba, aligner.predict_proba(data.X_test), rtol=1e-5)
    parts = np.split(data.X_test, np.cumsum(X.chunks[0])[:-1])
    expected = [aligner.predict_proba(part) for part in parts]
    np.testing.assert_array_equal(proba, np.concatenate(expected))


def test_blocks_that_a_filter_emptied(client, data, aligner, saved, one_thread):
    X = da.from_array(data.X_test, chunks=(100, -1))
    kept = np.arange(len(data.X_test)) % 500 >= 300
    filtered = X[da.from_array(kept, chunks=100)]
    labels = filtered.map_blocks(saved.predict, drop_axis=1, meta=aligner.classes_[:0])
    np.testing.assert_array_equal(labels.compute(), aligner.predict(data.X_test[kept]))
    flowed = filtered.map_blocks(saved.transform, meta=np.empty((0, 0), X.dtype)).compute()
    assert flowed.dtype == X.dtype
    np.testing.assert_allclose(flowed, aligner.transform(data.X_test[kept]), rtol=1e-4, atol=1e-6)
    table = dd.from_pandas(pd.DataFrame(data.X_test), npartitions=10)
    nobody = table[table[0] > table[0].max()].map_partitions(
        lambda frame: pd.Series(saved.predict(frame.to_numpy())),
        meta=pd.Series(aligner.classes_[:0]),
    )
    assert len(nobody.compute()) == 0


def loads():
    from flowalign.persistence import saved

    return saved._load.cache_info().misses


def test_a_worker_loads_once(client, data, saved, aligner, tmp_path):
    saved = SavedAligner(shutil.copy(saved.path, tmp_path / "new.safetensors"))
    before = client.run(loads)
    X = da.from_array(data.X_test, chunks=(10, -1))
    X.map_blocks(saved.predict, drop_axis=1, meta=aligner.classes_[:0]).compute()
    more = [number - before[worker] for worker, number in client.run(loads).items()]
    assert max(more) == 1


def test_blocks_outlive_a_worker(client, data, aligner, saved, tmp_path):
    mark = tmp_path / "mark"
    X = da.from_array(data.X_test, chunks=(50, -1))
    labels = X.map_blocks(
        predict_or_die, saved.predict, data.X_test[1000], mark, drop_axis=1,
        meta=aligner.classes_[:0],
    )  # fmt: skip
    np.testing.assert_array_equal(labels.compute(), aligner.predict(data.X_test))
    assert mark.exists()


def predict_frame(frame, method, fatal_row, mark):
    X = np.stack(frame["features"].to_numpy())
    return pd.DataFrame({"id": frame["id"], "label": predict_or_die(X, method, fatal_row, mark)})


def test_parquet_outlives_a_worker(client, data, aligner, saved, tmp_path):
    X = data.X_test.astype(np.float32)
    frame = pd.DataFrame({"id": np.arange(len(X)), "features": list(X)})
    for k in range(12):
        frame.iloc[200 * k : 200 * (k + 1)].to_parquet(tmp_path / f"part-{k:02}.parquet")
    table = dd.read_parquet(tmp_path / "part-*.parquet", split_row_groups=False)
    result = table.map_partitions(
        predict_frame, saved.predict, X[800], tmp_path / "mark",
        meta=pd.DataFrame({"id": [0], "label": aligner.classes_[:1]}).iloc[:0],
    )  # fmt: skip
    result.to_parquet(tmp_path / "labels")
    assert (tmp_path / "mark").exists()
    written = pd.read_parquet(tmp_path / "labels").sort_values("id")
    np.testing.assert_array_equal(written["id"], np.arange(len(X)))
    np.testing.assert_array_equal(written["label"], aligner.predict(X))


def test_a_model_that_workers_do_not_have(client, data, aligner, saved):
    os.unlink(saved.path)
    X = da.from_array(data.X_test, chunks=(100, -1))
    labels = X.map_blocks(saved.predict, drop_axis=1, meta=aligner.classes_[:0])
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        labels.compute()


# ------------------------------------------------------------------ encoding


def embed(items, mark):
    if any(item[0] == 40 for item in items):
        die_once(mark)
    return np.stack([[item.sum(), item.max()] for item in items]).astype(np.float32)


def test_workers_encode_into_one_cache(client, tmp_path):
    X = np.arange(300.0).reshape(60, 5)
    mark = tmp_path / "mark"
    function = partial(embed, mark=mark)
    encoder = CallableEncoder(function, name="sum and max", batch_size=4, cache=tmp_path / "cache")
    parts = client.map(encoder.transform, np.array_split(np.tile(X, (2, 1)), 8))
    rows = np.concatenate(client.gather(parts))
    assert mark.exists()
    np.testing.assert_array_equal(rows, np.tile(embed(X, mark), (2, 1)))
    with closing(sqlite3.connect(tmp_path / "cache" / FILE_NAME)) as database:
        assert database.execute("SELECT count(*) FROM features").fetchone() == (60,)
