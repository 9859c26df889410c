"""Some rows, where a flow has carried them, and all that can be read out of that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowalign import sphere
from flowalign.gaussian.posterior import TOO_FAR

if TYPE_CHECKING:
    from flowalign.fields import VelocityField
    from flowalign.gaussian.field import Start
    from flowalign.gaussian.posterior import Classifier
    from flowalign.row_blocks import RowBlocks


@dataclass(eq=False)
class SolvedRows:
    """A block of rows; all tensors and models are of one dtype, on one device.

    Attributes
    ----------
    start : int
        Number of the first row.
    x : Tensor of shape (n, d)
        The (normalised) features.
    states : Tensor of shape (steps + 1, n, d), or (1, n, d) for the last alone
        In the coordinates of the field.
    moved : bool
        Whether there was a step.
    field : VelocityField
    targets : Tensor of shape (C, d)
        Class embeddings in the feature space.
    goals : Tensor of shape (C, d)
        The same in the coordinates of the field.
    classifier : ClassPosterior, PosteriorMean or None
    blocks : RowBlocks
        What the rows are of; it notes what is wrong with them.
    told : Start or None
        What is known of the rows before they moved, in the coordinates of the classifier.
    """

    start: int
    x: Tensor
    states: Tensor
    moved: bool
    field: VelocityField
    targets: Tensor
    goals: Tensor
    classifier: Classifier | None
    blocks: RowBlocks
    told: Start | None = None

    @property
    def last(self) -> Tensor:
        """State at the stop, (n, d), in the feature space."""
        return self.field.rotate_back(self.states[-1]) if self.moved else self.x

    @property
    def trajectory(self) -> Tensor:
        """Every state, in the feature space; the first is as it came, free of any rounding."""
        return torch.stack([self.x, *(self.field.rotate_back(z) for z in self.states[1:])])

    def contrasts(self, step: int = -1) -> Tensor:
        """Cosines with the targets, (n, C), less their mean; the last step by default."""
        return sphere.contrasts(*self._compared(step))

    def common_cosine(self, step: int = -1) -> Tensor:
        """Mean of the cosines with the targets: (n, 1)."""
        x, targets = self._compared(step)
        return (sphere.directions(x) @ sphere.directions(targets).mean(dim=0))[:, None]

    def _compared(self, step: int) -> tuple[Tensor, Tensor]:
        if step == 0 or not self.moved:
            return self.x, self.targets
        return self.states[step], self.goals  # a rotation leaves cosines as they are

    @cached_property
    def log_proba(self) -> Tensor:
        """What the model of the classes says of the rows before they move: (n, C)."""
        assert self.classifier is not None
        return self._noted(self.classifier.log_proba(self.x, self.told))

    @cached_property
    def ratios(self) -> Tensor:
        """How much more the rows look like each class than like none: (n, C)."""
        if self.classifier is None:
            return sphere.CLIP_SCALE * sphere.cosine_similarities(self.x, self.targets)
        return self._noted(self.classifier.ratios(self.x))

    def _noted(self, said: Tensor) -> Tensor:
        self.blocks.note(said.isfinite(), TOO_FAR.format(dtype=said.dtype))
        return said

    @property
    def scores(self) -> Tensor:
        """How much the rows look like any known class: (n,)."""
        return self.ratios.amax(dim=1)
