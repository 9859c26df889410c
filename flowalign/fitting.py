"""From a coupling to a fitted field, on a device.

The fits are functions of their arguments alone, so that their results can be cached. What acts at
predict time (solver, steps, temperature) is not among the arguments: a search over it fits once.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_memory

from flowalign.closed_form import fit_gaussian_field
from flowalign.coupling import Coupling
from flowalign.fields import MLPField, VelocityField
from flowalign.leave_one_out import LeaveOneOutField
from flowalign.parameters import is_auto
from flowalign.training import train

# Of the defaults; docs/decisions/0003-defaults.md has the figures.
HIDDEN_DIM_RANGE = (64, 384)
BATCH_SIZE_RANGE = (32, 256)
STEPS_PER_EPOCH = 24
NETWORK_SETTINGS = (
    "n_blocks",
    "hidden_dim",
    "max_iter",
    "batch_size",
    "learning_rate_init",
    "weight_decay",
    "verbose",
)


class Fitted(NamedTuple):
    """A field, the losses of its training, and in closed form the field without each sample."""

    field: VelocityField
    loss_curve: list[float]
    left_out: LeaveOneOutField | None = None

    def to(self, device: torch.device) -> Fitted:
        """Move to a device; out of a cache fields open on the CPU."""
        left_out = self.left_out and self.left_out.to(device)
        return Fitted(self.field.to(device), self.loss_curve, left_out)


def field_fitter(
    params: dict[str, Any], prior: NDArray[Any], device: torch.device
) -> Callable[[Coupling], Fitted]:
    """Return what fits a field to a coupling, cached if `memory` says so.

    `params` are the aligner's; `prior` holds a probability for each class.
    """
    rng = check_random_state(params["random_state"])
    seeds = tuple(rng.randint(np.iinfo(np.int32).max, size=2).tolist())
    memory = check_memory(params["memory"])
    if not isinstance(params["random_state"], Integral):
        memory = check_memory(None)  # every fit is to be another one
    fit: Callable[..., Fitted]
    if params["velocity_field"] == "gaussian":
        fit = memory.cache(fit_gaussian)
        settings: dict[str, Any] = {"prior": prior}
    else:
        fit = memory.cache(fit_network, ignore=["verbose"])
        settings = {name: params[name] for name in NETWORK_SETTINGS} | {"seeds": seeds}
    settings |= {"noise": params["noise"], "device": str(device)}
    return lambda coupling: fit(coupling, **settings).to(device)


def fit_gaussian(coupling: Coupling, *, prior: NDArray[Any], noise: float, device: str) -> Fitted:
    """Fit the closed form. `prior` holds a probability for each class."""
    # The estimates need float64, which MPS lacks.
    place: Any = "cpu" if device.startswith("mps") else device

    def tensor(array: NDArray[Any]) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float64, device=place)

    field, left_out = fit_gaussian_field(
        torch.as_tensor(coupling.X, device=place),
        tensor(coupling.targets),
        torch.tensor(coupling.codes, device=place),
        embeddings=None if coupling.E is None else tensor(coupling.E),
        joint=coupling.joint,
        log_prior=tensor(np.log(prior)),
        noise=noise,
    )
    return Fitted(field, [], left_out)


def fit_network(
    coupling: Coupling,
    *,
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
) -> Fitted:
    """Train the network."""
    weight_seed, path_seed = seeds
    if is_auto(batch_size):
        batch_size = default_batch_size(len(coupling.X))
    width = coupling.X.shape[1]
    field = MLPField(width, hidden_dim or default_hidden_dim(width), n_blocks)
    # Weights are drawn on the CPU: every device starts from the same field.
    field.reset_parameters(torch.Generator().manual_seed(weight_seed))
    loss_curve = train(
        field.to(device),
        torch.as_tensor(coupling.X, dtype=torch.float32, device=device),
        torch.tensor(coupling.targets, dtype=torch.float32, device=device),
        torch.tensor(coupling.codes, device=device),
        noise=noise,
        max_iter=max_iter,
        batch_size=int(batch_size),
        learning_rate_init=learning_rate_init,
        weight_decay=weight_decay,
        seed=path_seed,
        verbose=verbose,
    )
    return Fitted(field, loss_curve)


def default_hidden_dim(width: int) -> int:
    """Return the width of the network for features of a width: theirs, within bounds."""
    return int(np.clip(width, *HIDDEN_DIM_RANGE))


def default_batch_size(n: int) -> int:
    """Return the samples of a training step: an epoch has about 24 steps, within bounds.

    >>> [default_batch_size(n) for n in (40, 1600, 100_000)]
    [32, 66, 256]
    """
    return int(np.clip(n // STEPS_PER_EPOCH, *BATCH_SIZE_RANGE))
