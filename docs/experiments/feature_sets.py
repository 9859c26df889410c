"""Reads the feature sets that the experiments run on: those of ``flowalign.benchmark``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowalign.benchmark import load_feature_set
from flowalign.benchmark.feature_sets import drawn_rows


def load(path: Path):
    """Return X_train, y_train, class_embeddings, X_test, y_test."""
    data = load_feature_set(path)
    return data.X_train, data.y_train, data.class_embeddings, data.X_test, data.y_test


def draw(X, y, n_shots: int, seed: int):
    """Return X and y of up to ``n_shots`` samples of each class."""
    rows = drawn_rows(y, n_shots, seed)
    return X[rows], y[rows]


def undrawn(path: Path, n_shots: int, seed: int):
    """Return X and y of the training samples that :func:`draw` leaves, and of X_val if any."""
    data = load_feature_set(path)
    rows = np.setdiff1d(np.arange(len(data.y_train)), data.draw(n_shots, seed))
    X, y = data.X_train[rows], data.y_train[rows]
    with np.load(path) as arrays:
        if "X_val" not in arrays:
            return X, y
        X_val = arrays["X_val"].astype(np.float32)
        return np.concatenate([X, X_val]), np.concatenate([y, arrays["y_val"]])
