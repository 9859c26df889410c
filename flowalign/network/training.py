"""Fits a velocity field by flow matching."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from flowalign import path

if TYPE_CHECKING:
    from flowalign.network.field import MLPField


def train(
    field: MLPField,
    x0: Tensor,
    targets: Tensor,
    codes: Tensor,
    *,
    noise: float,
    max_iter: int,
    batch_size: int,
    learning_rate_init: float,
    weight_decay: float,
    seed: int,
    verbose: int = 0,
) -> list[float]:
    r"""Minimise the flow matching loss by AdamW; the field is trained in place.

    The coupling is fixed by the class: sample i always travels to ``targets[codes[i]]``. Each
    visit of a sample draws a new time t ~ U(0, 1) and new noise, and the loss is the squared error
    :math:`\|v(t, x_t) - u_t\|^2` summed over coordinates, averaged over the batch. The learning
    rate rises linearly over the first epoch and then falls to zero along a cosine.

    Parameters
    ----------
    field : MLPField
        On the device and in the dtype of ``x0``.
    x0 : Tensor of shape (n, d)
        Features. All data stay on their device; nothing is copied from or to the host per step.
    targets : Tensor of shape (C, d)
        Where each class goes.
    codes : Tensor of shape (n,), int64
        Class of each sample, a row of ``targets``.
    noise : float
        Size of the noise on the path, relative to ``rms(x0)``.
    max_iter : int
        Epochs.
    batch_size : int
        At most n are used.
    learning_rate_init : float
        Highest learning rate.
    weight_decay : float
        Of AdamW.
    seed : int
        Of the generator on the data's device.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    list of float
        Mean loss of each epoch.

    Raises
    ------
    ValueError
        If the loss did not stay finite.
    """
    generator = torch.Generator(x0.device).manual_seed(seed)
    noise_std = noise * path.rms(x0)
    n_batches = math.ceil(len(x0) / batch_size)
    optimizer = torch.optim.AdamW(
        field.parameters(),
        lr=learning_rate_init,
        weight_decay=weight_decay,
        fused=x0.device.type in ("cpu", "cuda"),
    )
    step = itertools.count()
    epoch_losses = torch.zeros(max_iter, device=x0.device)
    for epoch in tqdm(range(max_iter), desc="flow matching", unit="epoch", disable=not verbose):
        order = torch.randperm(len(x0), generator=generator, device=x0.device)
        for batch in order.split(batch_size):
            loss = _loss(field, x0[batch], targets[codes[batch]], noise_std, generator)
            optimizer.zero_grad()
            loss.backward()
            factor = learning_rate_factor(next(step), n_batches, max_iter * n_batches)
            optimizer.param_groups[0]["lr"] = learning_rate_init * factor
            optimizer.step()
            epoch_losses[epoch] += loss.detach() * (len(batch) / len(x0))
    loss_curve = epoch_losses.tolist()
    _check_finite(field, loss_curve, learning_rate_init)
    return loss_curve


def learning_rate_factor(step: int, n_warmup: int, n_steps: int) -> float:
    """Linear warm-up over ``n_warmup`` steps, then a half cosine down to zero.

    >>> [round(learning_rate_factor(step, 2, 6), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    if step < n_warmup:
        return (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _loss(
    field: MLPField, x0: Tensor, x1: Tensor, noise_std: float, generator: torch.Generator
) -> Tensor:
    t = torch.rand(len(x0), generator=generator, dtype=x0.dtype, device=x0.device)
    eps = None
    if noise_std > 0:
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
    error = field(t, path.point(t, x0, x1, eps, noise_std))
    error = error - path.derivative(t, x0, x1, eps, noise_std)
    return error.square().sum(dim=1).mean()


def _check_finite(field: MLPField, loss_curve: list[float], learning_rate_init: float) -> None:
    """Refuse a diverged field, once after training: a look at every step would stall a GPU."""
    weights = torch.nn.utils.parameters_to_vector(field.parameters())
    if all(map(math.isfinite, loss_curve)) and bool(torch.isfinite(weights).all()):
        return
    raise ValueError(
        f"Training diverged, its losses are {loss_curve[0]:g} to {loss_curve[-1]:g}. Lower "
        f"learning_rate_init (now {learning_rate_init:g}); with normalize=False also bring the "
        "features to a common scale."
    )
