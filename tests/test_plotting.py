"""Displays show what the estimator holds."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from flowalign import FlowMatchingAligner
from flowalign.plotting import StopDisplay


@pytest.fixture(autouse=True)
def no_window():
    with mpl.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


@pytest.mark.parametrize("score", ["accuracy", "log_loss", "logit_scale"])
def test_the_scores_and_the_stop_are_drawn(score, fitted):
    display = StopDisplay.from_estimator(fitted, score=score, color="C3")
    times, values = display.line_.get_data()
    np.testing.assert_allclose(times, np.linspace(0, 1, 11))
    np.testing.assert_array_equal(values, fitted.stop_scores_[score])
    assert display.line_.get_color() == "C3"
    assert display.stop_line_.get_xdata()[0] == fitted.stop_time_
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_ylabel()
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == [fitted.stop_source_, "stop at 0.5"]


def test_it_draws_where_it_is_told(fitted):
    _, (left, right) = plt.subplots(ncols=2)
    display = StopDisplay.from_estimator(fitted, ax=left)
    assert display.ax_ is left
    assert display.plot(ax=right).ax_ is right
    assert len(plt.get_fignums()) == 1


def test_what_cannot_be_drawn_is_said(data, fitted):
    with pytest.raises(ValueError, match="score must be one of accuracy, log_loss"):
        StopDisplay.from_estimator(fitted, score="hits")
    model = FlowMatchingAligner(n_steps=5, logit_scale=100).fit(data.X_train, data.y_train)
    with pytest.raises(ValueError, match="no scores to plot.*n_steps='auto'"):
        StopDisplay.from_estimator(model)
