"""The answer of the model for a row before it moves: which class, and whether any."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowalign.gaussian.evidence import evenly
from flowalign.gaussian.field import GaussianField, Start
from flowalign.gaussian.leave_one_out import LeaveOneOut
from flowalign.gaussian.novelty import log_ratios


@dataclass(frozen=True, eq=False)
class ClassPosterior:
    r"""Calibrated class probabilities of features, and how much these look like any class.

    Attributes
    ----------
    field : GaussianField or LeaveOneOut
        Its weights at time 0 count; of the latter row i is sample i, in the model without it.
    temperature : float
        Inverse temperature :math:`\beta` of these weights.
    unseen : Tensor of shape (d,)
        Mean of a class that is not known, in the coordinates of the field.
    widening : Tensor of shape (C + 1,)
        Variance of a new row of each class, and of an unseen one, in units of the covariance.
    """

    field: GaussianField | LeaveOneOut
    temperature: float
    unseen: Tensor
    widening: Tensor

    def log_proba(self, x: Tensor, start: Start | None = None) -> Tensor:
        """Log-probabilities, (n, C), of features ``x``, (n, d); see :func:`in_range`.

        ``start`` is what is known of them, in the coordinates of `field`.
        """
        if start is None or not isinstance(self.field, GaussianField):
            log_weights = self.field.log_weights(x.new_zeros(()), x)
        else:
            log_weights = self.field.weigh_start(start)
        return (self.temperature * log_weights).log_softmax(dim=1)

    def ratios(self, x: Tensor) -> Tensor:
        """How much more features, (n, d), look like each class than like none: (n, C).

        See :func:`in_range`.
        """
        field, start = self.field, x.new_zeros(())
        assert isinstance(field, GaussianField)
        z = field.rotate(x)
        centres = torch.cat([field.means, self.unseen[None]])
        distances = field.distances(z, centres, field.variance(start))
        tail = field.config["tail"]
        said = log_ratios(distances, self.widening, tail, x.shape[1])
        said = field.add_text(said, z, field.means.mean(dim=0))
        # Not less what all classes share: here it tells rows apart.
        shared = field.config["text_weight"] * field.common_cosines(z)
        return self.temperature * (said + shared[:, None])

    def evenly(self) -> ClassPosterior:
        """Return the same with all classes alike, as support samples are judged."""
        assert isinstance(self.field, GaussianField)
        log_prior = self.field.log_prior.double() * self.temperature
        alike = torch.from_numpy(evenly(log_prior.cpu().numpy())) / self.temperature
        return replace(self, field=self.field.replace(log_prior=alike.to(self.field.log_prior)))

    def left_out(self, twin: LeaveOneOut) -> ClassPosterior:
        """Return the same for the samples of a twin, each left out of the model.

        The twin is of a field of the same model, in the same dtype.
        """
        assert isinstance(self.field, GaussianField)
        return replace(self, field=replace(twin, field=self.field))

    @property
    def dtype(self) -> torch.dtype:
        """That of the features."""
        return self.unseen.dtype

    def to(self, place: torch.device | torch.dtype) -> ClassPosterior:
        """Return a copy on a device or in a dtype."""
        assert isinstance(self.field, GaussianField)
        return ClassPosterior(
            copy.deepcopy(self.field).to(place),
            self.temperature,
            self.unseen.to(place),
            self.widening.to(place),
        )


TOO_FAR = (
    "Rows of features are so far from the classes that their distances are no {dtype} numbers; "
    "bring them to the scale of the support samples."
)
"""Squares of distances leave the range of a dtype before the features do."""


def in_range(said: Tensor) -> Tensor:
    """Refuse what has no numbers."""
    if not torch.isfinite(said).all():
        raise ValueError(TOO_FAR.format(dtype=said.dtype))
    return said


@dataclass(frozen=True, eq=False)
class PosteriorMean:
    """The mean of the probabilities of two models: one with unlabelled rows, and one without.

    The former is the better one, but too confident, because it has learned from its own answers.
    """

    with_rows: ClassPosterior
    without: ClassPosterior

    def log_proba(self, x: Tensor, start: Start | None = None) -> Tensor:
        """Log-probabilities, (n, C), of features ``x``, (n, d); see :func:`in_range`.

        ``start`` is what is known of them, in the coordinates of `field`.
        """
        return mean_of_two(self.with_rows.log_proba(x, start), self.without.log_proba(x))

    @property
    def field(self) -> GaussianField | LeaveOneOut:
        """That of the model of all rows."""
        return self.with_rows.field

    def ratios(self, x: Tensor) -> Tensor:
        """How much more features look like each class than like none, to the model of all rows."""
        return self.with_rows.ratios(x)

    def evenly(self) -> PosteriorMean:
        """Return the same with all classes alike, as support samples are judged."""
        return PosteriorMean(self.with_rows.evenly(), self.without.evenly())

    def left_out(self, twin: LeaveOneOut) -> ClassPosterior:
        """Return what the model of all rows says of the samples of a twin, each left out."""
        return self.with_rows.left_out(twin)

    @property
    def dtype(self) -> torch.dtype:
        """That of the features."""
        return self.without.dtype

    def to(self, place: torch.device | torch.dtype) -> PosteriorMean:
        """Return a copy on a device or in a dtype."""
        return PosteriorMean(self.with_rows.to(place), self.without.to(place))


def mean_of_two(one: Tensor, other: Tensor) -> Tensor:
    """Log of the mean of two probabilities, given their logarithms."""
    return torch.logaddexp(one, other) - math.log(2)


Classifier = ClassPosterior | PosteriorMean
