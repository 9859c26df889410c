"""Compares settings of the aligner on support data alone, to choose its defaults.

    python docs/experiments/choose_defaults.py FOLDER [--shots 4 16] [--folds 2] [--jobs 1]

For every feature set in FOLDER (see ``feature_sets.py``) a support set is drawn; each setting is
fitted on stratified folds of it (at most ``--folds`` of min(shots, 4) are evaluated). Prints the
out-of-fold accuracy after 0 to 10 steps of 0.1, in percent, averaged over the sets, and the seconds
of a fit. Test data are never read.
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

SETTINGS = {
    "4 blocks, 60 epochs, noise 0": {"n_blocks": 4, "max_iter": 60, "noise": 0},
    "4 blocks, 60 epochs, noise 0.3": {"n_blocks": 4, "max_iter": 60, "noise": 0.3},
    "4 blocks, 60 epochs, noise 1": {"n_blocks": 4, "max_iter": 60, "noise": 1},
    "2 blocks, 60 epochs, noise 0.3": {"n_blocks": 2, "max_iter": 60, "noise": 0.3},
    "2 blocks, 30 epochs, noise 0.3": {"n_blocks": 2, "max_iter": 30, "noise": 0.3},
    "2 blocks, 60 epochs, noise 0.3, width 512": {
        "n_blocks": 2,
        "max_iter": 60,
        "noise": 0.3,
        "hidden_dim": 512,
    },
    "4 blocks, 120 epochs, noise 0.3": {"n_blocks": 4, "max_iter": 120, "noise": 0.3},
}


def out_of_fold(path: Path, n_shots: int, n_folds: int, params: dict) -> tuple[np.ndarray, float]:
    """Accuracy out of fold at every step, and the mean seconds of a fit."""
    X, y, table, *_ = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed=0)
    splitter = StratifiedKFold(min(n_shots, 4), shuffle=True, random_state=0)
    hits, seconds = [], []
    for train, held_out in islice(splitter.split(X, y), n_folds):
        aligner = FlowMatchingAligner(
            table, batch_size=64, learning_rate_init=1e-3, random_state=0, **params
        )
        start = time.perf_counter()
        aligner.fit(X[train], y[train])
        seconds.append(time.perf_counter() - start)
        hits.append([np.mean(p == y[held_out]) for p in aligner.staged_predict(X[held_out])])
    return np.mean(hits, axis=0), float(np.mean(seconds))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.npz"))
    for n_shots in args.shots:
        for label, params in SETTINGS.items():
            results = Parallel(n_jobs=args.jobs)(
                delayed(out_of_fold)(path, n_shots, args.folds, params) for path in paths
            )
            curves = 100 * np.array([curve for curve, _ in results])
            seconds = ", ".join(f"{s:.1f}" for _, s in results)
            print(f"{n_shots} shots, {label}: best step {curves.mean(axis=0).argmax()}")
            for path, row in [*zip(paths, curves, strict=True), (Path("mean"), curves.mean(0))]:
                print(f"  {path.stem:20}" + " ".join(f"{value:5.1f}" for value in row))
            print(f"  seconds of a fit: {seconds}", flush=True)


if __name__ == "__main__":
    main()
