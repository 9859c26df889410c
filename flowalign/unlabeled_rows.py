"""Rows without labels: a pool, of any size, that is looked at a block at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign import blocks, inputs, sphere

if TYPE_CHECKING:
    from numpy.typing import NDArray


COUNTED = 0.05
"""Share of their weight that unlabelled rows must keep, or ``fit`` warns; on thirteen feature sets
rows of the same source keep .07 to .98, the least where test rows are of other speakers."""


class UnlabeledRows:
    """Features of rows without labels, prepared as those of samples are, and never all at once.

    Parameters
    ----------
    X : ndarray of shape (m, d)
        May be a memory-mapped file larger than memory.
    normalize : bool
        Whether rows are scaled to length 1.
    zeros_allowed : bool
        Whether rows of zeros may be among them.
    device : str
        Kind of device that blocks are made for, such as "cuda".
    name : str
        What they are called in messages.
    """

    def __init__(
        self,
        X: NDArray[Any],
        *,
        normalize: bool,
        zeros_allowed: bool,
        device: str = "cpu",
        name: str = "X_unlabeled",
    ) -> None:
        self.X, self.normalize, self.zeros_allowed = X, normalize, zeros_allowed
        self.device, self.name = device, name

    @classmethod
    def of(
        cls,
        X_unlabeled: Any,
        marked: NDArray[Any],
        X: Any,
        zeros_allowed: bool,
        *,
        normalize: bool,
        device: str,
    ) -> UnlabeledRows | None:
        """Make it of rows given beside ``X`` and of those marked in y; None if there are none."""
        rows, name = marked, "X_unlabeled"
        if len(marked):
            name = "X_unlabeled, with the rows of X marked unlabeled_label behind it,"
        if X_unlabeled is not None:
            rows, integers = inputs.check_unlabeled_data(X_unlabeled, X, marked.shape[1])
            zeros_allowed = zeros_allowed or integers
            if len(marked):
                rows = np.concatenate([rows, marked])
        if not len(rows):
            return None
        return cls(rows, normalize=normalize, zeros_allowed=zeros_allowed, device=device, name=name)

    def __len__(self) -> int:
        return len(self.X)

    def blocks(self, row_size: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield which rows, and their features; ``row_size`` is the widest array made of each."""
        rows = blocks.state_rows(4 * row_size, self.device)
        # Wide floats are scaled to length 1 first: float32 has no 1e-50, and no 1e50.
        wide = self.X.dtype.kind == "f" and self.X.dtype.itemsize > 4
        for part in blocks.slices(len(self.X), rows):
            # Writable: torch warns of what is not, as blocks of a memory-mapped file are.
            block = np.require(self.X[part], np.float64 if wide else np.float32, "W")
            wrong = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if len(wrong):
                raise ValueError(
                    f"{self.name} contains NaN or infinity, first in row {part.start + wrong[0]}; "
                    "drop those rows."
                )
            features = sphere.prepared(
                block, self.name, self.normalize, self.zeros_allowed, first=part.start
            )
            yield part, features.astype(np.float32, copy=False)


def warn_of_disagreement(
    classes: NDArray[Any], weights: NDArray[Any], agreement: NDArray[Any]
) -> None:
    """Warn ``fit`` of unlabelled rows that lie elsewhere than labelled ones of their classes."""
    if not weights.any():
        return
    counted = weights.sum() / max((weights / agreement).sum(), 1e-30)
    if counted < COUNTED:
        worst = classes[np.argsort(agreement, kind="stable")][:3].tolist()
        warnings.warn(
            "The unlabelled rows lie elsewhere than the labelled ones and hardly count: they keep "
            f"{counted:.0%} of their weight, and least in {inputs.shorten(worst)}. If they come "
            "from another source, leave them out.",
            UserWarning,
            stacklevel=5,  # whoever called fit
        )
