"""A coordinate so loud that it drowns the others, of which ``fit`` warns."""

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


def warn_of_loud_column(X: NDArray[Any], codes: NDArray[Any]) -> None:
    """Warn ``fit`` of features, (n, d), of which one drowns the others in rows of length 1."""
    if not len(X) or X.shape[1] < LOUD_WIDTH:
        return
    column, share = loudest(within_variances(X, codes))
    if share > LOUD_SHARE:
        warnings.warn(
            f"Column {column} of X has {share:.0%} of the variance of all "
            f"{X.shape[1]} columns: rows scaled to length 1 have little left of the others. Unless "
            "that is meant, bring the columns to a common scale first, "
            "make_pipeline(StandardScaler(), aligner), or drop that one.",
            UserWarning,
            stacklevel=4,  # whoever called fit
        )
