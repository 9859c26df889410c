"""Asks how coarse the steps of the closed form may be.

    python docs/experiments/step_size.py FOLDER [--shots 1 4 16] [--draws 3]

For every number of shots, over the feature sets in FOLDER (see ``feature_sets.py``): for steps of
0.1, and for so many equal steps to the same stop, the mean of that stop, mean accuracy in percent,
mean log-loss, the percentage of test rows with the same label as by steps of 0.1, and the largest
loss of accuracy in a single draw. The stop is the one that the fit chose. Test data report, and
choose nothing.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import feature_sets
import numpy as np

from flowalign import FlowMatchingAligner, ode
from flowalign.benchmark.metrics import evaluate

STEPS = (3, 2, 1)


def compare(path: Path, n_shots: int, seed: int) -> np.ndarray:
    """Accuracy, log-loss, share of equal labels and stop, of each way there."""
    X, y, table, X_test, y_test = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed)
    aligner = FlowMatchingAligner(table).fit(X, y)
    stop = aligner.stop_time_
    ways = [(ode.nearest_step(stop, ode.STEP_SIZE), ode.STEP_SIZE)]
    ways += [(n, stop / n) if stop else (0, 1.0) for n in STEPS]
    rows, fine = [], None
    for n_steps, step_size in ways:
        aligner.set_params(n_steps=n_steps, step_size=step_size)
        proba = aligner.predict_proba(X_test)
        labels = proba.argmax(axis=1)
        fine = labels if fine is None else fine
        said = evaluate(proba, np.searchsorted(aligner.classes_, y_test))
        same = 100 * np.mean(labels == fine)
        rows.append([100 * said["accuracy"], said["log_loss"], same, stop])
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "class_embeddings are equal")
    paths = sorted(args.folder.glob("*.npz"))
    names = ("steps of 0.1", *(f"{n} equal" for n in STEPS))
    for n_shots in args.shots:
        draws = [(path, seed) for path in paths for seed in range(args.draws)]
        found = np.stack([compare(path, n_shots, seed) for path, seed in draws])
        means, losses = found.mean(axis=0), (found[:, :1] - found)[..., 0].max(axis=0)
        for name, (accuracy, log_loss, same, stop), loss in zip(names, means, losses, strict=True):
            print(
                f"{n_shots:3} {name:14}{stop:5.2f}{accuracy:7.2f}{log_loss:8.3f}{same:8.2f}"
                f"{loss:7.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
