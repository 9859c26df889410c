"""What every velocity field is, and the one table of their kinds.

A new kind is a package of its own, with a :class:`Kind`, and a line in :data:`KINDS`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.coupling import Coupling
    from flowalign.gaussian import GaussianModel
    from flowalign.gaussian.posterior import Classifier
    from flowalign.gaussian.unlabeled import TakenIn


class Flow(Protocol):
    """What can be solved: a velocity field, or its twin for samples that are left out."""

    singular_end: ClassVar[bool]

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity, (n, d), at time ``t`` and positions ``z``, (n, d)."""

    def rotate(self, x: Tensor) -> Tensor:
        """From the feature space, (n, d), to the coordinates of ``velocity``."""


class VelocityField(nn.Module, ABC):
    """A velocity field v(t, x) on the feature space.

    A subclass has the abstract methods below, names its constructor's numbers in `config`, and
    keeps all its arrays as parameters or buffers.

    Attributes
    ----------
    config : dict
        Numbers (or None) that, with the arrays, make the field again.
    singular_end : bool
        Whether the velocity grows without bound towards time 1, where a solver must not ask for it.

    Notes
    -----
    The solver may work in coordinates of the field's own, :meth:`rotate`. They are a rotation of
    the feature space, so that lengths, cosines and the steps of a solver are the same in both
    (adaptive ones agree to their tolerance). Unless a field overrides it, nothing is rotated.

    A pickle holds the numbers and numpy arrays, so that it opens on machines without the device
    that the field was fitted on, and always opens on the CPU.
    """

    config: dict[str, Any]
    singular_end: ClassVar[bool] = False

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Velocity, (n, d), at time ``t`` and positions ``x``, (n, d), in the feature space."""
        return self.rotate_back(self.velocity(t, self.rotate(x)))

    @abstractmethod
    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity, (n, d), at time ``t`` and positions ``z``, (n, d), in the field's coordinates.

        ``t`` is 0-dimensional, one time for all rows.
        """

    def rotate(self, x: Tensor) -> Tensor:
        """From the feature space to the field's coordinates: (..., d) to (..., d)."""
        return x

    def rotate_back(self, z: Tensor) -> Tensor:
        """From the field's coordinates to the feature space: (..., d) to (..., d)."""
        return z

    @property
    @abstractmethod
    def row_size(self) -> int:
        """Entries of the widest array that :meth:`velocity` makes, for one row."""

    @classmethod
    @abstractmethod
    def check(
        cls, config: dict[str, Any], weights: dict[str, NDArray[Any]], n_classes: int, width: int
    ) -> None:
        """Raise ValueError unless these numbers and arrays make a field.

        They come from a file that nobody vouches for, and nothing may be allocated that they do not
        hold. The field is one for `n_classes` classes of features of a `width`; what numbers there
        are is finite, and arrays are finite and float32.
        """

    @abstractmethod
    def _rebuild(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Make this empty instance the field with these numbers and arrays."""

    @staticmethod
    def check_shapes(
        weights: dict[str, NDArray[Any]], expected: dict[str, tuple[int, ...]]
    ) -> None:
        """Raise ValueError unless the arrays have these names and shapes."""
        if {name: array.shape for name, array in weights.items()} != expected:
            raise ValueError("the arrays of the field do not have its shapes.")

    def __getstate__(self) -> dict[str, Any]:
        weights = {name: w.detach().cpu().numpy() for name, w in self.state_dict().items()}
        return {"config": self.config, "weights": weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # np.array copies: arrays from a memory map are read-only, which torch does not know.
        weights = {name: torch.from_numpy(np.array(w)) for name, w in state["weights"].items()}
        self._rebuild(state["config"], weights)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A pickle opens on the CPU; a copy stays where the field is.
        copied = type(self).__new__(type(self))
        weights = {name: w.detach().clone() for name, w in self.state_dict().items()}
        copied._rebuild(dict(self.config), weights)
        return copied


class Fitted(NamedTuple):
    """What a fit gives.

    Attributes
    ----------
    field : VelocityField
        float32, on the device of the fit.
    loss_curve : list of float
        Mean training loss of each epoch; empty without training.
    model : GaussianModel or None
        The model of the classes; None for a kind without one.
    classifier : ClassPosterior, PosteriorMean or None
        The answer of the model for rows before they move, in the dtype of the field.
    support_ratios : ndarray of shape (m, C) or None
        How much more samples look like each class than like none, to the model without them: of the
        rows of the coupling, or of an even share of very many, :func:`flowalign.blocks.thinned`.
    inductive : GaussianModel or None
        The model of the labelled samples alone, if `model` has unlabelled rows too.
    taken_in : TakenIn or None
        How the unlabelled rows were taken in.
    """

    field: VelocityField
    loss_curve: list[float]
    model: GaussianModel | None = None
    classifier: Classifier | None = None
    support_ratios: NDArray[np.float32] | None = None
    inductive: GaussianModel | None = None
    taken_in: TakenIn | None = None

    def to(self, device: torch.device) -> Fitted:
        """Move to a device; out of a cache fields open on the CPU."""
        return self._replace(
            field=self.field.to(device),
            model=self.model and self.model.to(device),
            classifier=self.classifier and self.classifier.to(device),
            inductive=self.inductive and self.inductive.to(device),
        )


@dataclass(frozen=True)
class Kind:
    """All that the aligner knows of a kind of velocity field.

    Attributes
    ----------
    field : type
        Its class.
    fit : callable
        ``fit(coupling, **settings)`` returns a :class:`Fitted`. It depends on its arguments alone,
        so that its results can be cached. Settings that it may ask for by name: parameters of the
        aligner; ``prior``, a probability for each class; ``pool``, unlabelled rows, what is left of
        them or None, for a kind that takes these in; ``seeds``, two integers; ``device``, a string.
    without_effect : tuple of str
        Settings that do not change the result.
    random : bool
        Whether another seed gives another field.
    incremental : bool
        Whether sums of samples are enough for a fit, so that more samples can come later.
    max_folds : int
        Folds that are cross-fitted at most, where samples cannot be left out otherwise.
    one_shot_stop : float
        The stop if every class has one sample, on which it cannot be chosen.
    coarse_step : float or None
        Length of a step that is short enough, where the steps are chosen; None is that of others.
    leave_out : callable or None
        ``leave_out(fitted, coupling, rows, targets)`` returns what is solved for these samples,
        each by a field that was fitted without it, when classes travel to ``targets``, a Tensor of
        shape (C, d); None if that takes a fit for each.
    """

    field: type[VelocityField]
    fit: Callable[..., Fitted]
    without_effect: tuple[str, ...] = ()
    random: bool = False
    incremental: bool = False
    max_folds: int = 4
    one_shot_stop: float = 0.5
    coarse_step: float | None = None
    leave_out: Callable[[Fitted, Coupling, NDArray[Any], Tensor], Flow] | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings that `fit` asks for."""
        return tuple(inspect.signature(self.fit).parameters)[1:]


KINDS = {"gaussian": "flowalign.gaussian.fit", "mlp": "flowalign.network.fit"}
"""The module of each kind; what it names ``KIND`` is the kind."""


UNTRAINED = "mlp"
"""The kind whose field moves nothing where there is nothing to learn from."""


def kind_of(name: str) -> Kind:
    """Return a kind of the table."""
    return import_module(KINDS[name]).KIND
