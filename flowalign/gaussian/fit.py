"""Fits the Gaussian model to a coupling, and its field: no training, one eigendecomposition."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowalign import blocks
from flowalign.fields.base import Fitted, Kind
from flowalign.gaussian.evidence import Evidence, evenly, weigh
from flowalign.gaussian.field import GaussianField
from flowalign.gaussian.leave_one_out import LeaveOneOut
from flowalign.gaussian.left_out import LeftOutSamples
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.posterior import Classifier, ClassPosterior, PosteriorMean
from flowalign.gaussian.unlabeled import Held, Pool, TakenIn, hold, take_in, with_held

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.coupling import Coupling


COARSE_STEP = 0.25
"""Two of them answer as five of 0.1 do: with the same label for 99.8 percent of the test rows of
thirteen feature sets, and the same accuracy to .03 points; ``docs/decisions/0017-steps.md``."""


def fit_gaussian(
    coupling: Coupling,
    *,
    prior: NDArray[Any],
    noise: float,
    device: str,
    pool: Pool | Held | None = None,
) -> Fitted:
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
    pool : Pool, Held or None
        Unlabelled rows, or what is left of them.

    Returns
    -------
    Fitted
        Its field is the exact minimiser of the flow matching loss under the model, unless the class
        embeddings are evidence in the space of the features.
    """
    known = fit_model(coupling, prior, device, pool)
    model = known.model
    place = model.within.basis.device
    targets = torch.tensor(coupling.targets, dtype=torch.float64, device=place)
    statistics = coupling.statistics
    noise_std = noise * math.sqrt(statistics.square / (statistics.n * statistics.sums.shape[1]))
    field = model.field(targets, torch.tensor(np.log(prior), device=place), noise_std=noise_std)
    return Fitted(field.float(), [], **known._asdict())


class Known(NamedTuple):
    """What is known of the classes; see :class:`flowalign.fields.Fitted`, of which it is part."""

    model: GaussianModel
    classifier: Classifier
    support_ratios: NDArray[np.float32]
    inductive: GaussianModel | None = None
    taken_in: TakenIn | None = None


def fit_model(
    coupling: Coupling, prior: NDArray[Any], device: str, pool: Pool | Held | None = None
) -> Known:
    """Estimate the model of the classes, and weigh its evidence on samples that are left out of it.

    With unlabelled rows, `pool`, it takes these in.
    """
    # The estimates need float64, which MPS lacks.
    place = "cpu" if device.startswith("mps") else device

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.tensor(array, dtype=torch.float64, device=place)

    def estimate(samples: Coupling) -> GaussianModel:
        return GaussianModel.of(samples.statistics.to(place), E)

    targets, log_prior = tensor(coupling.targets), tensor(np.log(prior))
    E = None if coupling.E is None else tensor(coupling.E)
    model = model_of_all = estimate(coupling)
    judges, of_judges = coupling, model
    if coupling.copies:  # one of two equal samples gives the other away
        judges = coupling.without_copies()
        of_judges = estimate(judges)
    rows = blocks.thinned(len(judges.X), max(targets.shape))
    samples = torch.tensor(judges.X[rows], dtype=torch.float32, device=place)
    codes = torch.tensor(judges.codes[rows], device=place)

    def left_out(model: GaussianModel) -> LeftOutSamples:
        return LeftOutSamples(model, targets, samples, codes, joint=coupling.fixed_targets)

    def weighed(said: LeftOutSamples) -> Evidence:
        return weigh(
            said.density,
            said.text,
            evenly(np.log(prior)),
            judges.codes[rows],
            width=targets.shape[1],
            one_shot=coupling.one_shot,
        )

    def classifier_of(model: GaussianModel) -> ClassPosterior:
        return model.classifier(targets, log_prior).to(torch.float32)

    said = left_out(of_judges)
    model = replace(model, evidence=weighed(said))
    assert model.evidence is not None
    if pool is None:
        return Known(model, classifier_of(model), said.ratios(model.evidence))
    evidence = model.evidence

    def judge(candidate: GaussianModel) -> Evidence:
        # Copies give each other away: the weights stay as their samples had them.
        return evidence if of_judges is not model_of_all else weighed(left_out(candidate))

    if isinstance(pool, Held):
        taken_in = hold(model, pool, E, judge)
    else:
        x, y = tensor(coupling.X), torch.tensor(coupling.codes, device=place)
        taken_in = take_in(model, pool, x, y, E, classifier_of, judge)
    found = of_judges_too = taken_in.model
    if of_judges is not model_of_all:
        of_judges_too = with_held(of_judges, taken_in.held, E)
    classifier = PosteriorMean(classifier_of(found), classifier_of(model))
    assert found.evidence is not None
    ratios = left_out(of_judges_too).ratios(found.evidence)
    return Known(found, classifier, ratios, model, taken_in)


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


KIND = Kind(
    GaussianField, fit_gaussian, incremental=True, coarse_step=COARSE_STEP, leave_out=leave_out
)
