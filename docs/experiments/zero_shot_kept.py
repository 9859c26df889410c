"""Counts how often the aligner falls below zero-shot where zero-shot is good.

    python docs/experiments/zero_shot_kept.py FOLDER SET [SET ...] [--draws 15]

From every named feature set of FOLDER (see ``feature_sets.py``), whose class embeddings must live
in the space of the features, random subsets of 5, 10, 20 and 40 classes are taken, with 1, 2 and 4
samples of each. Prints zero-shot accuracy on undrawn training samples, the mean and the least gain
of the aligner at its defaults, in percent, and the cases below zero-shot. Test data are not read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import feature_sets
import numpy as np

from flowalign import FlowMatchingAligner


def gain(path: Path, n_classes: int, n_shots: int, seed: int) -> tuple[float, float]:
    """Zero-shot accuracy, and what the aligner adds to it."""
    X, y, table, *_ = feature_sets.load(path)
    classes = np.random.default_rng(seed).choice(table.classes, n_classes, replace=False)
    X, y = feature_sets.draw(X, y, n_shots, seed)
    X_new, y_new = feature_sets.undrawn(path, n_shots, seed)
    kept, new = np.isin(y, classes), np.isin(y_new, classes)
    model = FlowMatchingAligner(table.subset(classes)).fit(X[kept], y[kept])
    score = model.score(X_new[new], y_new[new])
    zero_shot = model.set_params(n_steps=0).score(X_new[new], y_new[new])
    return 100 * zero_shot, 100 * (score - zero_shot)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--draws", type=int, default=15)
    args = parser.parse_args()
    every = []
    for name in args.sets:
        for n_classes in (5, 10, 20, 40):
            for n_shots in (1, 2, 4):
                path = args.folder / f"{name}.npz"
                cases = [gain(path, n_classes, n_shots, seed) for seed in range(args.draws)]
                zero_shot, gains = np.array(cases).T
                every.extend(gains)
                print(
                    f"{name}, {n_classes} classes, {n_shots} shots: {zero_shot.mean():.1f} "
                    f"{gains.mean():+.2f}, least {gains.min():+.2f}",
                    flush=True,
                )
    every = np.array(every)
    print(
        f"{len(every)} cases: gain {every.mean():.2f}, least {every.min():.2f}; below zero-shot "
        f"{np.sum(every < 0)}, by more than 0.3 {np.sum(every < -0.3)}"
    )


if __name__ == "__main__":
    main()
