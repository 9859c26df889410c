"""Compares the closed-form field with the trained network, both at their defaults.

    python docs/experiments/compare_fields.py FOLDER [--shots 1 4 16] [--fields gaussian mlp]
        [--fixed]

For every feature set in FOLDER (see ``feature_sets.py``), test accuracy in percent: the mean over
three draws of the support set (of training seeds, where the training data hold one draw only), and
the standard deviation over them. Zero steps are zero-shot in joint spaces and
the mapped class embeddings elsewhere. Nothing is chosen on test data. With
``--fixed`` the stop is step 5 and nothing is held out in ``fit``. If FOLDER has a
``peers.json`` (accuracies of other methods by ``<set>/<shots>``), its GDA blended with zero-shot
and its best method stand beside; their hyper-parameters were chosen on test data.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import feature_sets
import numpy as np
from joblib import Parallel, delayed

from flowalign import FlowMatchingAligner


def accuracies(path: Path, n_shots: int, seed: int, fields: list[str], fixed: bool) -> np.ndarray:
    """Percent right after no steps, then for each field at its default stop and its seconds."""
    X, y, table, X_test, y_test = feature_sets.load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed)
    row = []
    numbers = {"n_steps": 5, "logit_scale": 100} if fixed else {}
    for name in fields:
        model = FlowMatchingAligner(table, velocity_field=name, random_state=seed, **numbers)
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
        row += [100 * model.score(X_test, y_test), seconds]
    return np.array([100 * model.set_params(n_steps=0).score(X_test, y_test), *row])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--fields", nargs="+", default=["gaussian", "mlp"])
    parser.add_argument("--fixed", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    peers_file = args.folder / "peers.json"
    peers = json.loads(peers_file.read_text()) if peers_file.exists() else {}
    for n_shots in args.shots:
        means = []
        print(f"{n_shots} shots: set, zero steps, {', '.join(args.fields)} (s of a fit), peers")
        for path in sorted(args.folder.glob("*.npz")):
            rows = Parallel(n_jobs=args.jobs)(
                delayed(accuracies)(path, n_shots, seed, args.fields, args.fixed)
                for seed in range(3)
            )
            mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
            others = peers.get(f"{path.stem}/{n_shots}", {})
            beside = [
                100 * others.get("gda+zs*", np.nan),
                100 * max(others.values(), default=np.nan),
            ]
            means.append([mean[0], *mean[1::2], *beside])
            cells = " ".join(
                f"{mean[k]:6.2f} +- {spread[k]:4.2f} ({mean[k + 1]:5.2f} s)"
                for k in range(1, len(mean), 2)
            )
            print(f"  {path.stem:20} {mean[0]:6.2f} {cells}  {beside[0]:6.2f} {beside[1]:6.2f}")
        print("  " + "mean".ljust(20) + " ".join(f"{v:7.3f}" for v in np.mean(means, axis=0)))


if __name__ == "__main__":
    main()
