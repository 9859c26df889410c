"""Trains the network on a coupling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowalign.fields.base import Fitted, Kind
from flowalign.gaussian.fit import fit_model
from flowalign.network.field import MLPField
from flowalign.network.training import train
from flowalign.parameters import is_auto

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.coupling import Coupling
    from flowalign.gaussian.unlabeled import Held, Pool

# Of the defaults; docs/decisions/0003-defaults.md has the figures.
HIDDEN_DIM_RANGE = (64, 384)
BATCH_SIZE_RANGE = (32, 256)
STEPS_PER_EPOCH = 24

ONE_SHOT_STOP = 0.2
"""With one sample a class the network is best stopped early."""

MAX_FOLDS = 2
"""Folds that it is cross-fitted on. Four choose better by 0.2 points at 16 samples a class and the
same at 4, for two trainings more; ``docs/decisions/0006-stop.md``."""


def fit_network(
    coupling: Coupling,
    *,
    prior: NDArray[Any],
    noise: float,
    n_blocks: int,
    hidden_dim: int | None,
    max_iter: int,
    batch_size: int | str,
    learning_rate_init: float,
    weight_decay: float,
    seeds: tuple[int, int],
    device: str,
    verbose: int,
    pool: Pool | Held | None = None,
) -> Fitted:
    """Train the network, and estimate the model of the classes for its answers.

    Without samples it stays untrained, and moves nothing.
    """
    weight_seed, path_seed = seeds
    X = np.repeat(coupling.X, coupling.multiplicity, axis=0)
    codes = np.repeat(coupling.codes, coupling.multiplicity)
    if is_auto(batch_size):
        batch_size = default_batch_size(len(X))
    width = X.shape[1]
    field = MLPField(width, hidden_dim or default_hidden_dim(width), n_blocks)
    # Weights are drawn on the CPU: every device starts from the same field.
    field.reset_parameters(torch.Generator().manual_seed(weight_seed))
    if not len(X):
        return Fitted(field.to(device), [])
    loss_curve = train(
        field.to(device),
        torch.as_tensor(X, dtype=torch.float32, device=device),
        torch.tensor(coupling.targets, dtype=torch.float32, device=device),
        torch.tensor(codes, device=device),
        noise=noise,
        max_iter=max_iter,
        batch_size=int(batch_size),
        learning_rate_init=learning_rate_init,
        weight_decay=weight_decay,
        seed=path_seed,
        verbose=verbose,
    )
    return Fitted(field, loss_curve, **fit_model(coupling, prior, device, pool)._asdict())


def default_hidden_dim(width: int) -> int:
    """Return the width of the network for features of a width: theirs, within bounds."""
    return int(np.clip(width, *HIDDEN_DIM_RANGE))


def default_batch_size(n: int) -> int:
    """Return the samples of a training step: an epoch has about 24 steps, within bounds.

    >>> [default_batch_size(n) for n in (40, 1600, 100_000)]
    [32, 66, 256]
    """
    return int(np.clip(n // STEPS_PER_EPOCH, *BATCH_SIZE_RANGE))


KIND = Kind(
    MLPField,
    fit_network,
    without_effect=("verbose",),
    random=True,
    max_folds=MAX_FOLDS,
    one_shot_stop=ONE_SHOT_STOP,
)
