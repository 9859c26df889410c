"""What unlabelled rows changed in each class."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline

from flowalign import parameters
from flowalign.inputs import as_numpy, shorten
from flowalign.plotting.style import COLORS, axes_or_new, class_codes, fitted_aligner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from flowalign.aligner import FlowMatchingAligner

COLUMNS = ("counts for", "rows left", "rows came")


class UnlabeledDisplay:
    """What the rows of ``X_unlabeled`` changed in each class.

    A bar for each class says how well its unlabelled rows agree with its labelled ones. The least
    agreeing class comes first, of equal ones the most changed. Numbers beside the bar say how many
    labelled rows its unlabelled rows count for, and how many of some other rows left the class and
    came to it because of the unlabelled rows. Make one with :meth:`from_estimator`.

    Parameters
    ----------
    classes : ndarray of shape (C,)
        Labels, sorted and distinct.
    agreement, weight : ndarray of shape (C,)
        ``class_agreement_`` and ``unlabeled_weight_`` of a fitted aligner.
    before, after : array-like of shape (n,)
        Labels of some rows, answered without and with the unlabelled ones.

    Attributes
    ----------
    left, came : ndarray of int of shape (C,)
        How many rows left each class, and how many came to it.
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    bars_ : matplotlib.container.BarContainer
        The agreements of the classes shown.
    numbers_ax_ : matplotlib.axes.Axes
        Its labels stand beside the bars: what rows count for, how many left, how many came.

    Raises
    ------
    ValueError
        If the arrays do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from flowalign.plotting import UnlabeledDisplay
    >>> display = UnlabeledDisplay(
    ...     classes=np.array(["cat", "dog", "fox"]),
    ...     agreement=np.array([0.9, 0.2, 0.8]),
    ...     weight=np.array([7.5, 1.2, 6.1]),
    ...     before=["cat", "dog", "dog", "fox"],
    ...     after=["cat", "fox", "cat", "fox"],
    ... )
    >>> display.left
    array([0, 2, 0])
    >>> display.came
    array([1, 0, 1])
    >>> display.plot()  # doctest: +SKIP
    """

    left: NDArray[np.int64]
    came: NDArray[np.int64]
    ax_: Axes
    figure_: Figure
    bars_: BarContainer
    numbers_ax_: Axes

    def __init__(
        self,
        *,
        classes: NDArray[Any],
        agreement: NDArray[Any],
        weight: NDArray[Any],
        before: ArrayLike,
        after: ArrayLike,
    ) -> None:
        if list(classes) != np.unique(classes).tolist():
            raise ValueError(f"classes must be sorted and distinct, got {shorten(classes)}.")
        n_classes = len(classes)
        for name, values in (("agreement", agreement), ("weight", weight)):
            if np.shape(values) != (n_classes,):
                raise ValueError(
                    f"{name} has shape {np.shape(values)} for {n_classes} classes; give one "
                    "number for each."
                )
        codes = class_codes(before, classes, "before"), class_codes(after, classes, "after")
        if len(codes[0]) != len(codes[1]):
            raise ValueError(
                f"before has {len(codes[0])} labels and after has {len(codes[1])}; give those of "
                "the same rows."
            )
        changed = codes[0] != codes[1]
        self.classes, self.agreement, self.weight = classes, agreement, weight
        self.n_rows = len(changed)
        self.left, self.came = (np.bincount(c[changed], minlength=n_classes) for c in codes)

    @classmethod
    def from_estimator(
        cls,
        estimator: FlowMatchingAligner | Pipeline,
        X: ArrayLike,
        *,
        max_classes: int = 20,
        ax: Axes | None = None,
        **bar_kw: Any,
    ) -> UnlabeledDisplay:
        """Plot what a fitted aligner says of its unlabelled rows, and of others without and with.

        Parameters
        ----------
        estimator : FlowMatchingAligner or Pipeline
            Fitted with ``X_unlabeled`` or rows marked by `unlabeled_label`, or loaded; a pipeline
            ends in an aligner.
        X : array-like of shape (n, d)
            Features of new rows. They are classified twice, with the model of ``predict`` and with
            the model without unlabelled rows, by the same steps and ``posterior_weight_``. No row
            is refused, whatever `unknown_label`. With zero steps nothing changes.
        max_classes : int, default=20
            How many classes to show, those that agree least.
        ax : matplotlib.axes.Axes or None, default=None
            Where; three columns of numbers stand on its right. None makes a figure.
        **bar_kw : dict
            Of the bars, for ``Axes.barh``.

        Returns
        -------
        UnlabeledDisplay

        Raises
        ------
        TypeError
            If the estimator is no aligner, or `max_classes` no integer.
        ValueError
            If the aligner has taken no unlabelled rows in, or `max_classes` is below 1.
        """
        aligner: FlowMatchingAligner = fitted_aligner(estimator, "unlabeled_weight_")
        if aligner.unlabeled_weight_ is None or aligner.class_agreement_ is None:
            raise ValueError(
                "The aligner has no unlabelled rows to plot; fit it with X_unlabeled, or with rows "
                "of y that are marked by unlabeled_label."
            )
        parameters.integer("max_classes", max_classes, low=1)
        if isinstance(estimator, Pipeline) and len(estimator) > 1:
            X = estimator[:-1].transform(X)
        # The threshold of unknown rows is that of the model with all rows: it fits no other.
        with_rows = copy.copy(aligner).set_params(unknown_label=None)
        display = cls(
            classes=aligner.classes_,
            agreement=as_numpy(aligner.class_agreement_, "class_agreement_"),
            weight=as_numpy(aligner.unlabeled_weight_, "unlabeled_weight_"),
            before=with_rows._without_unlabeled().predict(X),
            after=with_rows.predict(X),
        )
        return display.plot(max_classes=max_classes, ax=ax, **bar_kw)

    def plot(
        self, *, max_classes: int = 20, ax: Axes | None = None, **bar_kw: Any
    ) -> UnlabeledDisplay:
        """Draw the bars and what stands beside them; below, how many rows have another answer.

        Parameters are those of :meth:`from_estimator`.
        """
        parameters.integer("max_classes", max_classes, low=1)
        # Where many agree fully, those that rows left or came to are worth a look first.
        shown = np.lexsort((-self.left - self.came, self.agreement))[:max_classes]
        hidden = len(self.classes) - len(shown)
        new, ax = ax is None, axes_or_new(ax)
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        if new:  # a line for each class, and room beside the axes
            self.figure_.set_size_inches(8, 1.6 + 0.25 * len(shown))
            self.figure_.set_layout_engine("constrained")
        rows = np.arange(len(shown))
        self.bars_ = ax.barh(rows, self.agreement[shown], **{"color": COLORS[0]} | bar_kw)
        names = [str(name) for name in self.classes[shown].tolist()]
        ax.set_yticks(rows, names, parse_math=False)
        limits = len(shown) - 0.4, -1.6  # the least agreeing on top, below the heading
        ax.set(xlim=(0, 1), ylim=limits)
        self.numbers_ax_ = ax.twinx()
        lines = ["".join(f"{word:>11}" for word in line) for line in self._table(shown)]
        self.numbers_ax_.set_yticks([-1, *rows], lines, family="monospace", size="small")
        self.numbers_ax_.tick_params(length=0)
        self.numbers_ax_.set(ylim=limits)
        below = f"the class of {self.left.sum()} of {self.n_rows} rows changed"
        if hidden:
            below += f"\n{hidden} classes that agree no less are not shown"
        ax.set(xlabel=f"agreement of unlabelled with labelled rows\n{below}")
        return self

    def _table(self, shown: NDArray[np.int64]) -> list[tuple[str, str, str]]:
        rows = zip(self.weight[shown], self.left[shown], self.came[shown], strict=True)
        return [COLUMNS, *((f"{weight:.1f}", str(left), str(came)) for weight, left, came in rows)]
