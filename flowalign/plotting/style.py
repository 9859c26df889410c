"""What the displays share: colours, axes, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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


def class_codes(y: ArrayLike, classes: NDArray[Any]) -> NDArray[Any]:
    """Return the rows of labels, (n,), among sorted classes, (C,)."""
    labels = label_values(y, "y")
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        raise ValueError(f"y has labels that the classes lack: {np.unique(labels[unknown])[:5]}.")
    return np.searchsorted(classes, labels)
