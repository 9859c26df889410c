"""Where the flow carries samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA

from flowalign.inputs import as_numpy, label_values, vector_values
from flowalign.plotting.style import COLORS, MARKERS, axes_or_new, class_codes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import ArrayLike, NDArray

    from flowalign.aligner import FlowMatchingAligner

MAX_LEGEND = 12  # classes


class TrajectoryDisplay:
    """The path of each sample to the embedding of its class, in the plane.

    The plane is that of the first two principal components of the class embeddings, so that the
    ends lie apart. Make one with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    points : ndarray of shape (steps + 1, n, 2)
        States in the plane.
    targets : ndarray of shape (C, 2)
        Class embeddings in the plane.
    codes : ndarray of shape (n,)
        Class of each sample, a row of `targets`.
    classes : ndarray of shape (C,)
        Labels.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    lines_ : list of matplotlib.lines.Line2D
        A line for each sample.
    targets_ : list of matplotlib.lines.Line2D
        A marker for each class that has samples.

    Examples
    --------
    >>> from flowalign import FlowMatchingAligner
    >>> from flowalign.datasets import make_cross_modal
    >>> from flowalign.plotting import TrajectoryDisplay
    >>> data = make_cross_modal(4, random_state=0)
    >>> aligner = FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)
    >>> TrajectoryDisplay.from_estimator(aligner, data.X_test, data.y_test)  # doctest: +SKIP
    """

    ax_: Axes
    figure_: Figure
    lines_: list[Line2D]
    targets_: list[Line2D]

    def __init__(
        self,
        *,
        points: NDArray[Any],
        targets: NDArray[Any],
        codes: NDArray[Any],
        classes: NDArray[Any],
    ) -> None:
        self.points = points
        self.targets = targets
        self.codes = codes
        self.classes = classes

    @classmethod
    def from_estimator(
        cls,
        estimator: FlowMatchingAligner,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        ax: Axes | None = None,
        **line_kw: Any,
    ) -> TrajectoryDisplay:
        """Plot the trajectories of samples, up to the stop of the aligner.

        Parameters
        ----------
        estimator : FlowMatchingAligner
            Fitted.
        X : array-like of shape (n, d)
            Features; a few dozen are enough.
        y : array-like of shape (n,) or None
            Their labels, for colours; None takes the predicted ones.
        ax : matplotlib.axes.Axes or None, default=None
            Where; None makes a figure.
        **line_kw : dict
            Of the lines, for ``Axes.plot``.

        Returns
        -------
        TrajectoryDisplay
        """
        labels = estimator.predict(X) if y is None else y
        return cls.from_predictions(
            estimator.trajectory(X), labels,
            as_numpy(estimator.class_embeddings_, "class_embeddings_"), estimator.classes_,
            ax=ax, **line_kw,
        )  # fmt: skip

    @classmethod
    def from_predictions(
        cls,
        states: ArrayLike,
        y: ArrayLike,
        class_embeddings: ArrayLike,
        classes: ArrayLike,
        *,
        ax: Axes | None = None,
        **line_kw: Any,
    ) -> TrajectoryDisplay:
        """Plot states of shape (steps + 1, n, d), labels (n,), targets (C, d) and classes (C,)."""
        states = np.asarray(as_numpy(states, "states"))
        targets = vector_values(class_embeddings, "class_embeddings")
        classes = label_values(classes, "classes")
        codes = class_codes(y, classes)
        plane = _plane(targets, states[-1])
        points = plane.transform(states.reshape(-1, states.shape[-1]))
        display = cls(
            points=points.reshape(*states.shape[:2], 2),
            targets=plane.transform(targets),
            codes=codes,
            classes=classes,
        )
        return display.plot(ax=ax, **line_kw)

    def plot(self, *, ax: Axes | None = None, **line_kw: Any) -> TrajectoryDisplay:
        """Draw a line for each sample, from a dot at its feature to where it ends."""
        ax = axes_or_new(ax)
        self.lines_, self.targets_ = [], []
        for k, code in enumerate(np.unique(self.codes)):
            color, marker = COLORS[k % len(COLORS)], MARKERS[k % len(MARKERS)]
            for way in self.points[:, self.codes == code].swapaxes(0, 1):
                style: dict[str, Any] = {"color": color, "linewidth": 0.9, "alpha": 0.7}
                self.lines_ += ax.plot(*way.T, **style | line_kw)
                ax.plot(*way[0], marker=".", color=color, markersize=4)
            self.targets_ += ax.plot(
                *self.targets[code], marker=marker, color=color, markersize=10,
                markeredgecolor="black", linestyle="none", label=str(self.classes[code]), zorder=3,
            )  # fmt: skip
        ax.set(xlabel="first component", ylabel="second component", aspect="equal")
        if len(self.targets_) <= MAX_LEGEND:
            ax.legend(handles=self.targets_, fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return self


def _plane(targets: NDArray[Any], ends: NDArray[Any]) -> PCA:
    """Components of the class embeddings; of these and where samples end, if they are too few."""
    spread = np.linalg.matrix_rank(targets - targets.mean(axis=0))
    return PCA(2).fit(targets if spread > 1 else np.concatenate([targets, ends]))
