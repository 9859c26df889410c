"""The scores of the steps, and the stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowalign.parameters import one_of
from flowalign.plotting.style import COLORS, axes_or_new, fitted_aligner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from flowalign.aligner import FlowMatchingAligner

LABELS = {
    "accuracy": "accuracy on held-out samples",
    "log_loss": "log-loss of held-out samples",
    "logit_scale": "inverse temperature",
}


class StopDisplay:
    """Scores of each step of the flow on held-out samples, and the stop of the aligner.

    Make one with :meth:`from_estimator`.

    Parameters
    ----------
    scores : dict of ndarray
        ``stop_scores_`` of a fitted aligner.
    stop_time : float
        The stop.
    source : str
        Where the held-out samples come from, ``stop_source_``.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    line_ : matplotlib.lines.Line2D
        The scores.
    stop_line_ : matplotlib.lines.Line2D
        The stop.

    Examples
    --------
    >>> from flowalign import FlowMatchingAligner
    >>> from flowalign.datasets import make_cross_modal
    >>> from flowalign.plotting import StopDisplay
    >>> data = make_cross_modal(random_state=0)
    >>> aligner = FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)
    >>> StopDisplay.from_estimator(aligner, score="log_loss")  # doctest: +SKIP
    """

    ax_: Axes
    figure_: Figure
    line_: Line2D
    stop_line_: Line2D

    def __init__(self, *, scores: dict[str, NDArray[Any]], stop_time: float, source: str) -> None:
        self.scores = scores
        self.stop_time = stop_time
        self.source = source

    @classmethod
    def from_estimator(
        cls,
        estimator: FlowMatchingAligner | Pipeline,
        *,
        score: str = "accuracy",
        ax: Axes | None = None,
        **line_kw: Any,
    ) -> StopDisplay:
        """Plot the scores that a fitted aligner keeps.

        Parameters
        ----------
        estimator : FlowMatchingAligner or Pipeline
            Fitted with "auto" as `n_steps` or `logit_scale`; a pipeline ends in an aligner.
        score : {"accuracy", "log_loss", "logit_scale"}, default="accuracy"
            Which of ``stop_scores_``.
        ax : matplotlib.axes.Axes or None, default=None
            Where; None makes a figure.
        **line_kw : dict
            Of the line, for ``Axes.plot``.

        Returns
        -------
        StopDisplay

        Raises
        ------
        TypeError
            If the estimator is no aligner.
        ValueError
            If nothing was held out in the fit.
        """
        aligner: FlowMatchingAligner = fitted_aligner(estimator, "stop_scores_")
        if aligner.stop_scores_ is None:
            raise ValueError(
                "The aligner has no scores to plot: no sample was held out in its fit. That takes "
                "n_steps='auto' or logit_scale='auto', and two samples of some class or X_val."
            )
        display = cls(
            scores=aligner.stop_scores_,
            stop_time=aligner.stop_time_,
            source=str(aligner.stop_source_),
        )
        return display.plot(score=score, ax=ax, **line_kw)

    def plot(
        self, *, score: str = "accuracy", ax: Axes | None = None, **line_kw: Any
    ) -> StopDisplay:
        """Draw the scores against time, with a dashed line at the stop.

        Parameters are those of :meth:`from_estimator`.
        """
        one_of("score", score, tuple(LABELS))
        ax = axes_or_new(ax)
        style = {"marker": "o", "color": COLORS[0], "label": self.source} | line_kw
        (self.line_,) = ax.plot(self.scores["stop_time"], self.scores[score], **style)
        self.stop_line_ = ax.axvline(
            self.stop_time, color="0.3", linestyle="--", label=f"stop at {self.stop_time:g}"
        )
        ax.set(xlabel="time at which the flow stops", ylabel=LABELS[score])
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return self
