"""Compares the paper's recipe, run by flowalign, with curves of the reference implementation.

    python docs/experiments/fidelity.py FOLDER [--shots 4] [--seeds 3] [--jobs 1]

FOLDER holds feature sets (see ``feature_sets.py``) and a ``reference.json``: under ``curves``, for
every ``<set>/<shots>``, the test accuracy after 0 to 10 Euler steps of 0.1. A state has the class
of the most similar class embedding, as in the paper; what ``predict`` hears beside that is left
out. The draw of the support set is that of the file (seed 0); the seeds are those of the training.
Prints, for each set, the mean curve, its spread over seeds, the reference's curve and the largest
difference at steps 1 to 5; ends with status 1 if that exceeds 1.5 points anywhere. Over an hour of
CPU with 12 blocks of 512.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import feature_sets
import numpy as np
from joblib import Parallel, delayed

from flowalign import FlowMatchingAligner
from flowalign.benchmark.measurements import right

RECIPE = {
    "velocity_field": "mlp",
    "n_blocks": 12,
    "max_iter": 200,
    "batch_size": 32,
    "learning_rate_init": 2e-4,
    "weight_decay": 0.01,
    "noise": 0,
}
TOLERANCE = 0.015


def curve(path: Path, n_shots: int, seed: int) -> tuple[list[float], float]:
    """Test accuracy at every step, and the seconds that the fit took."""
    X, y, table, X_test, y_test = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed=0)
    aligner = FlowMatchingAligner(
        table, **RECIPE, hidden_dim=X.shape[1], n_steps=5, logit_scale=100, random_state=seed
    )
    start = time.perf_counter()
    aligner.fit(X, y)
    seconds = time.perf_counter() - start
    return [right(aligner, x, y_test) for x in aligner.staged_transform(X_test)], seconds


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    reference = json.loads((args.folder / "reference.json").read_text())["curves"]
    worst = 0.0
    for key, entry in reference.items():
        name, shots = key.split("/")
        if int(shots) != args.shots:
            continue
        runs = Parallel(n_jobs=args.jobs)(
            delayed(curve)(args.folder / f"{name}.npz", args.shots, seed)
            for seed in range(args.seeds)
        )
        curves = np.array([run[0] for run in runs])
        theirs = np.array(entry["accuracy_at_steps_0_to_10"])
        gap = float(np.abs(curves.mean(axis=0) - theirs)[1:6].max())
        worst = max(worst, gap)
        print(f"{key}: fit {np.mean([run[1] for run in runs]):.0f} s", flush=True)
        for label, row in (("mean", curves.mean(0)), ("std", curves.std(0)), ("ref", theirs)):
            print(f"  {label:5}" + " ".join(f"{value:.4f}" for value in row))
        print(f"  largest difference at steps 1 to 5: {100 * gap:.2f} points", flush=True)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
