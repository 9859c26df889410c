"""One coordinate that drowns the others where rows are scaled to length 1: ``fit`` warns of it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign import blocks
from flowalign.spaces import class_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOUD_SHARE, LOUD_WIDTH = 0.5, 16
"""Share of one coordinate in the variance within classes above which ``fit`` warns, and the width
from which on. Features of encoders have 0.03 at most, on thirteen sets."""


def loudest_coordinate(X: NDArray[Any], codes: NDArray[Any]) -> tuple[int, float]:
    """Return the coordinate that varies most within classes, and its share in all variance.

    Where every class has one sample it is the variance of all. Without any, the share is 0.
    """
    _, rows, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        rows = np.zeros_like(rows)
    means, squares = class_means(X, rows), np.zeros(X.shape[1])
    for part in blocks.slices(len(X)):
        squares += np.square(X[part] - means[rows[part]], dtype=np.float64).sum(axis=0)
    loudest = int(squares.argmax())
    return loudest, float(squares[loudest] / (squares.sum() or 1))


def warn_of_loud_coordinate(X: NDArray[Any], codes: NDArray[Any]) -> None:
    """Warn ``fit`` if one coordinate of normalised features, (n, d), drowns the others."""
    if not len(X) or X.shape[1] < LOUD_WIDTH:
        return
    loudest, share = loudest_coordinate(X, codes)
    if share > LOUD_SHARE:
        warnings.warn(
            f"Column {loudest} of X has {share:.0%} of the variance of all {X.shape[1]} columns: "
            "rows scaled to length 1 have little left of the others. Unless that is meant, bring "
            "the columns to a common scale first, make_pipeline(StandardScaler(), aligner), or "
            "drop that one.",
            UserWarning,
            stacklevel=3,  # whoever called fit
        )
