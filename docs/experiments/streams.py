"""Measures what a model that samples come to in blocks has of one that is fitted to all at once.

    python docs/experiments/streams.py FOLDER [--draws 3] [--blocks 20] [--reserve 512]

For every feature set in FOLDER (see ``feature_sets.py``), for all training rows and for 16 of each
class, and for each draw of their order: rows come in blocks through ``partial_fit``, new classes
with their embeddings in the call in which they come. Printed are the largest difference between
class means and between entries of the covariance, each relative to its largest entry, and test
accuracy of the fit in percent and the difference to it; then accuracy with a smaller reserve, on
which fewer rows have a say in what is chosen, in blocks and in one fit. Nothing is chosen on test
data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import feature_sets
import numpy as np
from sklearn.base import clone

from flowalign import FlowMatchingAligner
from flowalign.reserve import MOST, Reserve

SETTINGS = {"all": None, "16 shots": 16}
COLUMNS = ("means", "covariance", "accuracy", "stream", "small, stream", "small, fit")


def keep_at_most(n_rows: int) -> None:
    """Let reserves have this size."""
    Reserve.of.__func__.__kwdefaults__["most"] = n_rows


def streamed(X, y, table, order, n_blocks: int) -> FlowMatchingAligner:
    """Fit to one block after the other."""
    # What is chosen in one call is chosen anew in the next: that of the last is enough.
    aligner = FlowMatchingAligner(n_steps=5, logit_scale=1)
    blocks = np.array_split(order, n_blocks)
    seen = np.empty(0, y.dtype)
    for k, rows in enumerate(blocks):
        new = np.setdiff1d(y[rows], seen)
        seen = np.union1d(seen, new)
        if k == len(blocks) - 1:
            aligner.set_params(n_steps="auto", logit_scale="auto")
        aligner.partial_fit(X[rows], y[rows], table.subset(new) if len(new) else None)
    return aligner


def estimates(aligner: FlowMatchingAligner) -> tuple[np.ndarray, np.ndarray]:
    """Class means and covariance."""
    model = aligner.gaussian_model_
    basis = model.within.basis
    covariance = (basis * model.within.variances) @ basis.T
    return model.class_means.means.numpy(), covariance.numpy()


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def measure(path: Path, n_shots: int | None, seed: int, n_blocks: int, n_rows: int) -> list[float]:
    X, y, table, X_test, y_test = feature_sets.load(path)
    if n_shots is not None:
        X, y = feature_sets.draw(X, y, n_shots, seed)
    order = np.random.default_rng(seed).permutation(len(y))

    def accuracy(aligner: FlowMatchingAligner) -> float:
        return 100 * float(aligner.score(X_test, y_test))

    keep_at_most(MOST)
    whole = FlowMatchingAligner(table.subset(y)).fit(X, y)
    stream = streamed(X, y, table, order, n_blocks)
    differences = [apart(*pair) for pair in zip(estimates(stream), estimates(whole), strict=True)]
    keep_at_most(n_rows)
    small = streamed(X, y, table, order, n_blocks), clone(whole).fit(X, y)
    keep_at_most(MOST)
    alone = accuracy(whole)
    return [*differences, alone, *(accuracy(other) - alone for other in (stream, *small))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--reserve", type=int, default=512)
    args = parser.parse_args()
    for setting, n_shots in SETTINGS.items():
        rows = []
        print(f"{setting:<31} {' '.join(f'{name:>13}' for name in COLUMNS)}")
        for path in sorted(args.folder.glob("*.npz")):
            draws = [
                measure(path, n_shots, seed, args.blocks, args.reserve)
                for seed in range(args.draws)
            ]
            rows.append(np.mean(draws, axis=0))
            rows[-1][:2] = np.max(draws, axis=0)[:2]
            print(f"{path.stem:<31} {_line(rows[-1])}", flush=True)
        mean, worst = np.mean(rows, axis=0), np.min(rows, axis=0)
        mean[:2] = worst[:2] = np.max(rows, axis=0)[:2]
        print(f"{'mean, largest difference':<31} {_line(mean)}")
        print(f"{'worst':<31} {_line(worst)}\n", flush=True)


def _line(row) -> str:
    cells = [*(f"{value:13.1e}" for value in row[:2]), f"{row[2]:13.2f}"]
    return " ".join([*cells, *(f"{value:+13.2f}" for value in row[3:])])


if __name__ == "__main__":
    main()
