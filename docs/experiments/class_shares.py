"""Measures what it gives, and costs, to find the shares of the classes in a pool.

    python docs/experiments/class_shares.py FOLDER [--shots 1 4 16] [--draws 3] [--jobs 2]

For every pool of the benchmark's realistic and transductive settings, mean accuracy in percent over
the feature sets in FOLDER: of the aligner without the pool and with it, and of each after the
shares of the classes were found by expectation-maximisation on its probabilities (Saerens et al.
2002); then the set with the largest loss by that, of the aligner with the pool, and the least and
the largest mean over a set of what the shares add to the log-likelihood of a row. Nothing is chosen
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


def with_shares(proba: np.ndarray, n_rounds: int = 100) -> tuple[np.ndarray, float]:
    """Probabilities, (m, C), under the most likely shares of the classes, one row of each added.

    Also what the shares add to the mean log-likelihood of a row.
    """
    n_classes = proba.shape[1]
    shares = np.full(n_classes, 1 / n_classes)
    for _ in range(n_rounds):
        found = proba * shares
        found /= found.sum(axis=1, keepdims=True)
        shares = (found.sum(axis=0) + 1) / (len(found) + n_classes)
    return found, float(np.log(proba @ shares * n_classes).mean())


def compare(path: Path, pool: str, n_shots: int, seed: int) -> list[float]:
    """Accuracy of the four, and what shares add to the last."""
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
    shared, gain = with_shares(known)
    said = (without, known, with_shares(without)[0], shared)
    codes = [aligner.classes_[proba[case.rows].argmax(axis=1)] for proba in said]
    return [*(100 * np.mean(found == case.y) for found in codes), gain]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.npz"))
    print("pool, samples a class: without, with the pool; both with shares; largest loss; gains")
    for pool in SETTINGS:
        for n_shots in args.shots:
            draws = [(path, seed) for path in paths for seed in range(args.draws)]
            found = Parallel(n_jobs=args.jobs)(
                delayed(compare)(path, pool, n_shots, seed) for path, seed in draws
            )
            sets = np.mean(np.reshape(found, (len(paths), args.draws, 5)), axis=1)
            losses = sets[:, 3] - sets[:, 1]
            means = " ".join(f"{mean:.1f}" for mean in sets[:, :4].mean(axis=0))
            worst = f"{losses.min():+.1f} {paths[losses.argmin()].stem}"
            gains = " to ".join(f"{gain(sets[:, 4]):.2f}" for gain in (np.min, np.max))
            print(f"{pool}, {n_shots}: {means}; {worst}; {gains}", flush=True)


if __name__ == "__main__":
    main()
