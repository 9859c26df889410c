"""What every velocity field is and how it is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class VelocityField(nn.Module, ABC):
    """A velocity field v(t, x) on the feature space.

    A subclass has :meth:`velocity` and :meth:`_rebuild`, names its constructor's numbers in
    `config`, and keeps all its arrays as parameters or buffers.

    Attributes
    ----------
    config : dict
        Numbers (or None) that, with the arrays, make the field again.
    singular_end : bool
        Whether the velocity grows without bound towards time 1, where a solver must not ask for it.

    Notes
    -----
    The solver may work in coordinates of the field's own, :meth:`encode` and :meth:`decode` away
    from the feature space. They are a rotation, so that lengths, cosines and the steps of a solver
    are the same in both (adaptive ones agree to their tolerance). Unless a field overrides them,
    they change nothing.

    A pickle holds the numbers and numpy arrays, so that it opens on machines without the device
    that the field was fitted on, and always opens on the CPU.
    """

    config: dict[str, Any]
    singular_end: bool = False

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Velocity, (n, d), at time ``t`` and positions ``x``, (n, d), in the feature space."""
        return self.decode(self.velocity(t, self.encode(x)))

    @abstractmethod
    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity, (n, d), at time ``t`` and positions ``z``, (n, d), in the field's coordinates.

        ``t`` is 0-dimensional, one time for all rows.
        """

    def encode(self, x: Tensor) -> Tensor:
        """From the feature space to the field's coordinates: (..., d) to (..., d)."""
        return x

    def decode(self, z: Tensor) -> Tensor:
        """From the field's coordinates to the feature space: (..., d) to (..., d)."""
        return z

    @property
    @abstractmethod
    def width(self) -> int:
        """Widest array per row that :meth:`velocity` makes."""

    @abstractmethod
    def _rebuild(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Make this empty instance the field with these numbers and arrays."""

    def __getstate__(self) -> dict[str, Any]:
        weights = {name: w.detach().cpu().numpy() for name, w in self.state_dict().items()}
        return {"config": self.config, "weights": weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # np.array copies: arrays from a memory map are read-only, which torch does not know.
        weights = {name: torch.from_numpy(np.array(w)) for name, w in state["weights"].items()}
        self._rebuild(state["config"], weights)
