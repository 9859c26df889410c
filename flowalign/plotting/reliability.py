"""Confidence against accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign.inputs import as_numpy, label_values
from flowalign.plotting.style import COLORS, axes_or_new, class_codes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import ArrayLike, NDArray


class ReliabilityDisplay:
    """Accuracy of a classifier against its confidence, for any number of classes.

    ``sklearn.calibration.CalibrationDisplay`` is for two classes. Make one with
    :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    confidence, accuracy : ndarray of shape (bins,)
        Mean probability of the predicted class, and share of right predictions, of each bin.
    count : ndarray of shape (bins,)
        Samples in it.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    line_ : matplotlib.lines.Line2D

    Examples
    --------
    >>> from flowalign import FlowMatchingAligner
    >>> from flowalign.datasets import make_cross_modal
    >>> from flowalign.plotting import ReliabilityDisplay
    >>> data = make_cross_modal(random_state=0)
    >>> aligner = FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)
    >>> ReliabilityDisplay.from_estimator(aligner, data.X_test, data.y_test)  # doctest: +SKIP
    """

    ax_: Axes
    figure_: Figure
    line_: Line2D

    def __init__(
        self, *, confidence: NDArray[Any], accuracy: NDArray[Any], count: NDArray[Any]
    ) -> None:
        self.confidence = confidence
        self.accuracy = accuracy
        self.count = count

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        n_bins: int = 10,
        ax: Axes | None = None,
        **line_kw: Any,
    ) -> ReliabilityDisplay:
        """Plot the reliability of any classifier with ``predict_proba``.

        Parameters
        ----------
        estimator : classifier
            Fitted.
        X : array-like of shape (n, d)
            Features that it has not seen.
        y : array-like of shape (n,)
            Their labels.
        n_bins : int, default=10
            Bins of equal width.
        ax : matplotlib.axes.Axes or None, default=None
            Where; None makes a figure.
        **line_kw : dict
            Of the line, for ``Axes.plot``.

        Returns
        -------
        ReliabilityDisplay
        """
        proba, classes = estimator.predict_proba(X), estimator.classes_
        return cls.from_predictions(y, proba, classes, n_bins=n_bins, ax=ax, **line_kw)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_proba: ArrayLike,
        classes: ArrayLike,
        *,
        n_bins: int = 10,
        ax: Axes | None = None,
        **line_kw: Any,
    ) -> ReliabilityDisplay:
        """Plot labels (n,) against probabilities (n, C) whose columns are ``classes``, (C,)."""
        proba = np.asarray(as_numpy(y_proba, "y_proba"))
        hits = proba.argmax(axis=1) == class_codes(y_true, label_values(classes, "classes"))
        bins = np.array(reliability_bins(proba.max(axis=1), hits, n_bins)).T
        display = cls(count=bins[0].astype(int), confidence=bins[1], accuracy=bins[2])
        return display.plot(ax=ax, **line_kw)

    def plot(self, *, ax: Axes | None = None, **line_kw: Any) -> ReliabilityDisplay:
        """Draw accuracy against confidence, with the diagonal of the calibrated."""
        ax = axes_or_new(ax)
        ax.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1)
        style = {"marker": "o", "color": COLORS[0]} | line_kw
        (self.line_,) = ax.plot(self.confidence, self.accuracy, **style)
        ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        if "label" in line_kw:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return self


def reliability_bins(
    confidence: NDArray[Any], hits: NDArray[Any], n_bins: int
) -> list[tuple[int, float, float]]:
    """Sort samples into bins of equal width by confidence, (n,); empty ones are left out.

    Returns
    -------
    list of tuple
        Samples, mean confidence and share of hits of each bin.

    Examples
    --------
    >>> reliability_bins(np.array([0.8, 0.85, 0.3]), np.array([True, False, True]), n_bins=5)
    [(1, 0.3, 1.0), (2, 0.825, 0.5)]
    """
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    members = [bins == k for k in np.unique(bins)]
    return [(int(m.sum()), float(confidence[m].mean()), float(hits[m].mean())) for m in members]
