"""A coordinate so large that it drowns the others, of which ``fit`` warns."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.gaussian.statistics import ClassStatistics

LOUD_SHARE, LOUD_WIDTH = 0.5, 16
"""Share of one coordinate in the variance within classes above which ``fit`` warns, and the width
from which on. Features of encoders have 0.03 at most, on thirteen sets."""


def within_variances(statistics: ClassStatistics) -> NDArray[np.float64]:
    """Variance of each coordinate within classes, (d,); of all where each has one sample."""
    alone = statistics.within is None
    groups = 1 if alone else len(statistics.sampled)
    squares = statistics.spread if alone else statistics.products.diagonal()
    return (squares / max(statistics.n - groups, 1)).cpu().numpy()


def loudest(variances: NDArray[Any]) -> tuple[int, float]:
    """Return the coordinate that varies most, and its share in all variance; 0 if there is none."""
    column = int(variances.argmax())
    return column, float(variances[column] / (variances.sum() or 1))


def warn_of_loud_column(statistics: ClassStatistics) -> None:
    """Warn ``fit`` of features, (n, d), of which one drowns the others in rows of length 1."""
    width = statistics.sums.shape[1]
    if not statistics.n or width < LOUD_WIDTH:
        return
    column, share = loudest(within_variances(statistics))
    if share > LOUD_SHARE:
        warnings.warn(
            f"Column {column} of X has {share:.0%} of the variance of all "
            f"{width} columns: rows scaled to length 1 have little left of the others. Unless "
            "that is meant, bring the columns to a common scale first, "
            "make_pipeline(StandardScaler(), aligner), or drop that one.",
            UserWarning,
            stacklevel=5,  # whoever called fit
        )
