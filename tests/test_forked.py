"""Children that are forked after torch has used several threads answer, instead of waiting."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# A process of its own, which ends itself when its children keep it waiting for 20 s.
START = """
import multiprocessing, os, signal, sys, threading, warnings
import numpy as np
import torch
import flowalign
from flowalign.datasets import make_cross_modal

warnings.simplefilter("ignore")  # of forks beside threads, which is what this is about
data = make_cross_modal(6, n_train=4, n_test=500, random_state=0)
X = data.X_test[:2000]
models = {
    field: flowalign.FlowMatchingAligner(
        data.class_embeddings, velocity_field=field, n_steps=2, logit_scale=30.0,
        max_iter=1, n_blocks=1, random_state=0,
    ).fit(data.X_train, data.y_train)
    for field in ("gaussian", "mlp")
}
expected = {field: model.predict(X) for field, model in models.items()}

def has_right_labels():
    return all((models[field].predict(X) == expected[field]).all() for field in models)

def pool():
    return multiprocessing.get_context("fork").Pool(2)

def start_threads():
    torch.set_num_threads(2)
    assert has_right_labels()

signal.alarm(20)
"""


def run(code, tmp_path):
    """Run a script; if it fails, or its children do not answer, show what it said."""
    # Threads that wait in a loop would take the time of those that work.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", START + code], stdout=said, stderr=said, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout=120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # children that wait
    assert code == 0, (tmp_path / "said").read_text()


def test_a_pool(tmp_path):
    code = """
def work(part):
    for model in models.values():
        flowalign.FlowMatchingAligner(**model.get_params()).fit(data.X_train, data.y_train)
    return models["gaussian"].predict(part), torch.get_num_threads()

start_threads()
with pool() as workers:
    parts, numbers = zip(*workers.map(work, np.split(X, 2)))
assert (np.concatenate(parts) == expected["gaussian"]).all()
assert numbers == (1, 1), numbers
assert torch.get_num_threads() == 2  # here nothing has changed
assert has_right_labels()
"""
    run(code, tmp_path)


def test_threads_and_children_of_a_child(tmp_path):
    code = """
def status_of_child(work):
    child = os.fork()
    if child == 0:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def work():
    found = []
    threads = [threading.Thread(target=lambda: found.append(has_right_labels())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0 if found == [True] * 3 else 1

start_threads()
assert status_of_child(lambda: work() + status_of_child(work)) == 0
"""
    run(code, tmp_path)


def test_a_search_on_the_multiprocessing_backend(tmp_path):
    code = """
import joblib
from sklearn.model_selection import GridSearchCV

start_threads()
search = GridSearchCV(models["gaussian"], {"noise": [0, 0.3]}, cv=2)
with joblib.parallel_config(backend="multiprocessing", n_jobs=2):
    search.fit(data.X_train, data.y_train)
assert np.isfinite(search.cv_results_["mean_test_score"]).all()
"""
    run(code, tmp_path)


def test_a_child_may_take_more_threads_if_its_parent_had_one(tmp_path):
    code = """
def work(_):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    return before, has_right_labels(), torch.get_num_threads()

with pool() as workers:
    assert workers.map(work, range(2)) == [(1, True, 2)] * 2
assert torch.get_num_threads() == 1
"""
    run(code, tmp_path)
