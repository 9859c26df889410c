"""Scales of features that ``fit`` warns of: a loud coordinate, noise wider than the classes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowalign import blocks, path
from flowalign.spaces import class_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.coupling import Coupling

LOUD_SHARE, LOUD_WIDTH = 0.5, 16
"""Share of one coordinate in the variance within classes above which ``fit`` warns, and the width
from which on. Features of encoders have 0.03 at most, on thirteen sets."""

WIDE_NOISE = 6.0
"""Ratio of the noise to the deviation within classes above which ``fit`` warns in a joint space. At
the default noise features of encoders have 0.4 to 2.3, on thirteen sets; from 18 on a common part
of the features hides the classes."""


def within_variances(X: NDArray[Any], codes: NDArray[Any]) -> NDArray[np.float64]:
    """Variance of each coordinate within classes, (d,); of all where each has one sample."""
    _, rows, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        rows, counts = np.zeros_like(rows), counts[:1]
    means, squares = class_means(X, rows), np.zeros(X.shape[1])
    for part in blocks.slices(len(X)):
        squares += np.square(X[part] - means[rows[part]], dtype=np.float64).sum(axis=0)
    return squares / max(len(X) - len(counts), 1)


def loudest(variances: NDArray[Any]) -> tuple[int, float]:
    """Return the coordinate that varies most, and its share in all variance; 0 if there is none."""
    column = int(variances.argmax())
    return column, float(variances[column] / (variances.sum() or 1))


def noise_ratio(X: NDArray[Any], variances: NDArray[Any], noise: float) -> float:
    """Return how many times wider the noise is than a class; 0 if classes have no width."""
    spread = float(np.sqrt(variances.mean()))
    return noise * path.rms(torch.as_tensor(X)) / spread if spread else 0.0


def warn_of_scales(coupling: Coupling, *, noise: float, normalize: bool) -> None:
    """Warn ``fit`` of features whose scale takes from the classes what tells them apart."""
    X = coupling.X
    may_be_loud = normalize and X.shape[1] >= LOUD_WIDTH
    if not len(X) or not (may_be_loud or coupling.fixed_targets):
        return
    variances = within_variances(X, coupling.codes)
    column, share = loudest(variances)
    if may_be_loud and share > LOUD_SHARE:
        _warn(
            f"Column {column} of X has {share:.0%} of the variance of all "
            f"{X.shape[1]} columns: rows scaled to length 1 have little left of the others. Unless "
            "that is meant, bring the columns to a common scale first, "
            "make_pipeline(StandardScaler(), aligner), or drop that one."
        )
    ratio = noise_ratio(X, variances, noise) if coupling.fixed_targets else 0.0
    if ratio > WIDE_NOISE:
        _warn(
            f"The features of X have much in common: noise={noise:g} is {ratio:.0f} times as wide "
            "as their classes, which it may hide. Centre X, or set noise=0."
        )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)  # whoever called fit
