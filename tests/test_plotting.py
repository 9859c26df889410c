"""Displays show what the estimator holds."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.decomposition import PCA

from flowalign import FlowMatchingAligner
from flowalign.plotting import (
    ModalityGapDisplay,
    ReliabilityDisplay,
    StopDisplay,
    TrajectoryDisplay,
)


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


def test_trajectories_are_drawn(fitted, data):
    X, y = data.X_test[::4], data.y_test[::4]
    display = TrajectoryDisplay.from_estimator(fitted, X, y, linewidth=3)
    states = fitted.trajectory(X)
    assert display.points.shape == (len(states), len(X), 2)
    # The plane holds the class embeddings: distances there are at most those in space.
    flat = np.linalg.norm(display.points[-1] - display.points[0], axis=1)
    assert (flat <= np.linalg.norm(states[-1] - states[0], axis=1) + 1e-5).all()
    assert len(display.lines_) == len(X)
    ends = np.array([line.get_xydata()[-1] for line in display.lines_])  # class after class
    order = np.argsort(display.codes, kind="stable")
    np.testing.assert_allclose(ends, display.points[-1][order], atol=1e-6)
    assert display.lines_[0].get_linewidth() == 3
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == sorted(set(y))
    assert len(TrajectoryDisplay.from_estimator(fitted, X).lines_) == len(X)


def test_the_plane_is_that_of_the_class_embeddings(fitted, data):
    X = data.X_test[::7]
    display = TrajectoryDisplay.from_estimator(fitted, X)
    plane = PCA(2).fit(fitted.class_embeddings_)
    np.testing.assert_allclose(
        display.targets, plane.transform(fitted.class_embeddings_), atol=1e-5
    )
    for points, states in zip(display.points, fitted.trajectory(X), strict=True):
        np.testing.assert_allclose(points, plane.transform(states), atol=1e-5)


def test_a_trajectory_has_the_colour_of_its_class_and_goes_from_dot_to_end():
    states = np.random.default_rng(0).normal(size=(2, 3, 3))
    targets = np.array([[4.0, 0, 0], [0, 4, 0], [0, 0, 4], [4, 4, 4]])
    display = TrajectoryDisplay.from_predictions(states, ["d", "b", "d"], targets, list("abcd"))
    assert display.codes.tolist() == [3, 1, 3]
    drawn = {tuple(line.get_xydata()[0]): line for line in display.lines_}
    colors = [drawn[tuple(start)].get_color() for start in display.points[0]]
    assert colors[0] == colors[2] != colors[1]
    for k, start in enumerate(display.points[0]):
        np.testing.assert_allclose(drawn[tuple(start)].get_xydata(), display.points[:, k])
    marks = {mark.get_label(): mark for mark in display.targets_}
    assert list(marks) == ["b", "d"]  # of classes that have samples
    for label, row in (("b", 1), ("d", 3)):
        np.testing.assert_allclose(marks[label].get_xydata(), display.targets[[row]])
    assert marks["d"].get_color() == colors[0]
    dots = [line.get_xydata()[0].tolist() for line in display.ax_.get_lines()
            if line.get_marker() == "."]  # fmt: skip
    assert sorted(dots) == sorted(display.points[0].tolist())


@pytest.mark.parametrize(("n_classes", "legend"), [(12, True), (13, False)])
def test_a_legend_has_twelve_classes_at_most(n_classes, legend):
    targets = np.random.default_rng(0).normal(size=(n_classes, 5))
    states = np.stack([0 * targets, targets])
    display = TrajectoryDisplay.from_predictions(
        states, range(n_classes), targets, range(n_classes)
    )
    assert (display.ax_.get_legend() is not None) == legend


def test_three_classes_span_a_plane_of_their_own():
    """Whatever the samples do, the class embeddings are as far apart in it as they are."""
    rng = np.random.default_rng(0)
    targets, states = rng.normal(size=(3, 6)), 9 * rng.normal(size=(2, 20, 6))
    codes = np.arange(20) % 3
    display = TrajectoryDisplay.from_predictions(states, codes, targets, range(3))
    for k in range(3):
        np.testing.assert_allclose(
            np.linalg.norm(display.targets - display.targets[k], axis=1),
            np.linalg.norm(targets - targets[k], axis=1),
        )


def test_trajectories_to_two_classes():
    """Two class embeddings span no plane of their own."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 5)), np.repeat([0, 1], 6)
    model = FlowMatchingAligner().fit(X, y, {0: np.eye(5)[0], 1: np.eye(5)[1]})
    display = TrajectoryDisplay.from_estimator(model, X, y)
    assert np.isfinite(display.points).all()
    with pytest.raises(ValueError, match=r"y has labels that the classes lack: \[6 7\]"):
        TrajectoryDisplay.from_estimator(model, X, y + 6)


def test_reliability_is_drawn(fitted, data):
    display = ReliabilityDisplay.from_estimator(fitted, data.X_test, data.y_test, label="ours")
    proba = fitted.predict_proba(data.X_test)
    assert display.count.sum() == len(data.X_test)
    assert np.average(display.confidence, weights=display.count) == pytest.approx(
        proba.max(axis=1).mean()
    )
    assert np.average(display.accuracy, weights=display.count) == pytest.approx(
        fitted.score(data.X_test, data.y_test)
    )
    np.testing.assert_array_equal(display.line_.get_ydata(), display.accuracy)
    assert display.ax_.get_legend().get_texts()[0].get_text() == "ours"


def test_reliability_of_a_calibrated_classifier():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), size=30_000)
    y = (proba.cumsum(axis=1) > rng.random((30_000, 1))).argmax(axis=1)
    display = ReliabilityDisplay.from_predictions(y, proba, [0, 1, 2], n_bins=8)
    np.testing.assert_allclose(display.accuracy, display.confidence, atol=0.05)


def test_bins_have_equal_width_and_hold_their_upper_end_only_at_one():
    proba = np.array([0.5, 0.6, 0.74, 0.75, 0.99, 1.0])
    proba = np.column_stack([proba, 1 - proba])
    y = ["a", "b", "a", "a", "b", "a"]
    display = ReliabilityDisplay.from_predictions(y, proba, ["a", "b"], n_bins=4)
    assert display.count.tolist() == [3, 3]
    np.testing.assert_allclose(display.confidence, [(0.5 + 0.6 + 0.74) / 3, (0.75 + 0.99 + 1) / 3])
    np.testing.assert_allclose(display.accuracy, [2 / 3, 2 / 3])
    with pytest.raises(ValueError, match=r"y has labels that the classes lack: \['c'\]"):
        ReliabilityDisplay.from_predictions([*y[:5], "c"], proba, ["a", "b"])


def test_the_modality_gap_is_between_the_means_of_directions(fitted, data):
    """Of features and of the embeddings of the classes that they are taken for."""
    X = data.X_test[data.y_test <= data.class_names[2]]
    display = ModalityGapDisplay.from_estimator(fitted, X)
    E = fitted.class_embeddings_[np.searchsorted(fitted.classes_, fitted.predict(X))]
    states = fitted.trajectory(X)
    parts = [E, states[0], states[-1], fitted.class_embeddings_]
    E, before, after, targets = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in parts)
    expected = [np.linalg.norm(v.mean(axis=0) - E.mean(axis=0)) for v in (before, after)]
    np.testing.assert_allclose(display.gaps, expected, rtol=1e-5)
    # One plane for both, so that they can be compared.
    plane = PCA(2).fit(np.concatenate([before, after, targets]))
    shown = (display.before, display.after, display.targets)
    for points, rows in zip(shown, (before, after, targets), strict=True):
        np.testing.assert_allclose(points, plane.transform(rows), atol=1e-5)
    left, right = display.axes_
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()


def test_the_modality_gap_is_drawn(fitted, data):
    display = ModalityGapDisplay.from_estimator(fitted, data.X_test, s=3)
    before, after = display.gaps
    assert after < before
    assert [ax.get_title() for ax in display.axes_] == [
        f"before: gap {before:.2f}",
        f"after: gap {after:.2f}",
    ]
    for drawn, points in zip(display.features_, (display.before, display.after), strict=True):
        np.testing.assert_array_equal(drawn.get_offsets(), points)


def test_displays_draw_where_they_are_told(fitted, data):
    _, (left, right) = plt.subplots(ncols=2)
    display = StopDisplay.from_estimator(fitted, ax=left)
    assert display.ax_ is left
    assert display.plot(ax=right).ax_ is right
    assert ReliabilityDisplay.from_estimator(fitted, data.X_test, data.y_test, ax=left).ax_ is left
    assert TrajectoryDisplay.from_estimator(fitted, data.X_test[:3], ax=left).ax_ is left
    assert ModalityGapDisplay.from_estimator(fitted, data.X_test, axes=[left, right])
    assert len(plt.get_fignums()) == 1


def test_displays_take_tensors():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 5)), np.repeat([0, 1], 6)
    model = FlowMatchingAligner().fit(X, y, np.eye(5)[:2])
    rows = [torch.tensor(row, requires_grad=True) for row in X]
    labels = list(torch.tensor(y))
    ways = [TrajectoryDisplay.from_estimator(model, *given) for given in ((X, y), (rows, labels))]
    np.testing.assert_array_equal(ways[0].points, ways[1].points)
    gaps = [ModalityGapDisplay.from_estimator(model, given).gaps for given in (X, rows)]
    assert gaps[0] == gaps[1]
    proba = torch.tensor(model.predict_proba(X), requires_grad=True)
    drawn = ReliabilityDisplay.from_predictions(labels, list(proba), torch.arange(2))
    expected = ReliabilityDisplay.from_estimator(model, rows, labels)
    np.testing.assert_array_equal(drawn.confidence, expected.confidence)


def test_what_cannot_be_drawn_is_said(data, fitted, monkeypatch):
    with pytest.raises(ValueError, match="score must be one of accuracy, log_loss"):
        StopDisplay.from_estimator(fitted, score="hits")
    model = FlowMatchingAligner(n_steps=5, logit_scale=100).fit(data.X_train, data.y_train)
    with pytest.raises(ValueError, match="no scores to plot.*n_steps='auto'"):
        StopDisplay.from_estimator(model)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"flowalign\[plot\]"):
        StopDisplay.from_estimator(fitted)
