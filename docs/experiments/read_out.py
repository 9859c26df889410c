"""Compares what class probabilities can be read out of, and how sure a density may be.

    python docs/experiments/read_out.py FOLDER [--field gaussian] [--shots 1 2 4 16] [--draws 3]
    python docs/experiments/read_out.py FOLDER --density

For every number of shots: mean accuracy, log-loss and expected calibration error (15 bins) over the
feature sets in FOLDER (see ``feature_sets.py``), in percent but for the log-loss, of the cosines at
time 0.5 at a scale fitted to held-out samples, of the model before anything moves, of both with a
weight of 1, and of both with weights fitted to held-out samples. Test data report, and choose
nothing.

With ``--density``, of sets whose spaces are not joint, the weight of the log-density times the
width of the features under which the undrawn training samples are most likely, by a search: what
the prior of that weight was taken from. No test data are read.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import feature_sets
import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from flowalign import FlowMatchingAligner, ode
from flowalign.benchmark.metrics import evaluate
from flowalign.calibration import calibrate
from flowalign.class_embeddings import class_vectors
from flowalign.coupling import Coupling
from flowalign.fields import kind_of
from flowalign.fields.fitting import field_fitter
from flowalign.held_out import HeldOut, hold_out
from flowalign.sphere import unit_rows

TIMES, STEP = ode.grid(10, 0.1), np.array([5])


def fitted(path: Path, field: str, n_shots: int, seed: int):
    """Return a fit to a draw, its coupling, and its held-out parts."""
    X, y, table, *_ = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed)
    coupling = Coupling.by_class(unit_rows(X, "X"), y, class_vectors(table, normalize=True))
    params = FlowMatchingAligner(random_state=seed, device="cpu").get_params()
    n_classes = len(table.classes)
    kind, prior = kind_of(field), np.full(n_classes, 1 / n_classes)
    fit = field_fitter(kind, params, prior, torch.device("cpu"))
    found = fit(coupling)
    return found, coupling, hold_out(kind, found, coupling, None, fit)[1]


def heard(parts: list[HeldOut]):
    """Cosines at time 0.5, log-probabilities before, and classes."""
    cosines = np.concatenate([part.contrasts(TIMES, STEP, "euler")[0] for part in parts])
    before = np.concatenate([part.log_proba() for part in parts])
    return cosines, before, np.concatenate([part.codes for part in parts])


def compare(path: Path, field: str, n_shots: int, seed: int) -> dict[str, list[float]]:
    """Accuracy, log-loss and calibration error of each way to read out, on test data."""
    found, coupling, parts = fitted(path, field, n_shots, seed)
    *_, X_test, y_test = feature_sets.load(path)
    x, targets = torch.from_numpy(unit_rows(X_test, "X")), torch.from_numpy(coupling.targets)
    test = HeldOut(found.field, x, y_test, targets.float(), found.classifier)
    cosines, before, codes = heard(parts)
    (scale,), _ = calibrate([cosines], codes, [30], [0.5])
    weights, _ = calibrate([cosines, before], codes, [1, 1], [0.5, 0.5])
    new_cosines, new_before, _ = heard([test])
    scores = {
        "cosines": scale * new_cosines,
        "model": new_before,
        "both, 1 and 1": new_cosines + new_before,
        "both, fitted": weights[0] * new_cosines + weights[1] * new_before,
    }
    rows = {}
    for name, values in scores.items():
        said = evaluate(np.exp(log_softmax(values.astype(float), axis=1)), y_test)
        rows[name] = [100 * said["accuracy"], said["log_loss"], 100 * said["ece"]]
    return rows


def best_density_weight(path: Path, n_shots: int, seed: int) -> float | None:
    """Weight of the log-density best for undrawn samples, times the width; None in joint spaces."""
    found, coupling, _ = fitted(path, "gaussian", n_shots, seed)
    X, y = feature_sets.undrawn(path, n_shots, seed)
    if coupling.joint or not len(X):
        return None
    width = X.shape[1]
    with torch.inference_mode():
        x = torch.from_numpy(unit_rows(X, "X"))
        density = found.classifier.field.log_weights(x.new_zeros(()), x).double().numpy()
    rows = np.arange(len(y))

    def loss(log_weight: float) -> float:
        return -log_softmax(np.exp(log_weight) / width * density, axis=1)[rows, y].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(0, 7), method="bounded").x))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--field", default="gaussian")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--density", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "class_embeddings are equal")
    for n_shots in args.shots:
        means = []
        for path in sorted(args.folder.glob("*.npz")):
            seeds = range(args.draws)
            if args.density:
                weights = [best_density_weight(path, n_shots, seed) for seed in seeds]
                if None not in weights:
                    print(f"{n_shots:3} {path.stem:24}{np.exp(np.log(weights).mean()):7.1f}")
                continue
            rows = [compare(path, args.field, n_shots, seed) for seed in seeds]
            means.append({name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]})
        for name in means[0] if means else ():
            accuracy, log_loss, ece = np.mean([mean[name] for mean in means], axis=0)
            print(f"{n_shots:3} {name:16}{accuracy:7.2f}{log_loss:8.3f}{ece:7.1f}", flush=True)


if __name__ == "__main__":
    main()
