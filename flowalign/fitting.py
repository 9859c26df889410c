"""From arrays to a fitted field, on a device.

Functions of their arguments alone, so that their results can be cached. What acts at predict time
(solver, steps, temperature) is not among the arguments: a search over it fits once.

Shapes: ``X`` (n, d) features, ``targets`` (C, d) where each class goes, ``codes`` (n,) the class of
each sample, a row of ``targets``, ``E`` (C, e) class embeddings in their own space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowalign.closed_form import fit_gaussian_field
from flowalign.fields import GaussianField, MLPField
from flowalign.training import train

if TYPE_CHECKING:
    from numpy.typing import NDArray

HIDDEN_DIM_RANGE = (64, 512)  # of the default; docs/decisions/0003-defaults.md has the figures


def fit_gaussian(
    X: NDArray[Any],
    targets: NDArray[Any],
    codes: NDArray[Any],
    E: NDArray[Any] | None,
    *,
    joint: bool,
    prior: NDArray[Any],
    noise: float,
    device: str,
) -> tuple[GaussianField, list[float]]:
    """Return the closed form on the device, and an empty loss curve."""
    # The estimates need float64, which MPS lacks.
    place: Any = "cpu" if device.startswith("mps") else device

    def tensor(array: NDArray[Any]) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float64, device=place)

    field = fit_gaussian_field(
        tensor(X),
        tensor(targets),
        torch.tensor(codes, device=place),
        embeddings=None if E is None else tensor(E),
        joint=joint,
        log_prior=tensor(np.log(prior)),
        noise=noise,
    )
    return field.to(device), []


def fit_network(
    X: NDArray[Any],
    targets: NDArray[Any],
    codes: NDArray[Any],
    *,
    noise: float,
    n_blocks: int,
    hidden_dim: int | None,
    max_iter: int,
    batch_size: int,
    learning_rate_init: float,
    weight_decay: float,
    seeds: tuple[int, int],
    device: str,
    verbose: int,
) -> tuple[MLPField, list[float]]:
    """Return the trained network on the device, and its loss curve."""
    weight_seed, path_seed = seeds
    width = X.shape[1]
    field = MLPField(width, hidden_dim or int(np.clip(width, *HIDDEN_DIM_RANGE)), n_blocks)
    # Weights are drawn on the CPU: every device starts from the same field.
    field.reset_parameters(torch.Generator().manual_seed(weight_seed))
    loss_curve = train(
        field.to(device),
        torch.tensor(X, dtype=torch.float32, device=device),
        torch.tensor(targets, dtype=torch.float32, device=device),
        torch.tensor(codes, device=device),
        noise=noise,
        max_iter=max_iter,
        batch_size=batch_size,
        learning_rate_init=learning_rate_init,
        weight_decay=weight_decay,
        seed=path_seed,
        verbose=verbose,
    )
    return field, loss_curve
