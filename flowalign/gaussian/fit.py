"""Fits the Gaussian model to a coupling, and its field: no training, one eigendecomposition."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowalign import blocks, path
from flowalign.calibration import CLIP_SCALE
from flowalign.fields.base import Fitted, Kind
from flowalign.gaussian.evidence import weigh
from flowalign.gaussian.field import GaussianField, log_t_density
from flowalign.gaussian.leave_one_out import LeaveOneOut
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.statistics import ClassStatistics
from flowalign.sphere import cosine_similarities

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
    # The estimates need float64, which MPS lacks.
    place = "cpu" if device.startswith("mps") else device

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.tensor(array, dtype=torch.float64, device=place)

    x = torch.as_tensor(coupling.X, device=place)
    codes = torch.tensor(coupling.codes, device=place)
    targets, log_prior = tensor(coupling.targets), tensor(np.log(prior))
    E = None if coupling.E is None else tensor(coupling.E)
    model = GaussianModel.of(ClassStatistics.of(x, codes, len(targets)), E)
    noise_std = noise * path.rms(x)
    field = model.field(targets, log_prior, noise_std=noise_std)
    if coupling.fixed_targets:
        rows = torch.from_numpy(blocks.thinned(len(x), max(targets.shape))).to(place)
        left_out = model.without_each(field, x[rows], codes[rows])
        z = left_out.rotate(x[rows].double())
        distances = left_out.distances(z.new_zeros(()), z)
        samples = log_t_density(distances, float(model.within.tail))
        text = CLIP_SCALE * cosine_similarities(z, field.targets)
        model = replace(model, evidence=weigh(samples, text, log_prior, codes[rows]))
        field = model.field(targets, log_prior, noise_std=noise_std)
    return Fitted(field.float(), [], model)


def leave_out(
    fitted: Fitted, coupling: Coupling, rows: NDArray[Any], targets: Tensor
) -> LeaveOneOut:
    """Twin of a fitted field for samples that are left out of its model, each alone.

    Its classes travel to ``targets``, (C, d), in the feature space.
    """
    model, field = fitted.model, fitted.field
    assert isinstance(field, GaussianField)
    place = model.within.basis.device  # the CPU, where the field's device lacks float64
    x = torch.as_tensor(coupling.X[rows], device=place)
    codes = torch.tensor(coupling.codes[rows], device=place)
    moved = field.replace(targets=field.rotate(targets))
    return model.without_each(moved, x, codes).to(targets.device)


KIND = Kind(GaussianField, fit_gaussian, leave_out=leave_out)
