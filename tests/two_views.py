"""Samples that two encoders have looked at, and aligners of what they saw."""

from types import SimpleNamespace

import numpy as np

from flowalign import FlowMatchingAligner, MultiViewAligner
from flowalign.datasets import make_cross_modal

WIDTH = 16
ONE, OTHER = slice(0, WIDTH), slice(WIDTH, 2 * WIDTH)
NETWORK = {"velocity_field": "mlp", "max_iter": 2, "n_blocks": 1, "random_state": 0}


def make_views(n_train=4, difficulty=3, seed=0, n_classes=5, n_test=20):
    """Two views of the same samples, X of shape (n, 32), with labels and a table for each."""
    sizes = {"n_classes": n_classes, "n_train": n_train, "n_test": n_test, "n_features": WIDTH}
    one, other = (
        make_cross_modal(**sizes, difficulty=difficulty, random_state=2 * seed + k) for k in (0, 1)
    )
    return SimpleNamespace(
        X=np.hstack([one.X_train, other.X_train]).astype(np.float64),
        y=one.y_train,
        X_test=np.hstack([one.X_test, other.X_test]).astype(np.float64),
        y_test=one.y_test,
        tables=(one.class_embeddings, other.class_embeddings),
    )


def two_views(data, columns=(ONE, OTHER), **params):
    """Views called "one" and "other"."""
    return [
        (name, FlowMatchingAligner(table, **params), part)
        for name, table, part in zip(("one", "other"), data.tables, columns, strict=True)
    ]


def fitted(data, X=None, y=None, **params):
    """Fit to both views."""
    X, y = data.X if X is None else X, data.y if y is None else y
    return MultiViewAligner(two_views(data), **params).fit(X, y)


def lacking(X, one=(), other=()):
    """Let these rows lack a view."""
    X = X.copy()
    for rows, columns in ((one, ONE), (other, OTHER)):
        X[np.asarray(rows, dtype=int), columns] = np.nan
    return X
