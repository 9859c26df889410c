"""Feature sets of the benchmark's tests, and a run of two methods on them."""

import numpy as np
from feature_files import write_feature_set

from flowalign import ClassEmbeddings
from flowalign.benchmark import run
from flowalign.benchmark.feature_sets import FeatureSet
from flowalign.benchmark.peers import GDA, ZeroShot
from flowalign.datasets import make_cross_modal

METHODS = {"zero-shot": ZeroShot(), "GDA-CLIP": GDA()}
N_CLASSES = 6


def write_small_set(path, seed=0, **changes):
    data = make_cross_modal(
        4, n_train=5, n_test=8, n_features=16, difficulty=2, misalignment=1, random_state=seed
    )
    changes = {"X_train": data.X_train.astype(np.float16)} | changes
    return write_feature_set(path, data, **changes)


def small_run(sets, out, **params):
    return run(
        sets, out, **{"methods": METHODS, "shots": (1, 2), "n_jobs": 1, "verbose": 0} | params
    )


def numbered(n_test, n_train=5):
    """A set whose rows are known by their first feature."""
    y_train = np.repeat(np.arange(N_CLASSES), n_train)
    y_test = np.arange(n_test) % N_CLASSES

    def features(y, first):
        X = np.zeros((len(y), 3), np.float32)
        X[:, 0], X[:, 1] = first + np.arange(len(y)), 1
        return X

    table = ClassEmbeddings(range(N_CLASSES), np.eye(N_CLASSES, dtype=np.float32))
    train, test = features(y_train, 10_000), features(y_test, 0)
    return FeatureSet("numbered", train, y_train, test, y_test, table, "")


def numbers(X):
    return X[:, 0].astype(int)
