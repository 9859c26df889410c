"""Measures test accuracy against the noise on the path.

    python docs/experiments/noise.py FOLDER --sets NAME ... [--shots 4] [--seeds 3] [--jobs 1]

For each feature set (see ``feature_sets.py``) and each noise, the mean over training seeds of the
test accuracy after 0 to 10 steps of 0.1, in percent, on the support set of draw 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import feature_sets
import numpy as np
from joblib import Parallel, delayed

from flowalign import FlowMatchingAligner

NOISE = (0.0, 0.1, 0.3, 1.0, 3.0)


def curve(path: Path, n_shots: int, noise: float, seed: int) -> list[float]:
    """Test accuracy in percent at every step."""
    X, y, table, X_test, y_test = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed=0)
    aligner = FlowMatchingAligner(table, noise=noise, random_state=seed).fit(X, y)
    return [100 * float(np.mean(labels == y_test)) for labels in aligner.staged_predict(X_test)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    for name in args.sets:
        path = args.folder / f"{name}.npz"
        print(f"{name}, {args.shots} shots, mean of {args.seeds} training seeds")
        for noise in NOISE:
            curves = Parallel(n_jobs=args.jobs)(
                delayed(curve)(path, args.shots, noise, seed) for seed in range(args.seeds)
            )
            row = " ".join(f"{value:5.1f}" for value in np.mean(curves, axis=0))
            spread = np.std(curves, axis=0).max()
            print(f"  noise {noise:3.1f}: {row}   (std at most {spread:.1f})", flush=True)


if __name__ == "__main__":
    main()
