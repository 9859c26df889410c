"""The distance between modalities, before and after the flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA

from flowalign.inputs import as_numpy
from flowalign.plotting.style import COLORS, pyplot
from flowalign.sphere import unit_rows

if TYPE_CHECKING:
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from flowalign.aligner import FlowMatchingAligner


class ModalityGapDisplay:
    """Features and class embeddings before the flow and after it, in the plane.

    The gap is the distance between the mean of the features and the mean of the class embeddings
    that they belong to, on the unit sphere [1]_. Make one with :meth:`from_estimator`.

    Parameters
    ----------
    before, after : ndarray of shape (n, 2)
        Features in the plane.
    targets : ndarray of shape (C, 2)
        Class embeddings in the plane.
    gaps : tuple of float
        The gap before and after, in the feature space.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes of shape (2,)
    figure_ : matplotlib.figure.Figure
    features_ : list of matplotlib.collections.PathCollection
        The features before and after.

    References
    ----------
    .. [1] W. Liang et al., "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive
       Representation Learning", NeurIPS 2022.

    Examples
    --------
    >>> from flowalign import FlowMatchingAligner
    >>> from flowalign.datasets import make_cross_modal
    >>> from flowalign.plotting import ModalityGapDisplay
    >>> data = make_cross_modal(random_state=0)
    >>> aligner = FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)
    >>> ModalityGapDisplay.from_estimator(aligner, data.X_test)  # doctest: +SKIP
    """

    axes_: NDArray[Any]
    figure_: Figure
    features_: list[PathCollection]

    def __init__(
        self,
        *,
        before: NDArray[Any],
        after: NDArray[Any],
        targets: NDArray[Any],
        gaps: tuple[float, float],
    ) -> None:
        self.before = before
        self.after = after
        self.targets = targets
        self.gaps = gaps

    @classmethod
    def from_estimator(
        cls, estimator: FlowMatchingAligner, X: ArrayLike, *, axes: Any = None, **scatter_kw: Any
    ) -> ModalityGapDisplay:
        """Plot features at the start and at the stop of the flow.

        Parameters
        ----------
        estimator : FlowMatchingAligner
            Fitted.
        X : array-like of shape (n, d)
            Features.
        axes : array of two matplotlib.axes.Axes or None, default=None
            Where; None makes a figure.
        **scatter_kw : dict
            Of the features, for ``Axes.scatter``.

        Returns
        -------
        ModalityGapDisplay
        """
        states = estimator.trajectory(X)
        before, after = (unit_rows(state, "X", zeros_allowed=True) for state in states[[0, -1]])
        targets = unit_rows(
            as_numpy(estimator.class_embeddings_, "class_embeddings_"),
            "class_embeddings_",
            zeros_allowed=True,
        )
        # Of the classes that the samples are taken for: others would move the mean.
        middle = targets[np.searchsorted(estimator.classes_, estimator.predict(X))].mean(axis=0)
        gaps = [float(np.linalg.norm(state.mean(axis=0) - middle)) for state in (before, after)]
        plane = PCA(2).fit(np.concatenate([before, after, targets]))
        display = cls(
            before=plane.transform(before),
            after=plane.transform(after),
            targets=plane.transform(targets),
            gaps=(gaps[0], gaps[1]),
        )
        return display.plot(axes=axes, **scatter_kw)

    def plot(self, *, axes: Any = None, **scatter_kw: Any) -> ModalityGapDisplay:
        """Draw both, side by side on the same scale."""
        if axes is None:
            plt = pyplot()
            _, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True)
        self.axes_, self.features_ = np.asarray(axes), []
        style = {"s": 12, "color": COLORS[0], "alpha": 0.6, "label": "features"} | scatter_kw
        for ax, points, gap, title in zip(
            self.axes_, (self.before, self.after), self.gaps, ("before", "after"), strict=True
        ):
            self.features_.append(ax.scatter(*points.T, **style))
            ax.scatter(
                *self.targets.T, marker="D", s=40, color=COLORS[1], edgecolor="black",
                label="class embeddings",
            )  # fmt: skip
            ax.set(title=f"{title}: gap {gap:.2f}", xlabel="first component")
        self.axes_[0].set_ylabel("second component")
        self.axes_[0].legend(fontsize="small")
        self.figure_ = self.axes_[0].figure
        return self
