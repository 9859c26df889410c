"""Measures what centring or scaling the coordinates does, and how loud the loudest of them is.

    python docs/experiments/feature_scale.py FOLDER [--draws 2] [--shots 1 4 16]

For every feature set in FOLDER (see ``feature_sets.py``) and number of shots: the test accuracy in
percent, mean of the draws, of the features as they are, centred, and with each coordinate scaled to
its standard deviation in the support set; then the largest share of one coordinate in the variance
of the normalised support features, within classes where these have several samples. The last lines
say what one loud coordinate of noise does: 64 coordinates, six classes, eight samples each.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import feature_sets
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowalign import FlowMatchingAligner
from flowalign.feature_scale import loudest, within_variances
from flowalign.sphere import unit_rows


def accuracies(X, y, table, X_test, y_test) -> list[float]:
    """Accuracy in percent of the features as they are, centred, and scaled by coordinate."""
    aligner = FlowMatchingAligner(table)
    models = [
        aligner,
        make_pipeline(StandardScaler(with_std=False), aligner),
        make_pipeline(StandardScaler(), aligner),
    ]
    return [100 * model.fit(X, y).score(X_test, y_test) for model in models]


def largest_share(X, y) -> float:
    """Share of the loudest coordinate."""
    return loudest(within_variances(unit_rows(X, "X"), y))[1]


def with_loud_coordinate(loudness: float, seed: int):
    """Return X, y, no table, X_test, y_test of Gaussian classes and a coordinate of noise."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((6, 64))
    y = np.repeat(np.arange(6), 58)
    X = means[y] + rng.standard_normal((len(y), 64))
    X[:, 0] = loudness * rng.standard_normal(len(y))
    train = np.arange(len(y)) % 58 < 8
    return X[train], y[train], None, X[~train], y[~train]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "Column")  # that is what the last lines are about
    print(f"{'':26}as is  centred  scaled  largest share")
    for path in sorted(args.folder.glob("*.npz")):
        X_all, y_all, table, X_test, y_test = feature_sets.load(path)
        for n_shots in args.shots:
            rows = []
            for seed in range(args.draws):
                X, y = feature_sets.draw(X_all, y_all, n_shots, seed)
                rows.append([*accuracies(X, y, table, X_test, y_test), largest_share(X, y)])
            report(f"{path.stem} {n_shots}", rows)
    for loudness in (1, 10, 30, 100):
        sets = [with_loud_coordinate(loudness, seed) for seed in range(5)]
        report(f"loud x {loudness}", [[*accuracies(*s), largest_share(*s[:2])] for s in sets])


def report(name: str, rows: list[list[float]]) -> None:
    means, share = np.mean(rows, axis=0)[:-1], np.max(rows, axis=0)[-1]
    line = f"{name:24}" + "".join(f"{mean:8.2f}" for mean in means)
    print(f"{line}{share:11.3f}", flush=True)


if __name__ == "__main__":
    main()
