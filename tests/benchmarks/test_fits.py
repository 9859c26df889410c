"""Whole fits against the paper's procedure, 200 epochs of its network in batches of 32.

Its time is 200 times the median of a few epochs. Its accuracy, with ``--feature-sets``, is that of
the best of its steps on test data in the folder's ``reference.json``; ours is that of the step
that ``fit`` chose.
"""

import json
import statistics
import time

import numpy as np
import pytest
import torch
from paper_network import EPOCHS, train
from timing import seconds

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import make_cross_modal
from flowalign.ode import STEP_SIZE, nearest_step

MEASURED_EPOCHS = 5


def synthetic():
    """A set with the shape of the largest of the reference's: 98 classes, 16 samples, 512 wide."""
    data = make_cross_modal(98, n_train=16, n_test=10, n_features=512, random_state=0)
    return {"synthetic": (data.X_train, data.y_train, data.class_embeddings, None, None, None)}


def real(folder):
    """Sets that the reference was run on: support data, embeddings, test data, its accuracy."""
    cases = {}
    for name, entry in json.loads((folder / "reference.json").read_text())["curves"].items():
        file, n_shots = name.split("/")
        with np.load(folder / f"{file}.npz") as data:
            codes = data["y_train"]
            table = ClassEmbeddings(np.arange(codes.max() + 1), data["class_embeddings"])
            rng = np.random.default_rng(0)
            drawn = [
                rng.permutation(np.flatnonzero(codes == c))[: int(n_shots)] for c in table.classes
            ]
            rows = np.concatenate(drawn)
            X, X_test = (data[key].astype(np.float32) for key in ("X_train", "X_test"))
            best = max(entry["accuracy_at_steps_0_to_10"])
            cases[name] = (X[rows], codes[rows], table, X_test, data["y_test"], best)
    return cases


def paper_seconds(X, codes, targets):
    """Seconds that the paper's procedure takes."""
    tensors = torch.tensor(X).float(), torch.tensor(codes), torch.tensor(targets).float()
    times = [time.perf_counter()]
    for _ in train(*tensors, epochs=MEASURED_EPOCHS + 1):
        times.append(time.perf_counter())
    return EPOCHS * statistics.median(np.diff(times)[1:])


@pytest.mark.parametrize(("field", "least"), [("mlp", 5), ("gaussian", 500)])
def test_a_whole_fit(field, least, request, benchmark):
    folder = request.config.getoption("--feature-sets")
    cases = real(folder) if folder else synthetic()
    model = FlowMatchingAligner(velocity_field=field, random_state=0)
    seen = {"times as fast": {}, "points above": {}, "the same at our best step": {}}
    theirs_in_all, ours_in_all = 0.0, 0.0
    for name, (X, y, table, X_test, y_test, best) in cases.items():
        model.fit(X[:1], y[:1], table)  # warmed up

        def fit(X=X, y=y, table=table):
            model.fit(X, y, table)

        ours = statistics.median(seconds(fit) for _ in range(5 if field == "gaussian" else 1))
        codes = np.searchsorted(model.classes_, y)
        theirs = paper_seconds(X, codes, model.class_embeddings_)
        ours_in_all, theirs_in_all = ours_in_all + ours, theirs_in_all + theirs
        seen["times as fast"][name] = round(theirs / ours, 1)
        if folder:
            curve = [np.mean(labels == y_test) for labels in model.staged_predict(X_test)]
            gains = 100 * (np.array(curve) - best)
            seen["points above"][name] = round(gains[nearest_step(model.stop_time_, STEP_SIZE)], 2)
            seen["the same at our best step"][name] = round(gains.max(), 2)
    seen["times as fast, all"] = ratio = round(theirs_in_all / ours_in_all, 1)
    benchmark.extra_info.update(seen)
    print(seen)
    benchmark.pedantic(lambda: model.fit(X, y, table), rounds=1)
    # For a network 20 is the aim, at 0.3 points less at most; docs/performance.rst has what it is.
    assert ratio > least
    assert not folder or np.mean(list(seen["points above"].values())) > -1.5
