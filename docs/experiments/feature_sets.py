"""Reads the feature sets that the experiments run on.

A set is an .npz file, read without pickle: ``X_train``, ``y_train``, ``X_test``, ``y_test`` (codes
0..C-1), ``class_embeddings``, one row per code, and perhaps ``X_val``, ``y_val``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowalign import ClassEmbeddings


def load(path: Path):
    """Return X_train, y_train, class_embeddings, X_test, y_test."""
    with np.load(path) as data:
        table = ClassEmbeddings(np.arange(len(data["class_embeddings"])), data["class_embeddings"])
        X_train, X_test = (data[key].astype(np.float32) for key in ("X_train", "X_test"))
        return X_train, data["y_train"], table, X_test, data["y_test"]


def draw(X, y, n_shots: int, seed: int):
    """Draw up to ``n_shots`` samples of each class with numpy's default generator."""
    rows = _drawn(y, n_shots, seed)
    return X[rows], y[rows]


def undrawn(path: Path, n_shots: int, seed: int):
    """Return X and y of the training samples that :func:`draw` leaves, and of X_val if any."""
    with np.load(path) as data:
        X, y = data["X_train"].astype(np.float32), data["y_train"]
        rows = np.setdiff1d(np.arange(len(y)), _drawn(y, n_shots, seed))
        if "X_val" not in data:
            return X[rows], y[rows]
        X_val = data["X_val"].astype(np.float32)
        return np.concatenate([X[rows], X_val]), np.concatenate([y[rows], data["y_val"]])


def _drawn(y, n_shots: int, seed: int):
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(y == c))[:n_shots] for c in np.unique(y)]
    return np.concatenate(rows)
