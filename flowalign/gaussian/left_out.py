"""The samples behind a model, each judged by the model without it; they weigh its evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowalign.gaussian.field import log_t_density
from flowalign.gaussian.novelty import log_ratios, with_unseen_class
from flowalign.sphere import CLIP_SCALE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.gaussian.evidence import Evidence
    from flowalign.gaussian.model import GaussianModel


class LeftOutSamples:
    """Samples before they move, each with the model without it.

    Parameters
    ----------
    model : GaussianModel
    targets : Tensor of shape (C, d)
        Class embeddings in the space of the features.
    x : Tensor of shape (m, d)
        Some of the samples behind the model, float32.
    codes : Tensor of shape (m,), int64
        Their classes.
    joint : bool
        Whether the text counts as evidence.
    """

    def __init__(
        self, model: GaussianModel, targets: Tensor, x: Tensor, codes: Tensor, *, joint: bool
    ) -> None:
        log_prior = targets.new_zeros(len(targets) + 1)
        extended = with_unseen_class(model)
        goals = torch.cat([targets, model.class_means.common[None]])
        twin = extended.without_each(extended.field(goals, log_prior).float(), x, codes)
        start = x.new_zeros(())
        z = twin.rotate(x)
        self.distances = twin.distances(start, z)
        P = extended.class_means.covariance
        remaining = 1 - P[codes, codes]
        self.widening = 1 + P.diagonal() + P[codes] ** 2 / remaining[:, None]
        self.tail = float(model.within.tail)
        self.width = x.shape[1]
        self.text: tuple[NDArray[Any], NDArray[Any]] | None = None
        if joint:
            field = model.field(targets, log_prior[:-1]).float()
            known = replace(twin, field=field, shift=twin.shift[:, :-1])
            raw, centred = field.text_cosines(z, known.middles(start))
            self.text = (CLIP_SCALE * raw).cpu().numpy(), (CLIP_SCALE * centred).cpu().numpy()
            self.common_text = (CLIP_SCALE * field.common_cosines(z)).cpu().numpy()

    @property
    def density(self) -> NDArray[np.float32]:
        """Log-densities of the classes, (m, C), up to a number for each row."""
        return log_t_density(self.distances[:, :-1], self.tail).cpu().numpy()

    def ratios(self, evidence: Evidence) -> NDArray[np.float32]:
        """How much more each looks like a class than like none, (m, C), as new rows are told.

        Of a single sample nothing is told: (0, C).
        """
        if len(self.distances) < 2:
            return np.empty((0, self.distances.shape[1] - 1), np.float32)
        ratios = log_ratios(self.distances, self.widening, self.tail - 1, self.width)
        said = evidence.density * ratios.cpu().numpy()
        if self.text is not None:
            raw, centred = self.text
            said += evidence.text * (raw + self.common_text[:, None])
            said += evidence.centred_text * centred
        return said.astype(np.float32, copy=False)
