"""Measures what it gives, and costs, to find the shares of the classes in a pool.

    python docs/experiments/class_shares.py FOLDER [--shots 1 4 16] [--draws 3] [--jobs 2]

For every pool of the benchmark's realistic and transductive settings, mean accuracy in percent over
the feature sets in FOLDER: of the aligner without the pool and with it, and of each after the
shares of the classes were found by expectation-maximisation on its probabilities (Saerens et al.
2002); then the set with the largest loss by that, of the aligner with the pool. Nothing is chosen
on test data.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from flowalign import FlowMatchingAligner
from flowalign.benchmark import load_feature_set
from flowalign.benchmark.pools import POOLS

SETTINGS = ("all test rows", "imbalanced", "a third of the classes", "half of the classes foreign")


def with_shares(proba: np.ndarray, n_rounds: int = 100) -> np.ndarray:
    """Probabilities, (m, C), under the most likely shares of the classes, one row of each added."""
    n_classes = proba.shape[1]
    shares = np.full(n_classes, 1 / n_classes)
    for _ in range(n_rounds):
        found = proba * shares
        found /= found.sum(axis=1, keepdims=True)
        shares = (found.sum(axis=0) + 1) / (len(found) + n_classes)
    return found


def compare(path: Path, pool: str, n_shots: int, seed: int) -> list[float]:
    """Accuracy of the four."""
    data = load_feature_set(path)
    (case,) = POOLS[pool](data, n_shots, seed)
    rows, table = data.draw(n_shots, seed), data.class_embeddings
    rows = rows[~np.isin(data.y_train[rows], case.absent)]
    aligner = FlowMatchingAligner(table.subset(np.setdiff1d(table.classes, case.absent)))
    X, y = data.X_train[rows], data.y_train[rows]
    without = aligner.fit(X, y).predict_proba(case.unlabeled)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The unlabelled rows lie elsewhere")
        aligner.fit(X, y, X_unlabeled=case.unlabeled)
    known = aligner.transduction_proba_
    said = (without, known, with_shares(without), with_shares(known))
    codes = [aligner.classes_[proba[case.rows].argmax(axis=1)] for proba in said]
    return [100 * np.mean(found == case.y) for found in codes]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.npz"))
    print("pool, samples a class: without and with the pool; the same with shares; largest loss")
    for pool in SETTINGS:
        for n_shots in args.shots:
            draws = [(path, seed) for path in paths for seed in range(args.draws)]
            found = Parallel(n_jobs=args.jobs)(
                delayed(compare)(path, pool, n_shots, seed) for path, seed in draws
            )
            sets = np.mean(np.reshape(found, (len(paths), args.draws, 4)), axis=1)
            losses = sets[:, 3] - sets[:, 1]
            means = " ".join(f"{mean:.1f}" for mean in sets.mean(axis=0))
            worst = f"{losses.min():+.1f} {paths[losses.argmin()].stem}"
            print(f"{pool}, {n_shots}: {means}; {worst}", flush=True)


if __name__ == "__main__":
    main()
