"""The unit sphere: rows scaled to length 1, and the cosines between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flowalign import blocks
from flowalign.inputs import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray


LARGEST = 1e18
"""Largest value of features that are not normalised: the field is float32, and variances are
squares."""

CLIP_SCALE = 100.0
"""Inverse temperature of cosines at which CLIP was trained; that of zero-shot classification."""


def unit_rows(
    X: NDArray[Any], name: str, *, zeros_allowed: bool = False, first: int = 0
) -> NDArray[Any]:
    """Rows scaled to length 1, whatever their scale.

    A row of zeros has no direction: ValueError, unless ``zeros_allowed``; then it stays zero. In
    the message, rows are counted from ``first`` on.
    """
    result = np.empty_like(X)
    zero = np.empty((len(X), 1), dtype=bool)
    for rows in blocks.slices(len(X)):
        largest = np.abs(X[rows]).max(axis=1, keepdims=True)
        zero[rows] = largest == 0
        # Dividing by the largest entry first keeps rows of 1e-30 or 1e200 from under- or
        # overflowing.
        part = X[rows] / np.where(zero[rows], 1, largest)
        length = np.linalg.norm(part, axis=1, keepdims=True)
        np.divide(part, np.where(zero[rows], 1, length), out=result[rows])
    if zero.any() and not zeros_allowed:
        zeros = (first + np.flatnonzero(zero)).tolist()
        raise ValueError(
            f"{name} has rows of zeros, which have no direction to normalize: {shorten(zeros)}. "
            "Drop them, or use normalize=False where length means something."
        )
    return result


def prepared(
    X: NDArray[Any], name: str, normalize: bool, zeros_allowed: bool, *, first: int = 0
) -> NDArray[Any]:
    """Rows as the model takes them: scaled to length 1, or as they are if not too large."""
    if normalize:
        return unit_rows(X, name, zeros_allowed=zeros_allowed, first=first)
    largest = max(X.max(initial=0), -X.min(initial=0))
    if largest > LARGEST:
        raise ValueError(
            f"{name} has values up to {largest:.1e}, whose squares are no float32 numbers; "
            f"bring them below {LARGEST:.0e}, or use normalize=True."
        )
    return X


def cosine_similarities(x: Tensor, targets: Tensor) -> Tensor:
    """Cosine between every state, (n, d), and every target, (C, d): shape (n, C).

    A vector of zeros has similarity 0 to everything.
    """
    return directions(x) @ directions(targets).T


def contrasts(x: Tensor, targets: Tensor) -> Tensor:
    """Cosines of states, (n, d), with targets, (C, d), less their mean over the targets: (n, C).

    To a maximum and to a softmax these are the same. Features with much in common have nearly
    parallel targets, whose cosines agree in all digits of float32: what is common must go first.
    """
    units = directions(targets)
    if units.device.type != "mps":  # which lacks float64
        # Of length 1 to more digits, since lengths that differ by rounding would count.
        units = functional.normalize(units.double(), dim=1)
    return directions(x) @ (units - units.mean(dim=0)).to(x.dtype).T


def directions(x: Tensor) -> Tensor:
    """Rows scaled to length 1, (n, d); a row of zeros stays zero."""
    largest = x.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return functional.normalize(x / largest, dim=1)
