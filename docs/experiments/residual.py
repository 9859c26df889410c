"""Measures whether a network learns anything on top of the closed-form field.

    python docs/experiments/residual.py FOLDER [--jobs 1]

Three fields with the same support set, noise and targets: the closed form, the trained network, and
their sum, in which the network (whose output starts at zero) is trained on what the closed form
leaves. On scikit-learn's digits, raw pixels that are far from Gaussian, with class means for
targets, and on the sets of FOLDER (see ``feature_sets.py``) that have more than 16 training samples
a class, with all of them. Half of the support set trains, the other half
is predicted, and the other way round; test data are never read. Prints the accuracy in percent
after 5 and 10 steps, with the standard deviation over the halves of three draws, and the loss of
the residual at its first and its last epoch. The fields alone are measured: a state has the class
of the most similar class embedding.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import feature_sets
import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

from flowalign import FlowMatchingAligner
from flowalign.benchmark.measurements import right
from flowalign.fields import VelocityField
from flowalign.gaussian import GaussianField
from flowalign.network import MLPField
from flowalign.network.fit import default_batch_size, default_hidden_dim
from flowalign.network.training import train

DIGITS = Path("digits")
STEPS = (5, 10)


class ResidualField(VelocityField):
    """Closed form plus network; only the network has parameters to train."""

    def __init__(self, exact: GaussianField, network: MLPField) -> None:
        super().__init__()
        self.exact, self.network = exact, network

    def velocity(self, t, x):
        if t.ndim == 0:
            return self.exact(t, x) + self.network(t, x)
        exact = torch.vmap(lambda t, x: self.exact(t, x[None])[0])(t, x)
        return exact + self.network(t, x)

    @property
    def row_size(self):
        return max(self.exact.row_size, self.network.row_size)

    def check(self, *args):
        raise TypeError("not kept")

    _rebuild = check


def load(path: Path):
    if path == DIGITS:
        X, y = load_digits(return_X_y=True)
        return X.astype(np.float32), y, None
    X, y, table, *_ = feature_sets.load(path)
    return X, y, table


def fit_residual(model: FlowMatchingAligner, X, y, seed: int) -> list[float]:
    """Train a network on top of the fitted closed form of ``model``, in place."""
    exact = model.velocity_field_
    network = MLPField(X.shape[1], default_hidden_dim(X.shape[1]), model.n_blocks)
    network.reset_parameters(torch.Generator().manual_seed(seed))
    field = ResidualField(exact, network)
    x0 = X / np.linalg.norm(X, axis=1, keepdims=True)
    losses = train(
        field, torch.tensor(x0), torch.tensor(model.class_embeddings_),
        torch.tensor(np.searchsorted(model.classes_, y)), noise=model.noise,
        max_iter=model.max_iter, batch_size=default_batch_size(len(X)),
        learning_rate_init=model.learning_rate_init, weight_decay=model.weight_decay, seed=seed,
    )  # fmt: skip
    model.velocity_field_ = field
    return losses


def compare(path: Path, n_shots: int, seed: int) -> list[np.ndarray]:
    X, y, table = load(path)
    X, y = feature_sets.draw(X, y, n_shots, seed)
    results = []
    for train_rows, held_out in StratifiedKFold(2, shuffle=True, random_state=seed).split(X, y):
        row = []
        for name in ("gaussian", "mlp", "residual"):
            field = "mlp" if name == "mlp" else "gaussian"
            model = FlowMatchingAligner(
                table,
                velocity_field=field,
                n_steps=5,
                logit_scale=100,
                random_state=seed,
                device="cpu",  # where the two fields are put together
            )
            model.fit(X[train_rows], y[train_rows])
            if name == "residual":
                losses = fit_residual(model, X[train_rows], y[train_rows], seed)
            states = list(model.staged_transform(X[held_out]))
            row += [100 * right(model, states[k], y[held_out]) for k in STEPS]
        results.append(np.array([*row, losses[0], losses[-1]]))
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    cases = [(DIGITS, 16), (DIGITS, 50), (DIGITS, 170)]
    for path in sorted(args.folder.glob("*.npz")):
        n_shots = int(np.bincount(feature_sets.load(path)[1]).max())
        if n_shots > 16:
            cases.append((path, n_shots))
    print(f"accuracy after {STEPS} steps: closed form, network, network on closed form; its loss")
    for path, n_shots in cases:
        runs = Parallel(n_jobs=args.jobs)(
            delayed(compare)(path, n_shots, seed) for seed in range(3)
        )
        rows = np.concatenate(runs)
        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        cells = "  ".join(
            f"{m:5.1f} +- {s:3.1f}" for m, s in zip(mean[:6], spread[:6], strict=True)
        )
        print(f"{path.stem}, {n_shots // 2} a class: {cells}   {mean[6]:.4f} to {mean[7]:.4f}")


if __name__ == "__main__":
    main()
