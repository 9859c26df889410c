"""Held-out samples, each with a flow that was fitted without it: the stop is chosen on them.

They come from validation data, from leaving one out in closed form, or from cross-fitting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowalign import blocks, ode
from flowalign.coupling import Coupling
from flowalign.gaussian.leave_one_out import LeaveOneOut
from flowalign.gaussian.posterior import in_range
from flowalign.sphere import contrasts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.fields import Fitted, Flow, Kind, VelocityField
    from flowalign.gaussian.posterior import Classifier

VALIDATION_DATA = "validation data"
LEAVE_ONE_OUT = "leave-one-out"
CROSS_FITTING = "cross-fitting"
HELD_OUT_CLASSES = "held-out classes"
NOTHING = "nothing"
NO_SAMPLES = "no samples"
SOURCES = (
    VALIDATION_DATA, LEAVE_ONE_OUT, CROSS_FITTING, HELD_OUT_CLASSES, NOTHING, NO_SAMPLES,
)  # fmt: skip
"""Who can be held out. Held-out classes are those of a set with one sample a class."""

N_FOLDS = 4


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Samples, and a flow and targets that were fitted without them.

    Attributes
    ----------
    flow : Flow
    x : Tensor of shape (m, d)
        Features, on the device and in the dtype of the flow.
    codes : ndarray of shape (m,)
        Their classes, rows of `targets`.
    targets : Tensor of shape (C, d)
        In the feature space.
    classifier : ClassPosterior, PosteriorMean or None
        Answers for them, before they move, of a model that was fitted without them.
    rows : ndarray of shape (m,) or None
        Their rows in the coupling; None for validation data.
    """

    flow: Flow
    x: Tensor
    codes: NDArray[Any]
    targets: Tensor
    classifier: Classifier | None = None
    rows: NDArray[np.intp] | None = None

    @torch.inference_mode()
    def contrasts(
        self, times: Sequence[float], steps: NDArray[np.integer[Any]], solver: str
    ) -> NDArray[np.floating[Any]]:
        """Read out some of the steps of a solver, (len(steps), m, C): cosines less their mean."""
        states = ode.solve(self.flow, self.x, times, solver)
        targets = self.flow.rotate(self.targets)
        read = [contrasts(states[step], targets) for step in steps]
        return torch.stack(read).cpu().numpy()

    @torch.inference_mode()
    def log_proba(self) -> NDArray[np.floating[Any]] | None:
        """Log-probabilities of the classes before they move, (m, C), if there is a model."""
        if self.classifier is None:
            return None
        return in_range(self.classifier.log_proba(self.x)).cpu().numpy()


def hold_out(
    kind: Kind,
    fitted: Fitted,
    coupling: Coupling,
    validation_set: tuple[NDArray[Any], NDArray[Any]] | None,
    fit: Callable[[Coupling], Fitted],
) -> tuple[str, list[HeldOut]]:
    """Hold out samples, by the best of the ways that are possible.

    Parameters
    ----------
    kind : Kind
        Of the field.
    fitted : Fitted
        To `coupling`.
    coupling : Coupling
    validation_set : tuple of ndarrays of shape (m, d) and (m,), or None
        Features and classes; an empty set counts as None.
    fit : callable
        Fits the same to another coupling.

    Returns
    -------
    source : str
        Out of :data:`SOURCES`.
    parts : list of HeldOut
    """
    if validation_set is not None and len(validation_set[0]):
        return VALIDATION_DATA, _beside(fitted, *validation_set, coupling.targets)
    if not len(coupling.X):
        return NO_SAMPLES, []
    # Taking one of two equal samples out of a model would leave the other.
    if kind.leave_out is not None and not coupling.copies:
        source, parts = LEAVE_ONE_OUT, _leave_one_out(kind.leave_out, fitted, coupling)
    else:
        source, parts = CROSS_FITTING, _cross_fit(fit, coupling, kind.max_folds)
    if coupling.one_shot:
        source = HELD_OUT_CLASSES
    return (source, parts) if parts else (NOTHING, [])


def _beside(
    fitted: Fitted,
    X: NDArray[Any],
    codes: NDArray[Any],
    targets: NDArray[Any],
    numbers: NDArray[Any] | None = None,
) -> list[HeldOut]:
    """Put samples, (m, d), where the field is, in blocks; of very many an even share is taken."""
    field, goals = fitted.field, _placed(targets, fitted.field)
    rows = blocks.thinned(len(X), max(len(targets), X.shape[1]))
    return [
        HeldOut(
            field,
            _placed(X[part], field),
            codes[part],
            goals,
            fitted.classifier,
            None if numbers is None else numbers[part],
        )
        for part in (rows[block] for block in blocks.slices(len(rows)))
    ]


def _placed(array: NDArray[Any], field: VelocityField) -> Tensor:
    """Copy an array to the device and the dtype of a field."""
    like = next(iter(field.state_dict().values()))
    return torch.tensor(array, dtype=like.dtype, device=like.device)


def _leave_one_out(
    leave_out: Callable[..., Flow], fitted: Fitted, coupling: Coupling
) -> list[HeldOut]:
    """Leave out the removable samples one by one; of very many an even share.

    Targets that depend on the samples, because the class embeddings were mapped to them, are those
    of the other folds. If a sample's own target were fitted to it, zero steps would look best.
    """
    looked_at = blocks.thinned(len(coupling.X), max(len(coupling.targets), coupling.X.shape[1]))
    groups = [(removable(coupling), coupling.targets)]
    if not coupling.fixed_targets:
        groups = [(rows, coupling.without(rows).targets) for rows in folds(coupling)]
    parts = []
    for rows, targets in groups:
        rows = np.intersect1d(rows, looked_at)
        if len(rows):
            x, goals = (_placed(array, fitted.field) for array in (coupling.X[rows], targets))
            flow = leave_out(fitted, coupling, rows, goals)
            classifier = None
            if fitted.classifier is not None and isinstance(flow, LeaveOneOut):
                classifier = fitted.classifier.evenly().left_out(flow)
            parts.append(HeldOut(flow, x, coupling.codes[rows], goals, classifier, rows))
    return parts


def _cross_fit(
    fit: Callable[[Coupling], Fitted], coupling: Coupling, max_folds: int
) -> list[HeldOut]:
    """Hold out each fold in turn from a fit to all other samples."""

    def hold(rows: NDArray[Any]) -> list[HeldOut]:  # its other samples are gone before the next's
        others = coupling.without(rows)
        X, codes = coupling.X[rows], coupling.codes[rows]
        fitted = fit(others)
        if fitted.classifier is not None:
            fitted = fitted._replace(classifier=fitted.classifier.evenly())
        return _beside(fitted, X, codes, others.targets, rows)

    return [part for rows in folds(coupling)[:max_folds] for part in hold(rows)]


def removable(coupling: Coupling) -> NDArray[Any]:
    """Rows of the samples that can be held out.

    These are the samples whose class has other, different samples. If each class has one sample:
    all, if there is text to place the target of a class without samples, and none otherwise.
    """
    codes = coupling.codes
    if coupling.one_shot:
        return np.arange(0 if coupling.E is None or len(codes) == 1 else len(codes))
    distinct = np.bincount(codes)
    some_elsewhere = np.bincount(codes, coupling.multiplicity) < coupling.counts[: len(distinct)]
    return np.flatnonzero((distinct > 1)[codes] | some_elsewhere[codes])


def folds(coupling: Coupling) -> list[NDArray[Any]]:
    """Split the removable samples into four folds to hold out in turn: lists of rows.

    Each class is spread over the folds and keeps a sample outside of each; if each class has one
    sample, folds hold out whole classes. Copies of a sample are in its fold: outside they would
    reveal its class. The names of the classes play no part. Very few samples make fewer folds.
    """
    rows = removable(coupling)
    codes = coupling.codes[rows]
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    # Classes begin at different folds, so that these are of one size.
    fold = (_turns(codes) + np.argsort(np.argsort(first))[inverse]) % N_FOLDS
    parts = [rows[fold == k] for k in range(N_FOLDS)]
    return [rows for rows in parts if len(rows)]


def _turns(codes: NDArray[Any]) -> NDArray[Any]:
    """How many samples of its class come before each."""
    order = np.argsort(codes, kind="stable")
    _, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
    turns = np.empty(len(codes), dtype=int)
    turns[order] = np.arange(len(codes)) - np.repeat(starts, counts)
    return turns
