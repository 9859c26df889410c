"""Compares rules that choose the stop: one for all samples, or one for each.

    python docs/experiments/stopping.py FOLDER [--field gaussian] [--shots 1 2 4 8 16] [--seeds 1]

For every feature set in FOLDER (see ``feature_sets.py``) a support set is drawn, and the field is
fitted to it and to its stratified folds (min(shots, 4) of them; with one shot the folds hold out
whole classes). Every rule sees the states of out-of-fold samples alone, and their cosines with the
class embeddings, which are all that is read of them here. Prints the accuracy that its
choice has on samples outside of the support set, in percent, averaged over the sets: training
samples that were not drawn, or test data with ``--test``, to report.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import feature_sets
import numpy as np
from joblib import Parallel, delayed
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import KFold, StratifiedKFold

from flowalign import FlowMatchingAligner

DEFAULT = 5  # steps of 0.1
ENOUGH_LEFT = 5  # undrawn samples for each class, on average, to count a set as held out


class Stages:
    """What the rules may look at, for n samples after each of S steps.

    ``codes`` and ``hits``, (S, n); ``margin``, (S, n), between the two largest cosines; ``move``,
    (S, n), length of the next step; ``cosines``, (S, n, C).
    """

    def __init__(self, model: FlowMatchingAligner, X, y) -> None:
        states = np.stack(list(model.staged_transform(X)))
        self.cosines = np.stack([cosine_similarity(x, model.class_embeddings_) for x in states])
        self.y = y
        moves = np.linalg.norm(np.diff(states, axis=0), axis=2)
        self.move = np.concatenate([moves, moves[-1:]])
        self.read()

    def read(self) -> Stages:
        self.codes = self.cosines.argmax(axis=2)
        self.hits = (self.codes == self.y).astype(float)
        top = np.partition(self.cosines, -2, axis=2)[:, :, -2:]
        self.margin = top[:, :, 1] - top[:, :, 0]
        return self

    @classmethod
    def concatenate(cls, parts: list[Stages]) -> Stages:
        whole = cls.__new__(cls)
        whole.cosines = np.concatenate([part.cosines for part in parts], axis=1)
        whole.move = np.concatenate([part.move for part in parts], axis=1)
        whole.y = np.concatenate([part.y for part in parts])
        return whole.read()

    def log_losses(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each sample after each step, at the best temperature of the step; and these."""
        each = np.arange(len(self.y))
        losses, scales = [], []
        for cosines in self.cosines:

            def loss(log_scale: float, cosines=cosines) -> np.ndarray:
                logits = np.exp(log_scale) * cosines
                return logsumexp(logits, axis=1) - logits[each, self.y]

            best = minimize_scalar(lambda s: loss(s).mean(), bounds=(0, 7), method="bounded").x
            losses.append(loss(best))
            scales.append(np.exp(best))
        return np.stack(losses), np.array(scales)


def fewest_within(losses: np.ndarray, n_errors: float) -> int:
    """The fewest steps whose mean loss is within paired standard errors of the least."""
    best = losses.mean(axis=1).argmin()
    gap = losses - losses[best]
    error = gap.std(axis=1) / np.sqrt(losses.shape[1])
    return int(np.argmax(gap.mean(axis=1) <= n_errors * error))


def unless(hits: np.ndarray, default: int, n_errors: float) -> int:
    """The default, unless another step gains so many standard errors in hits; then the best."""
    gain = (hits - hits[default]).sum(axis=1)
    error = np.sqrt(np.abs(hits - hits[default]).sum(axis=1))
    clear = np.flatnonzero((gain >= n_errors * error) & (error > 0))
    return int(clear[gain[clear].argmax()]) if len(clear) else default


def common_stops(seen: Stages) -> dict[str, int]:
    """One step for all samples, by each rule."""
    losses, _ = seen.log_losses()
    hits = seen.hits
    return {
        "no step": 0,
        "default step": DEFAULT,
        "last step": len(hits) - 1,
        "most hits": int(hits.mean(axis=1).argmax()),
        "least log-loss": int(losses.mean(axis=1).argmin()),
        "log-loss, fewest steps within 1 s.e.": fewest_within(losses, 1),
        "hits, fewest steps within 1 s.e.": fewest_within(1 - hits, 1),
        "0 unless 1 s.e. of hits": unless(hits, 0, 1),
        "default unless 1 s.e. of hits": unless(hits, DEFAULT, 1),
        "default unless 2 s.e. of hits": unless(hits, DEFAULT, 2),
        "default unless 3 s.e. of hits": unless(hits, DEFAULT, 3),
    }


def first(stop_here: np.ndarray) -> np.ndarray:
    """First step of each sample at which the condition holds, else the last step."""
    return np.where(stop_here.any(axis=0), stop_here.argmax(axis=0), len(stop_here) - 1)


def agreement(stages: Stages, length: int) -> np.ndarray:
    """First step after which so many predictions in a row were the same."""
    same = stages.codes[1:] == stages.codes[:-1]
    runs = np.zeros_like(stages.codes)
    for step, still in enumerate(same, start=1):
        runs[step] = np.where(still, runs[step - 1] + 1, 0)
    return first(runs >= length)


def thresholded(
    seen: Stages, new: Stages, candidates, stop: Callable[[Stages, float], np.ndarray]
) -> float:
    """Accuracy on new samples with the threshold that has the most hits among those seen."""

    def accuracy(stages: Stages, threshold: float) -> float:
        steps = stop(stages, threshold)
        return float(stages.hits[steps, np.arange(len(steps))].mean())

    best = max(candidates, key=lambda threshold: accuracy(seen, threshold))
    return accuracy(new, best)


def per_sample(seen: Stages, new: Stages) -> dict[str, float]:
    """Accuracy of rules that stop each sample at a step of its own."""
    _, scales = seen.log_losses()

    def confidence(stages: Stages) -> np.ndarray:
        logits = scales[:, None, None] * stages.cosines
        return np.exp(logits.max(axis=2) - logsumexp(logits, axis=2))

    levels = np.linspace(0, 1, 21)
    each = np.arange(len(new.y))
    surest = confidence(new).argmax(axis=0)
    return {
        "each: margin above a threshold": thresholded(
            seen, new, np.quantile(seen.margin, levels), lambda s, q: first(s.margin >= q)
        ),
        "each: probability above a threshold": thresholded(
            seen, new, levels, lambda s, q: first(confidence(s) >= q)
        ),
        "each: next step below a threshold": thresholded(
            seen, new, np.quantile(seen.move, levels), lambda s, q: first(s.move <= q)
        ),
        "each: same class several times": thresholded(
            seen, new, range(1, 8), lambda s, m: agreement(s, m)
        ),
        "each: largest margin": float(new.hits[new.margin.argmax(axis=0), each].mean()),
        "each: largest probability": float(new.hits[surest, each].mean()),
    }


def evaluate(path: Path, field: str, n_shots: int, seed: int, test: bool) -> dict[str, float]:
    X_train, y_train, table, X_new, y_new = feature_sets.load(path)
    X, y = feature_sets.draw(X_train, y_train, n_shots, seed)
    if not test:
        X_new, y_new = feature_sets.undrawn(path, n_shots, seed)
        if len(X_new) < ENOUGH_LEFT * len(np.unique(y)):
            return {}

    def stages(X, y, X_new, y_new) -> Stages:
        model = FlowMatchingAligner(
            table, velocity_field=field, n_steps=DEFAULT, logit_scale=100, random_state=seed
        )
        return Stages(model.fit(X, y), X_new, y_new)

    splitter = StratifiedKFold if n_shots > 1 else KFold
    folds = splitter(min(n_shots, 4) if n_shots > 1 else 4, shuffle=True, random_state=0)
    seen = Stages.concatenate(
        [stages(X[a], y[a], X[b], y[b]) for a, b in folds.split(X, y)],
    )
    new = stages(X, y, X_new, y_new)
    accuracy = new.hits.mean(axis=1)
    row = {"best step for the new samples": float(accuracy.max())}
    row |= {rule: float(accuracy[step]) for rule, step in common_stops(seen).items()}
    return row | per_sample(seen, new)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--field", default="gaussian")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="report on test data")
    args = parser.parse_args()
    for n_shots in args.shots:
        rows = Parallel(n_jobs=args.jobs)(
            delayed(evaluate)(path, args.field, n_shots, seed, args.test)
            for path in sorted(args.folder.glob("*.npz"))
            for seed in range(args.seeds)
        )
        rows = [row for row in rows if row]
        print(f"{args.field}, {n_shots} shots, mean of {len(rows)} cases")
        for rule in rows[0]:
            print(f"  {rule:40} {100 * np.mean([row[rule] for row in rows]):6.2f}", flush=True)


if __name__ == "__main__":
    main()
