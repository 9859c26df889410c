"""Fits a velocity field by flow matching."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from flowalign import path
from flowalign.network import graph

if TYPE_CHECKING:
    from flowalign.network.field import MLPField

FUSED = ("cpu", "cuda")
"""Types of device whose AdamW is one kernel, and takes its learning rate as a tensor."""

LARGEST_RATE = torch.finfo(torch.float32).max
"""What a float32 holds. With such rates training diverges anyhow, which is said when it has."""


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

    On CUDA the steps are recorded and replayed, :mod:`flowalign.network.graph`. The host then waits
    for the device at the end alone.

    Parameters
    ----------
    field : MLPField
        On the device and in the dtype of ``x0``.
    x0 : Tensor of shape (n, d)
        Features. All data stay on their device; nothing is copied to the host before the end.
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
    n, device = len(x0), x0.device
    generator = torch.Generator(device).manual_seed(seed)
    optimizer = _optimizer(field, device, learning_rate_init, weight_decay)
    epoch_loss = torch.zeros((), device=device)
    n_batches = math.ceil(n / batch_size)
    make_step = functools.partial(
        Step, field, optimizer, x0, targets, codes, noise * path.rms(x0), epoch_loss
    )
    # Batches have one size, and the last one of an epoch what is left.
    sizes = {min(batch_size, n), n - (n_batches - 1) * batch_size}
    steps = {size: make_step(size) for size in sizes}
    runs = _recorded(steps, field, optimizer, epoch_loss)
    step_number = itertools.count()
    epoch_losses = torch.zeros(max_iter, device=device)
    for epoch in tqdm(range(max_iter), desc="flow matching", unit="epoch", disable=not verbose):
        order = torch.randperm(n, generator=generator, device=device)
        for batch in order.split(batch_size):
            steps[len(batch)].draw(batch, generator)
            factor = learning_rate_factor(next(step_number), n_batches, max_iter * n_batches)
            _set_rate(optimizer, learning_rate_init * factor)
            runs[len(batch)]()
        epoch_losses[epoch] = epoch_loss
        epoch_loss.zero_()
    optimizer.zero_grad()  # the last gradients, which would keep the memory of a graph
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


class Step:
    """A training step for batches of one size.

    All that it reads and writes stays where it is in memory, so that it can be recorded and run
    again: :meth:`draw` fills in the batch, the rate is a tensor of the optimizer's where the device
    allows, and the loss is added to `epoch_loss`, for the share of the samples that the batch has.
    """

    def __init__(
        self,
        field: MLPField,
        optimizer: torch.optim.Optimizer,
        x0: Tensor,
        targets: Tensor,
        codes: Tensor,
        noise_std: float,
        epoch_loss: Tensor,
        size: int,
    ) -> None:
        self.field, self.optimizer, self.epoch_loss = field, optimizer, epoch_loss
        self.x0, self.targets, self.codes = x0, targets, codes
        self.noise_std = noise_std
        self.share = size / len(x0)
        self.rows = codes.new_zeros(size)
        self.t = x0.new_zeros(size)
        self.eps = x0.new_zeros(size, x0.shape[1]) if noise_std > 0 else None

    def draw(self, rows: Tensor, generator: torch.Generator) -> None:
        """Take these rows of the samples next, at new times and with new noise.

        This is no part of what is recorded: the generator goes on the same way in all loops.
        """
        self.rows.copy_(rows)
        self.t.uniform_(generator=generator)
        if self.eps is not None:
            self.eps.normal_(generator=generator)

    def __call__(self) -> None:
        """Go a step against the gradient."""
        x0, x1 = self.x0[self.rows], self.targets[self.codes[self.rows]]
        error = self.field(self.t, path.point(self.t, x0, x1, self.eps, self.noise_std))
        error = error - path.derivative(self.t, x0, x1, self.eps, self.noise_std)
        loss = error.square().sum(dim=1).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.epoch_loss += loss.detach() * self.share


def _recorded(
    steps: dict[int, Step], field: MLPField, optimizer: torch.optim.Optimizer, epoch_loss: Tensor
) -> Mapping[int, Callable[[], None]]:
    """Return the steps as graphs, or as they are where the device has none.

    No step has been made yet, and none has been when this returns.
    """
    device = epoch_loss.device
    record = graph.RECORDERS.get(device.type)
    if record is None:
        return steps
    weights = [weight.detach().clone() for weight in field.parameters()]
    try:
        return {size: record(step, device) for size, step in steps.items()}
    except RuntimeError as error:
        warnings.warn(
            f"Training on {device} goes on without a CUDA graph, several times slower and with the "
            f"same result. Recording the graph failed: {error}",
            RuntimeWarning,
            stacklevel=3,
        )
        return steps
    finally:
        # In place: the graphs hold these addresses.
        with torch.no_grad():
            for weight, before in zip(field.parameters(), weights, strict=True):
                weight.copy_(before)
            for state in optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()
            epoch_loss.zero_()


def _optimizer(
    field: MLPField, device: torch.device, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    on_cuda, fused = device.type == "cuda", device.type in FUSED
    rate: float | Tensor = learning_rate
    if fused:
        # The fused kernels of CUDA read a float32, those of the CPU the number that it is.
        dtype = torch.float32 if on_cuda else torch.float64
        rate = torch.tensor(learning_rate, dtype=dtype, device=device)
    return torch.optim.AdamW(
        field.parameters(), lr=rate, weight_decay=weight_decay, fused=fused, capturable=on_cuda
    )


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    (group,) = optimizer.param_groups
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(min(rate, LARGEST_RATE))
    else:
        group["lr"] = rate


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
