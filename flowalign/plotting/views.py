"""What each of several views contributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline

from flowalign.plotting.style import COLORS, axes_or_new, class_codes, fitted_aligner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from flowalign.multi_view import MultiViewAligner

WAYS = ("alone", "all without it", "all together")


class ViewsDisplay:
    """What each view contributes: its accuracy alone, that of the others, and that of all.

    Three bars for each view, with its weight. All three are over the rows that have the view; the
    others without it only answer those of these rows that have another view, too. The number beside
    a bar says over how many rows it is. Make one with :meth:`from_estimator`.

    Parameters
    ----------
    names : sequence of V str
        Of the views.
    weights : array-like of shape (V,)
        ``view_weights_`` of a fitted aligner.
    right : array-like of int of shape (3, V)
        How many rows are answered rightly by each view alone, by all others without it, and by all
        together.
    rows : array-like of int of shape (3, V)
        How many rows are answered.

    Attributes
    ----------
    accuracy : dict of ndarray of shape (V,)
        Shares of right answers: "alone", "all without it" and "all together"; NaN where there is no
        row.
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    bars_ : dict of matplotlib.container.BarContainer
        With keys as in `accuracy`.

    Raises
    ------
    ValueError
        If the arrays do not fit together.

    Examples
    --------
    >>> from flowalign.plotting import ViewsDisplay
    >>> display = ViewsDisplay(
    ...     names=["sound", "picture"],
    ...     weights=[0.8, 0.6],
    ...     right=[[90, 120], [60, 90], [98, 156]],
    ...     rows=[[100, 200], [100, 100], [100, 200]],  # half of the sounds are missing
    ... )
    >>> display.accuracy["alone"]
    array([0.9, 0.6])
    >>> display.plot()  # doctest: +SKIP
    """

    ax_: Axes
    figure_: Figure
    bars_: dict[str, BarContainer]

    def __init__(
        self,
        *,
        names: Sequence[str],
        weights: ArrayLike,
        right: ArrayLike,
        rows: ArrayLike,
    ) -> None:
        self.names, self.weights = list(names), np.asarray(weights, dtype=float)
        self.right, self.rows = np.asarray(right), np.asarray(rows)
        n_views = len(self.names)
        for name, shape in (("weights", ()), ("right", (3,)), ("rows", (3,))):
            got, expected = getattr(self, name).shape, (*shape, n_views)
            if got != expected:
                raise ValueError(
                    f"{name} has shape {got} for {n_views} views; it must be {expected}."
                )
        # Of no row, nothing is known.
        shares = self.right / np.where(self.rows > 0, self.rows, np.nan)
        self.accuracy = dict(zip(WAYS, shares, strict=True))

    @classmethod
    def from_estimator(
        cls,
        estimator: MultiViewAligner | Pipeline,
        X: ArrayLike,
        y: ArrayLike,
        *,
        ax: Axes | None = None,
        **bar_kw: Any,
    ) -> ViewsDisplay:
        """Plot how often each view is right, and the others, and all.

        Parameters
        ----------
        estimator : MultiViewAligner or Pipeline
            Fitted; a pipeline ends in an aligner.
        X : array-like or frame of shape (n, d)
            Features of new rows, of all views; rows may lack views. A view alone answers as
            :meth:`MultiViewAligner.predict` does if the rows lack all other views. No row is
            refused, whatever `unknown_label`.
        y : array-like of shape (n,)
            Their labels, out of ``classes_``.
        ax : matplotlib.axes.Axes or None, default=None
            Where; None makes a figure.
        **bar_kw : dict
            Of all bars, for ``Axes.barh``.

        Returns
        -------
        ViewsDisplay

        Raises
        ------
        TypeError
            If the estimator is no aligner of several views.
        ValueError
            If `y` is not as long as `X`, or has labels that are not of ``classes_``.
        """
        aligner: MultiViewAligner = fitted_aligner(estimator, "view_weights_", "MultiViewAligner")
        if isinstance(estimator, Pipeline) and len(estimator) > 1:
            X = estimator[:-1].transform(X)
        rows = aligner._rows_of(X)
        present = np.array([view.present for view in rows])
        codes = class_codes(y, aligner.classes_)
        if len(codes) != present.shape[1]:
            raise ValueError(
                f"y has {len(codes)} labels for {present.shape[1]} rows of X; give one for each."
            )
        log_prior = np.log(aligner.class_prior_)
        hits = np.empty((3, *present.shape), dtype=bool)
        for first, part in aligner._parts(rows):
            said = np.array(list(aligner._said(part, first)))
            joint = log_prior + said.sum(axis=0)
            here = slice(first, first + len(joint))
            for k, scores in enumerate((log_prior + said, joint - said, joint)):
                hits[k, :, here] = scores.argmax(axis=-1) == codes[here]
        answered = np.stack([present, present & (present.sum(axis=0) > 1), present])
        display = cls(
            names=[name for name, _, _ in aligner.views_],
            weights=aligner.view_weights_,
            right=(hits & answered).sum(axis=2),
            rows=answered.sum(axis=2),
        )
        return display.plot(ax=ax, **bar_kw)

    def plot(self, *, ax: Axes | None = None, **bar_kw: Any) -> ViewsDisplay:
        """Draw the bars, the accuracy in percent and the number of rows beside each.

        Parameters are those of :meth:`from_estimator`.
        """
        new, ax = ax is None, axes_or_new(ax)
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        places = np.arange(len(self.names))
        if new:
            self.figure_.set_size_inches(8, 1.6 + 0.9 * len(places))
            self.figure_.set_layout_engine("constrained")
        self.bars_ = {}
        for k, (way, accuracy) in enumerate(self.accuracy.items()):
            style: dict[str, Any] = {"height": 0.27, "color": COLORS[k], "label": way} | bar_kw
            # A bar of nothing, whose text says so, where there is no row.
            bars = ax.barh(places + 0.28 * (k - 1), np.nan_to_num(accuracy), **style)
            texts = [_percent(*pair) for pair in zip(accuracy, self.rows[k], strict=True)]
            ax.bar_label(bars, texts, padding=3, fontsize="small")
            self.bars_[way] = bars
        named = zip(self.names, self.weights, strict=True)
        labels = [f"{name}\nweight {weight:.2f}" for name, weight in named]
        ax.set_yticks(places, labels, parse_math=False)
        # The first view on top; room at the right for what stands beside the bars.
        ax.set(xlim=(0, 1.35), ylim=(len(places) - 0.4, -0.6))
        ax.set_xticks(np.linspace(0, 1, 6))
        ax.set(xlabel="accuracy over the rows that have the view")
        handles, names = ax.get_legend_handles_labels()
        ax.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
        return self


def _percent(accuracy: float, n_rows: int) -> str:
    rows = f"{n_rows} row" if n_rows == 1 else f"{n_rows} rows"
    return f"{accuracy:.1%} of {rows}" if n_rows else "no row"
