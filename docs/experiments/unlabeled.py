"""Measures what unlabelled rows do to accuracy and calibration.

    python docs/experiments/unlabeled.py FOLDER [--shots 1 2 4 16] [--draws 3] [--stress]

For every feature set in FOLDER (see ``feature_sets.py``) and draw: test accuracy in percent and
expected calibration error (15 bins) of the default aligner; the same with the undrawn training rows
unlabelled ("more rows", where there are any); and of the test rows themselves, unlabelled
("the rows"). With ``--stress`` instead, the change of accuracy by pools that are not what they
should be, made of test rows: on the rows of the pool and on the other test rows (of the classes
that are absent, where a third is in the pool). Nothing is chosen
on test data.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from pathlib import Path

import feature_sets
import numpy as np

from flowalign import FlowMatchingAligner
from flowalign.benchmark.metrics import evaluate

POOLS = ("imbalanced", "a third of the classes", "copies", "twenty rows", "one row a class")


def said(proba, codes) -> list[float]:
    found = evaluate(proba, codes)
    return [100 * found["accuracy"], found["ece"]]


def gains(path: Path, n_shots: int, seed: int) -> dict[str, list[float]]:
    """Accuracy and calibration error without and with unlabelled rows."""
    X_all, y_all, table, X_test, y_test = feature_sets.load(path)
    X, y = feature_sets.draw(X_all, y_all, n_shots, seed)
    more, _ = feature_sets.undrawn(path, n_shots, seed)
    alone = FlowMatchingAligner(table).fit(X, y)
    rows = {"alone": said(alone.predict_proba(X_test), y_test)}
    rows["more rows"] = rows["alone"]
    if len(more):
        with_more = FlowMatchingAligner(table).fit(X, y, X_unlabeled=more)
        rows["more rows"] = said(with_more.predict_proba(X_test), y_test)
    these = FlowMatchingAligner(table).fit(X, y, X_unlabeled=X_test)
    rows["the rows"] = said(these.transduction_proba_, y_test)
    return rows


def pools(kind: str, y, rng) -> list:
    """Rows of the test data, lists of indices."""
    classes, counts = np.unique(y, return_counts=True)
    n = len(classes)
    if kind == "imbalanced":
        share = rng.dirichlet(np.full(n, rng.uniform(0.3, 1)))[np.searchsorted(classes, y)]
        share = share / counts[np.searchsorted(classes, y)]
        size = min(len(y) // 3, int((share > 1e-12).sum()))
        return [rng.choice(len(y), size, replace=False, p=share / share.sum())]
    if kind == "a third of the classes":
        return [np.flatnonzero(np.isin(y, rng.permutation(classes)[: max(n // 3, 2)]))]
    if kind == "copies":
        return [np.repeat(rng.permutation(len(y))[: max(len(y) // 10, 20)], 10)]
    if kind == "twenty rows":
        return [rng.permutation(len(y))[:20] for _ in range(4)]
    return [np.array([rng.choice(np.flatnonzero(y == c)) for c in classes]) for _ in range(2)]


def stress(path: Path, n_shots: int, seed: int) -> dict[str, list[float]]:
    """Change of accuracy on the pool and on the other test rows."""
    X_all, y_all, table, X_test, y_test = feature_sets.load(path)
    X, y = feature_sets.draw(X_all, y_all, n_shots, seed)
    alone = FlowMatchingAligner(table).fit(X, y).predict(X_test) == y_test
    rows = {}
    for kind in POOLS:
        rng, changes = np.random.default_rng(100 + seed), []
        for pool in pools(kind, y_test, rng):
            U = X_test[pool]
            if kind == "copies":  # nearly
                U = U + 0.01 * np.sqrt(np.square(U).mean()) * rng.normal(size=U.shape)
            found = FlowMatchingAligner(table).fit(X, y, X_unlabeled=U)
            others = np.setdiff1d(np.arange(len(y_test)), pool)
            change = np.mean(found.transduction_ == y_test[pool]) - np.mean(alone[pool])
            elsewhere = np.mean(found.predict(X_test[others]) == y_test[others])
            changes.append([100 * change, 100 * (elsewhere - np.mean(alone[others]))])
        rows[kind] = np.mean(changes, axis=0).tolist()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--stress", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "The unlabelled rows lie elsewhere")
    measure = stress if args.stress else gains
    for n_shots in args.shots:
        sets = defaultdict(list)
        for path in sorted(args.folder.glob("*.npz")):
            draws = [measure(path, n_shots, seed) for seed in range(args.draws)]
            means = {name: np.mean([draw[name] for draw in draws], axis=0) for name in draws[0]}
            for name, mean in means.items():
                sets[name].append(mean)
            line = "  ".join(f"{name} {a:.1f} {b:.2f}" for name, (a, b) in means.items())
            print(f"{n_shots:3} {path.stem:22} {line}", flush=True)
        for name, rows in sets.items():
            (a, b), worst = np.mean(rows, axis=0), np.min(rows, axis=0)
            print(f"{n_shots:3} {name:24}{a:8.2f}{b:8.3f}   worst{worst[0]:7.1f}{worst[1]:7.2f}")


if __name__ == "__main__":
    main()
