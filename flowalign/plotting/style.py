"""What the displays share: colours, axes, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from flowalign.inputs import label_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

# Okabe and Ito's colours, which the colour-blind can tell apart; markers do so in print.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#000000")
MARKERS = "osD^vP*X<>hp"


def pyplot() -> Any:
    """Import matplotlib's pyplot, or say what is missing."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('Displays need matplotlib: pip install "flowalign[plot]".') from error
    return plt


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes, or those of a new figure."""
    return pyplot().subplots()[1] if ax is None else ax


def fitted_aligner(
    estimator: Any, having: str = "support_scores_", kind: str = "FlowMatchingAligner"
) -> Any:
    """Return a fitted aligner, or that at the end of a pipeline; TypeError for anything else.

    It is known by what a display takes of it, an attribute.
    """
    aligner = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    check_is_fitted(aligner)
    if not hasattr(aligner, having):
        raise TypeError(
            f"estimator must be a {kind} or a Pipeline that ends in one, got "
            f"{type(aligner).__name__}."
        )
    return aligner


def class_codes(y: ArrayLike, classes: NDArray[Any], name: str = "y") -> NDArray[Any]:
    """Return the rows of labels, (n,), among sorted classes, (C,)."""
    labels = label_values(y, name)
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        lacking = np.unique(labels[unknown])[:5]
        raise ValueError(f"{name} has labels that the classes lack: {lacking}.")
    return np.searchsorted(classes, labels)
