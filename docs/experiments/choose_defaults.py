"""Compares settings of the aligner on training data, to choose its defaults.

    python docs/experiments/choose_defaults.py FOLDER [--shots 4 16] [--only TEXT] [--jobs 1]

For every feature set in FOLDER (see ``feature_sets.py``) a support set is drawn, and each setting
is fitted to it. Prints the accuracy after 0 to 10 steps of 0.1 on the training samples that were
not drawn, in percent, averaged over the sets, and the seconds of a fit. Sets of which too few
samples are left are scored out of fold instead. The field alone is measured: a state has the class
of the most similar class embedding. Test data are never read.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path

import feature_sets
import numpy as np
from joblib import Parallel, delayed
from sklearn.model_selection import StratifiedKFold

from flowalign import FlowMatchingAligner
from flowalign.benchmark.measurements import right

ENOUGH_LEFT = 5  # undrawn samples for each class, on average
N_FOLDS = 2  # out of min(shots, 4)


def network(n_blocks: int, hidden_dim: int, max_iter: int, batch_size: int | str) -> dict:
    return {
        "velocity_field": "mlp",
        "n_blocks": n_blocks,
        "hidden_dim": hidden_dim,
        "max_iter": max_iter,
        "batch_size": batch_size,
    }


SETTINGS = {
    "closed form": {},
    "network": {"velocity_field": "mlp"},
    "2 blocks of 512, 100 epochs of 32": network(2, 512, 100, 32),
    "1 block of 256, 75 epochs of 32": network(1, 256, 75, 32),
    "4 blocks of 256, 50 epochs of 64": network(4, 256, 50, 64),
    "3 blocks of 384, 50 epochs of 16": network(3, 384, 50, 16),
    "3 blocks of 384, 50 epochs of 64": network(3, 384, 50, 64),
}


def curve(path: Path, n_shots: int, setting: dict) -> tuple[np.ndarray, float]:
    """Accuracy at every step, and the mean seconds of a fit."""
    X_train, y_train, table, *_ = feature_sets.load(path)
    X, y = feature_sets.draw(X_train, y_train, n_shots, seed=0)
    X_new, y_new = feature_sets.undrawn(path, n_shots, seed=0)
    parts = [(X, y, X_new, y_new)]
    if len(X_new) < ENOUGH_LEFT * len(np.unique(y)):
        folds = StratifiedKFold(min(n_shots, 4), shuffle=True, random_state=0).split(X, y)
        parts = [(X[a], y[a], X[b], y[b]) for a, b in islice(folds, N_FOLDS)]
    hits, seconds = [], []
    for X, y, X_new, y_new in parts:
        aligner = FlowMatchingAligner(table, n_steps=5, logit_scale=100, random_state=0, **setting)
        start = time.perf_counter()
        aligner.fit(X, y)
        seconds.append(time.perf_counter() - start)
        hits.append([right(aligner, x, y_new) for x in aligner.staged_transform(X_new)])
    return np.mean(hits, axis=0), float(np.mean(seconds))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--only", default="", help="settings whose name has this in it")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.npz"))
    for n_shots in args.shots:
        for label, setting in SETTINGS.items():
            if args.only not in label:
                continue
            results = Parallel(n_jobs=args.jobs)(
                delayed(curve)(path, n_shots, setting) for path in paths
            )
            curves = 100 * np.array([curve for curve, _ in results])
            seconds = ", ".join(f"{s:.1f}" for _, s in results)
            print(f"{n_shots} shots, {label}: best step {curves.mean(axis=0).argmax()}")
            for path, row in [*zip(paths, curves, strict=True), (Path("mean"), curves.mean(0))]:
                print(f"  {path.stem:20}" + " ".join(f"{value:5.1f}" for value in row))
            print(f"  seconds of a fit: {seconds}", flush=True)


if __name__ == "__main__":
    main()
