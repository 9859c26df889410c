"""Measures what a model that samples come to in blocks has of one that is fitted to all at once.

    python docs/experiments/streams.py FOLDER [--shots 0 16] [--draws 3] [--blocks 20]
        [--reserve 512]

For every feature set in FOLDER (see ``feature_sets.py``), of 16 rows of each class or, for 0 shots,
of all training rows, and for each draw of their order: rows come in blocks through ``partial_fit``,
new classes with their embeddings in the call in which they come. Printed are the largest difference
between class means and between entries of the covariance, each relative to its largest entry; test
accuracy of the fit to all, in percent; the change of accuracy and log-loss in the stream; the
same with a smaller reserve, on which fewer rows have a say in what is chosen; and the largest
difference between probabilities of that stream and of one fit with the smaller reserve. Which rows
are in the reserve depends on their bytes, so each draw shuffles the features as well, of rows and,
where they are as wide, of class embeddings. Nothing is chosen on test data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import feature_sets
import numpy as np
from sklearn.base import clone

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.benchmark.metrics import evaluate
from flowalign.reserve import MOST, Reserve

COLUMNS = (
    "means", "covariance", "accuracy", "stream", "log-loss", "small", "log-loss", "and its fit",
)  # fmt: skip


def keep_at_most(n_rows: int) -> None:
    """Let reserves have this size."""
    Reserve.of.__func__.__kwdefaults__["most"] = n_rows


def streamed(X, y, table, order, n_blocks: int) -> FlowMatchingAligner:
    """Fit to one block after the other."""
    # What is chosen in one call is chosen anew in the next: that of the last is enough.
    aligner = FlowMatchingAligner(n_steps=5, logit_scale=1, device="cpu")
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


def measure(path: Path, n_shots: int, seed: int, n_blocks: int, n_rows: int) -> list[float]:
    X, y, table, X_test, y_test = feature_sets.load(path)
    if n_shots:
        X, y = feature_sets.draw(X, y, n_shots, seed)
    rng = np.random.default_rng(seed)
    order, columns = rng.permutation(len(y)), rng.permutation(X.shape[1])
    if table.vectors.shape[1] == len(columns):
        table = ClassEmbeddings(table.classes, table.vectors[:, columns])
    X, X_test = (np.ascontiguousarray(rows[:, columns]) for rows in (X, X_test))

    def said(aligner: FlowMatchingAligner) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities, and accuracy in percent and log-loss."""
        proba = aligner.predict_proba(X_test)
        found = evaluate(proba, np.searchsorted(aligner.classes_, y_test))
        return proba, np.array([100 * found["accuracy"], found["log_loss"]])

    keep_at_most(MOST)
    whole = FlowMatchingAligner(table.subset(y), device="cpu").fit(X, y)
    stream = streamed(X, y, table, order, n_blocks)
    differences = [apart(*pair) for pair in zip(estimates(stream), estimates(whole), strict=True)]
    keep_at_most(n_rows)
    small, small_fit = streamed(X, y, table, order, n_blocks), clone(whole).fit(X, y)
    keep_at_most(MOST)
    (_, scores), (_, in_stream), (proba, with_few) = map(said, (whole, stream, small))
    same = np.abs(proba - small_fit.predict_proba(X_test)).max()
    return [*differences, scores[0], *(in_stream - scores), *(with_few - scores), float(same)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--reserve", type=int, default=512)
    args = parser.parse_args()
    for n_shots in args.shots:
        print(f"{n_shots or 'all':<25} {' '.join(f'{name:>11}' for name in COLUMNS)}")
        rows = []
        for path in sorted(args.folder.glob("*.npz")):
            draws = [
                measure(path, n_shots, seed, args.blocks, args.reserve)
                for seed in range(args.draws)
            ]
            rows.append(draws)
            report(path.stem, draws)
        report("all sets", np.concatenate(rows))


def report(name: str, draws) -> None:
    """Print means, and of differences that should be 0 the largest."""
    row, largest = np.mean(draws, axis=0), np.max(draws, axis=0)
    cells = [f"{largest[0]:11.1e}", f"{largest[1]:11.1e}", f"{row[2]:11.2f}"]
    for accuracy, log_loss in (row[3:5], row[5:7]):
        cells += [f"{accuracy:+11.2f}", f"{log_loss:+11.4f}"]
    print(f"{name:<25} {' '.join(cells)} {largest[7]:11.1e}", flush=True)


if __name__ == "__main__":
    main()
