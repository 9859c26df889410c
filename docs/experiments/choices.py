"""Reports what the aligner chooses by default: the stop, the scale, and what they cost.

    python docs/experiments/choices.py FOLDER [--field gaussian] [--shots 1 4 16]

For every feature set in FOLDER (see ``feature_sets.py``) and three draws of the support set (three
training seeds, where the training data hold one draw only): test accuracy after no steps, after the
chosen ones and after the best on test; expected calibration error (15 bins) and log-loss of
``predict_proba``, of the cosines at the stop alone at the customary inverse temperature of 100, and
with ``--peer`` of ``predict_proba`` calibrated by scikit-learn's ``CalibratedClassifierCV``
(temperature, min(shots, 4) folds). With
``--repeats``, also the median time of a fit beside one with both given as numbers, in turn. Nothing
is chosen on test data.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import feature_sets
import numpy as np
from joblib import Parallel, delayed
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity

from flowalign import FlowMatchingAligner
from flowalign.ode import STEP_SIZE, nearest_step


def calibration_error(probabilities, codes, n_bins: int = 15) -> float:
    """Expected calibration error: of the largest probability, in bins of equal width."""
    confidence = probabilities.max(axis=1)
    gaps = (probabilities.argmax(axis=1) == codes) - confidence
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / len(codes))


def evaluate(
    path: Path, field: str, n_shots: int, seed: int, repeats: int, with_peer: bool
) -> dict[str, float]:
    X, y, table, X_test, y_test = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed)
    model = FlowMatchingAligner(table, velocity_field=field, random_state=seed).fit(X, y)
    fixed = FlowMatchingAligner(
        table, velocity_field=field, n_steps=5, logit_scale=100, random_state=seed
    )
    seconds = {"chosen": [], "fixed": []}
    for _ in range(repeats):
        for name, one in (("chosen", model), ("fixed", fixed)):
            start = time.perf_counter()
            one.fit(X, y)
            seconds[name].append(time.perf_counter() - start)
    curve = [100 * np.mean(labels == y_test) for labels in model.staged_predict(X_test)]
    row = {
        "step": (step := nearest_step(model.stop_time_, STEP_SIZE)),
        "scale": model.logit_scale_,
        "no steps": curve[0],
        "chosen": curve[step],
        "best": max(curve),
    }
    X_test = X_test.astype(float)  # in float32 rows sum to one too roughly for log_loss
    probabilities = {"": model.predict_proba(X_test)}
    cosines = cosine_similarity(model.transform(X_test), model.class_embeddings_)
    probabilities[" of cosines at 100"] = softmax(100 * cosines, axis=1)
    if with_peer:
        peer = CalibratedClassifierCV(
            fixed, method="temperature", cv=min(n_shots, 4), ensemble=False
        ).fit(X, y)
        probabilities[" of CalibratedClassifierCV"] = peer.predict_proba(X_test)
    for name, P in probabilities.items():
        row["ECE" + name] = 100 * calibration_error(P, y_test)
        row["log-loss" + name] = log_loss(y_test, P, labels=model.classes_)
    if repeats:
        row["seconds"] = np.median(seconds["chosen"])
        row["seconds, fixed"] = np.median(seconds["fixed"])
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--field", default="gaussian")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--peer", action="store_true", help="takes two samples of each class")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.npz"))
    for n_shots in args.shots:
        means, lower = [], 0
        for path in paths:
            rows = Parallel(n_jobs=args.jobs)(
                delayed(evaluate)(path, args.field, n_shots, seed, args.repeats, args.peer)
                for seed in range(args.draws)
            )
            if path == paths[0]:
                print(f"{args.field}, {n_shots} shots: steps,", ", ".join([*rows[0]][1:]))
            steps = Counter(row["step"] for row in rows)
            lower += sum(row["chosen"] < row["no steps"] for row in rows)
            mean = [np.mean([row[name] for row in rows]) for name in rows[0]][1:]
            means.append(mean)
            chosen = " ".join(f"{step}x{count}" for step, count in steps.items())
            print(f"  {path.stem:20} {chosen:12}" + " ".join(f"{v:7.2f}" for v in mean), flush=True)
        means = np.mean(means, axis=0)
        print("  " + "mean".ljust(33) + " ".join(f"{v:7.3f}" for v in means))
        n_cases = args.draws * len(paths)
        print(f"  regret {means[3] - means[2]:.2f}; below no steps in {lower} of {n_cases}")


if __name__ == "__main__":
    main()
