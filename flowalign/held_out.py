"""Samples beside a field that has not seen them: what the stop and the temperature are chosen on.

Three ways to come by them: validation data, leaving one out in closed form, and cross-fitting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowalign.coupling import N_FOLDS, Coupling, thinned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.fields import VelocityField
    from flowalign.fitting import Fitted
    from flowalign.leave_one_out import LeaveOneOutField

BLOCK = 1024  # samples; scoring keeps their states at all steps
N_TRAININGS = 2
"""Folds that a network is cross-fitted on. All four choose better by 0.2 points at 16 samples a
class and the same at 4, for two trainings more (decision 6)."""


@dataclass(frozen=True)
class HeldOut:
    """Samples, and a field and targets that were fitted without them.

    Attributes
    ----------
    field : VelocityField
    x : Tensor of shape (m, d)
        Features, on the field's device and in its dtype.
    codes : Tensor of shape (m,)
        Their classes, rows of `targets`.
    targets : Tensor of shape (C, d)
        In the feature space.
    """

    field: VelocityField
    x: Tensor
    codes: Tensor
    targets: Tensor

    @classmethod
    def of(
        cls,
        field: VelocityField,
        rows: NDArray[Any],
        X: NDArray[Any],
        codes: NDArray[Any],
        targets: NDArray[Any],
    ) -> list[HeldOut]:
        """Put rows of arrays where the field is, in blocks; of very many an even share is taken."""
        like = next(iter(field.state_dict().values()))
        rows = rows[thinned(len(rows), max(len(targets), X.shape[1]))]
        goals = torch.tensor(targets, dtype=like.dtype, device=like.device)

        def block(rows: NDArray[Any]) -> HeldOut:
            x = torch.tensor(X[rows], dtype=like.dtype, device=like.device)
            return cls(field, x, torch.tensor(codes[rows], device=like.device), goals)

        return [block(rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK)]


def hold_out(
    fitted: Fitted,
    coupling: Coupling,
    validation_set: tuple[NDArray[Any], NDArray[Any]] | None,
    fit: Callable[[Coupling], Fitted],
) -> tuple[str, list[HeldOut]]:
    """Take what there is, and say where it comes from.

    Parameters
    ----------
    fitted : Fitted
        To `coupling`.
    coupling : Coupling
    validation_set : tuple of ndarrays of shape (m, d) and (m,), or None
        Features and classes.
    fit : callable
        Fits the same to another coupling.

    Returns
    -------
    source : {"validation data", "leave-one-out", "cross-fitting", "held-out classes", "nothing"}
    parts : list of HeldOut
    """
    if validation_set is not None:
        rows = np.arange(len(validation_set[0]))
        parts = HeldOut.of(fitted.field, rows, *validation_set, coupling.targets)
        return "validation data", parts
    if fitted.left_out is not None and not coupling.copies.any():
        source, parts = "leave-one-out", _leave_one_out(fitted.left_out, coupling)
    else:
        # A closed form costs little; each fold of a network costs a training.
        most = N_FOLDS if fitted.left_out is not None else N_TRAININGS
        source, parts = "cross-fitting", _cross_fit(fit, coupling, coupling.folds()[:most])
    if coupling.one_shot:
        source = "held-out classes"
    return (source, parts) if parts else ("nothing", [])


def _leave_one_out(model: LeaveOneOutField, coupling: Coupling) -> list[HeldOut]:
    """Leave out the removable samples one by one.

    Targets that depend on the samples, because the class embeddings were mapped to them, are those
    of the other folds: were a sample's own target fitted to it, no steps would look best.
    """
    places = np.full(len(coupling.X), -1)  # of the samples among the model's rows
    places[model.rows.cpu().numpy()] = np.arange(len(model.rows))
    folds = [(coupling.removable, coupling.targets)]
    if not coupling.fixed_targets:
        folds = [(rows, coupling.without(rows).targets) for rows in coupling.folds()]
    parts = []
    for rows, targets in folds:
        rows = rows[places[rows] >= 0]
        if not len(rows):
            continue
        moved = torch.tensor(targets, dtype=model.basis.dtype, device=model.basis.device)
        part = model.select(torch.tensor(places[rows], device=model.basis.device), moved)
        x = torch.tensor(coupling.X[rows], dtype=moved.dtype, device=moved.device)
        codes = torch.tensor(coupling.codes[rows], device=moved.device)
        parts.append(HeldOut(part, x, codes, moved))
    return parts


def _cross_fit(
    fit: Callable[[Coupling], Fitted], coupling: Coupling, folds: list[NDArray[Any]]
) -> list[HeldOut]:
    """Hold out each fold in turn from a fit to all other samples."""

    def hold(rows: NDArray[Any]) -> list[HeldOut]:  # its other samples are gone before the next's
        others = coupling.without(rows)
        return HeldOut.of(fit(others).field, rows, coupling.X, coupling.codes, others.targets)

    return [part for rows in folds for part in hold(rows)]
