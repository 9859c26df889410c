"""Scores of rows that look like a class, and of rows that look like none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign.inputs import as_numpy, label_values, shorten
from flowalign.plotting.style import COLORS, axes_or_new, fitted_aligner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import StepPatch
    from numpy.typing import ArrayLike, NDArray
    from sklearn.pipeline import Pipeline

    from flowalign.aligner import FlowMatchingAligner

SUPPORT = "support samples"


class NoveltyDisplay:
    """How much rows look like a known class, and below which score ``predict`` refuses them.

    Histograms of the scores of support samples, each left out of the model, and of other rows; if
    these have labels, separately for known classes and others. Make one with
    :meth:`from_estimator`.

    Parameters
    ----------
    support_scores : ndarray of shape (m,)
        ``support_scores_`` of a fitted aligner; may be empty.
    scores : ndarray of shape (n,)
        ``score_samples`` of the rows.
    threshold : float
        ``unknown_threshold_``; minus infinity if no row is refused.
    known : ndarray of bool of shape (n,) or None, default=None
        Whether a row belongs to a class; None if that is not known.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    histograms_ : dict of matplotlib.patches.StepPatch
        With the keys "support samples", and "rows", or "known classes" and "other rows". A
        histogram without rows is left out.
    threshold_line_ : matplotlib.lines.Line2D or None
        The threshold; None if there is none.

    Examples
    --------
    >>> from flowalign import FlowMatchingAligner
    >>> from flowalign.datasets import make_cross_modal
    >>> from flowalign.plotting import NoveltyDisplay
    >>> data = make_cross_modal(random_state=0)
    >>> known = data.y_train != "class 0"
    >>> X, y = data.X_train[known], data.y_train[known]
    >>> aligner = FlowMatchingAligner().fit(X, y, data.class_embeddings.subset(y))
    >>> NoveltyDisplay.from_estimator(aligner, data.X_test, data.y_test)  # doctest: +SKIP
    """

    ax_: Axes
    figure_: Figure
    histograms_: dict[str, StepPatch]
    threshold_line_: Line2D | None

    def __init__(
        self,
        *,
        support_scores: NDArray[Any],
        scores: NDArray[Any],
        threshold: float,
        known: NDArray[np.bool_] | None = None,
    ) -> None:
        self.support_scores = support_scores
        self.scores = scores
        self.threshold = threshold
        self.known = known

    @classmethod
    def from_estimator(
        cls,
        estimator: FlowMatchingAligner | Pipeline,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        bins: int | str | ArrayLike = 30,
        ax: Axes | None = None,
        **stairs_kw: Any,
    ) -> NoveltyDisplay:
        """Plot the scores of rows beside those of the support samples.

        Parameters
        ----------
        estimator : FlowMatchingAligner or Pipeline
            Fitted; a pipeline ends in an aligner. Without scores of support samples, as after a fit
            without samples, there is no threshold.
        X : array-like of shape (n, d)
            Features of new rows.
        y : array-like of shape (n,) or None, default=None
            Their labels. Rows whose label is not in ``classes_`` have a separate histogram.
        bins : int, str or array-like, default=30
            Bins of all histograms, for ``numpy.histogram_bin_edges``.
        ax : matplotlib.axes.Axes or None, default=None
            Where; None makes a figure.
        **stairs_kw : dict
            Of all histograms, for ``Axes.stairs``.

        Returns
        -------
        NoveltyDisplay

        Raises
        ------
        TypeError
            If the estimator is no aligner, or `y` has strings although the classes are numbers, or
            the reverse.
        ValueError
            If `y` is not as long as `X`, or has missing labels.
        """
        aligner: FlowMatchingAligner = fitted_aligner(estimator)
        scores = estimator.score_samples(X)
        support_scores = as_numpy(aligner.support_scores_, "support_scores_")
        display = cls(
            support_scores=np.empty(0) if support_scores is None else support_scores,
            scores=scores,
            threshold=aligner.unknown_threshold_,
            known=None if y is None else known_rows(y, aligner.classes_, len(scores)),
        )
        return display.plot(bins=bins, ax=ax, **stairs_kw)

    def plot(
        self, *, bins: int | str | ArrayLike = 30, ax: Axes | None = None, **stairs_kw: Any
    ) -> NoveltyDisplay:
        """Draw the histograms, with a dashed line at the threshold.

        The legend has the share of each histogram below the threshold. Parameters are those of
        :meth:`from_estimator`.
        """
        ax = axes_or_new(ax)
        groups = {SUPPORT: self.support_scores, "rows": self.scores}
        if self.known is not None:
            del groups["rows"]
            groups["known classes"] = self.scores[self.known]
            groups["other rows"] = self.scores[~self.known]
        styles: dict[str, dict[str, Any]] = {
            SUPPORT: {"color": "0.3", "linewidth": 1.5},
            "rows": {"color": COLORS[0], "fill": True, "alpha": 0.5},
            "known classes": {"color": COLORS[0], "fill": True, "alpha": 0.5},
            "other rows": {"color": COLORS[1], "fill": True, "alpha": 0.5},
        }
        edges = np.histogram_bin_edges(np.concatenate([self.support_scores, self.scores]), bins)
        limited = np.isfinite(self.threshold)
        self.histograms_ = {}
        for name, scores in groups.items():
            if not len(scores):
                continue
            refused = f": {(scores < self.threshold).mean():.0%} refused" if limited else ""
            shares = np.histogram(scores, edges)[0] / len(scores)
            style = styles[name] | {"label": name + refused} | stairs_kw
            self.histograms_[name] = ax.stairs(shares, edges, **style)
        self.threshold_line_ = None
        if limited:
            self.threshold_line_ = ax.axvline(
                self.threshold, color="0.3", linestyle="--", label=f"threshold {self.threshold:.3g}"
            )
        else:
            ax.plot([], [], " ", label="no threshold: too few support samples")
        ax.set(xlabel="score of a row: how much it looks like a known class")
        ax.set(ylabel="share of the rows")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return self


def known_rows(y: ArrayLike, classes: NDArray[Any], n_rows: int) -> NDArray[np.bool_]:
    """Return which of the labels of rows, (n,), are those of classes, (C,).

    Examples
    --------
    >>> known_rows(["dog", "yeti", "cat"], np.array(["cat", "dog"]), n_rows=3)
    array([ True, False,  True])
    """
    labels = label_values(y, "y")
    if len(labels) != n_rows:
        raise ValueError(f"y has {len(labels)} labels for {n_rows} rows of X; give one for each.")
    values, known = labels.tolist(), classes.tolist()
    if isinstance(values[0], str) != isinstance(known[0], str):
        raise TypeError(
            f"y must have labels of the kind of the classes, {shorten(known)}; got "
            f"{shorten(dict.fromkeys(values))}."
        )
    classes_known = set(known)
    return np.array([label in classes_known for label in values])
