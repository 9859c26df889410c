"""Measures test accuracy against the noise on the path.

    python docs/experiments/noise.py FOLDER [--sets NAME ...] [--field gaussian] [--shots 4]

For each noise, the test accuracy after 0 to 10 steps of 0.1, in percent, of a field fitted to the
support set of draw 0, averaged over the named feature sets of FOLDER (all of them, if none is
named; see ``feature_sets.py``). A trained field is averaged over ``--seeds`` seeds as well. The
last column is the whole flow by an adaptive solver, in which no step is too long. The flow alone is
measured: a state has the class of the most similar class embedding.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import feature_sets
import numpy as np
from joblib import Parallel, delayed

from flowalign import FlowMatchingAligner
from flowalign.benchmark.measurements import right

NOISE = (0.0, 0.1, 0.3, 1.0, 3.0)


def curve(path: Path, field: str, n_shots: int, noise: float, seed: int) -> list[float]:
    """Test accuracy in percent at every Euler step, then after the whole flow by dopri5."""
    X, y, table, X_test, y_test = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed=0)
    model = FlowMatchingAligner(
        table, velocity_field=field, noise=noise, n_steps=10, logit_scale=100, random_state=seed
    )
    states = [*model.fit(X, y).staged_transform(X_test)]
    states.append(model.set_params(solver="dopri5", n_steps=10).transform(X_test))
    return [100 * right(model, x, y_test) for x in states]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=["*"])
    parser.add_argument("--field", default="gaussian")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    paths = [path for name in args.sets for path in sorted(args.folder.glob(f"{name}.npz"))]
    print(f"{args.field} field, {args.shots} shots, mean of {len(paths)} sets, {args.seeds} seeds")
    for noise in NOISE:
        curves = Parallel(n_jobs=args.jobs)(
            delayed(curve)(path, args.field, args.shots, noise, seed)
            for path in paths
            for seed in range(args.seeds)
        )
        row = [f"{value:5.2f}" for value in np.mean(curves, axis=0)]
        print(f"  noise {noise:3.1f}: {' '.join(row[:-1])}   dopri5 {row[-1]}", flush=True)


if __name__ == "__main__":
    main()
