"""Compares settings of the aligner on support data alone, to choose its defaults.

    python docs/experiments/choose_defaults.py FOLDER [--shots 4 16] [--folds 2] [--only TEXT]

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


def network(n_blocks: int, max_iter: int, batch_size: int, noise: float, **params) -> dict:
    return {
        "velocity_field": "mlp",
        "n_blocks": n_blocks,
        "max_iter": max_iter,
        "batch_size": batch_size,
        "noise": noise,
        **params,
    }


SETTINGS = {  # the width of the network is at most 512 unless it says d
    "closed form, noise 0": {"noise": 0.0},
    "closed form, noise 0.3": {"noise": 0.3},
    "closed form, noise 1": {"noise": 1.0},
    "4 blocks, 60 epochs of 64, noise 0, width d": network(4, 60, 64, 0.0, hidden_dim="d"),
    "4 blocks, 60 epochs of 64, noise 0.3, width d": network(4, 60, 64, 0.3, hidden_dim="d"),
    "4 blocks, 60 epochs of 64, noise 1, width d": network(4, 60, 64, 1.0, hidden_dim="d"),
    "2 blocks, 30 epochs of 64, noise 0.3, width d": network(2, 30, 64, 0.3, hidden_dim="d"),
    "2 blocks, 60 epochs of 64, noise 0.3": network(2, 60, 64, 0.3),
    "2 blocks, 100 epochs of 32, noise 0.3": network(2, 100, 32, 0.3),
    "2 blocks, 60 epochs of 64, noise 0.3, width d": network(2, 60, 64, 0.3, hidden_dim="d"),
}


def out_of_fold(path: Path, n_shots: int, n_folds: int, setting: dict) -> tuple[np.ndarray, float]:
    """Accuracy out of fold at every step, and the mean seconds of a fit."""
    X, y, table, *_ = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed=0)
    params = setting | ({"hidden_dim": X.shape[1]} if "hidden_dim" in setting else {})
    splitter = StratifiedKFold(min(n_shots, 4), shuffle=True, random_state=0)
    hits, seconds = [], []
    for train, held_out in islice(splitter.split(X, y), n_folds):
        aligner = FlowMatchingAligner(table, n_steps=5, logit_scale=100, random_state=0, **params)
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
    parser.add_argument("--only", default="", help="settings whose name has this in it")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.npz"))
    for n_shots in args.shots:
        for label, setting in SETTINGS.items():
            if args.only not in label:
                continue
            results = Parallel(n_jobs=args.jobs)(
                delayed(out_of_fold)(path, n_shots, args.folds, setting) for path in paths
            )
            curves = 100 * np.array([curve for curve, _ in results])
            seconds = ", ".join(f"{s:.1f}" for _, s in results)
            print(f"{n_shots} shots, {label}: best step {curves.mean(axis=0).argmax()}")
            for path, row in [*zip(paths, curves, strict=True), (Path("mean"), curves.mean(0))]:
                print(f"  {path.stem:20}" + " ".join(f"{value:5.1f}" for value in row))
            print(f"  seconds of a fit: {seconds}", flush=True)


if __name__ == "__main__":
    main()
