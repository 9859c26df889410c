"""Fits the Gaussian model to a coupling, and its field: no training, one eigendecomposition."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowalign import blocks, path
from flowalign.fields.base import Fitted, Kind
from flowalign.gaussian.evidence import weigh
from flowalign.gaussian.field import GaussianField
from flowalign.gaussian.leave_one_out import LeaveOneOut
from flowalign.gaussian.left_out import LeftOutSamples
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.posterior import ClassPosterior
from flowalign.gaussian.statistics import ClassStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.coupling import Coupling


def fit_gaussian(coupling: Coupling, *, prior: NDArray[Any], noise: float, device: str) -> Fitted:
    """Fit the closed form.

    Parameters
    ----------
    coupling : Coupling
        Classes without samples are allowed.
    prior : ndarray of shape (C,)
        A probability for each class.
    noise : float
        Size of the noise on the path, relative to ``rms`` of the features.
    device : str

    Returns
    -------
    Fitted
        Its field is the exact minimiser of the flow matching loss under the model, unless the class
        embeddings are evidence in the space of the features.
    """
    model, classifier, scores = fit_model(coupling, prior, device)
    place = model.within.basis.device
    targets = torch.tensor(coupling.targets, dtype=torch.float64, device=place)
    noise_std = noise * path.rms(torch.as_tensor(coupling.X, device=place))
    field = model.field(targets, torch.tensor(np.log(prior), device=place), noise_std=noise_std)
    return Fitted(field.float(), [], model, classifier, scores)


def fit_model(
    coupling: Coupling, prior: NDArray[Any], device: str
) -> tuple[GaussianModel, ClassPosterior, NDArray[np.float32]]:
    """Estimate the model of the classes, and weigh its evidence on samples that are left out of it.

    Returns
    -------
    model : GaussianModel
    classifier : ClassPosterior
        Of the model, in float32.
    scores : ndarray of shape (m,)
        How much the samples, of very many an even share, look like a known class to the model
        without them, ascending.
    """
    # The estimates need float64, which MPS lacks.
    place = "cpu" if device.startswith("mps") else device

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.tensor(array, dtype=torch.float64, device=place)

    def estimate(samples: Coupling) -> GaussianModel:
        x = torch.as_tensor(samples.X, device=place)
        codes = torch.tensor(samples.codes, device=place)
        return GaussianModel.of(ClassStatistics.of(x, codes, len(targets)), E)

    targets, log_prior = tensor(coupling.targets), tensor(np.log(prior))
    E = None if coupling.E is None else tensor(coupling.E)
    model = estimate(coupling)
    judges, of_judges = coupling, model
    if (copies := coupling.copies).any():  # one of two equal samples gives the other away
        judges = coupling.without(np.flatnonzero(copies))
        of_judges = estimate(judges)
    rows = blocks.thinned(len(judges.X), max(targets.shape))
    left_out = LeftOutSamples(
        of_judges,
        targets,
        torch.tensor(judges.X[rows], dtype=torch.float32, device=place),
        torch.tensor(judges.codes[rows], device=place),
        joint=coupling.fixed_targets,
    )
    evidence = weigh(
        left_out.density,
        left_out.text,
        np.log(prior),
        judges.codes[rows],
        width=targets.shape[1],
        one_shot=coupling.one_shot,
    )
    model = replace(model, evidence=evidence)
    classifier = model.classifier(targets, log_prior).to(torch.float32)
    return model, classifier, left_out.scores(evidence)


def leave_out(
    fitted: Fitted, coupling: Coupling, rows: NDArray[Any], targets: Tensor
) -> LeaveOneOut:
    """Twin of a fitted field for samples that are left out of its model, each alone.

    Its classes travel to ``targets``, (C, d), in the feature space.
    """
    model, field = fitted.model, fitted.field
    assert isinstance(field, GaussianField)
    assert model is not None
    place = model.within.basis.device  # the CPU, where the field's device lacks float64
    x = torch.as_tensor(coupling.X[rows], device=place)
    codes = torch.tensor(coupling.codes[rows], device=place)
    moved = field.replace(targets=field.rotate(targets))
    return model.without_each(moved, x, codes).to(targets.device)


KIND = Kind(GaussianField, fit_gaussian, leave_out=leave_out)
