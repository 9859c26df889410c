"""Pictures of a benchmark show its figures."""

import numpy as np
import pytest
from benchmark_rows import make

from flowalign.benchmark.summary import differences, summarise

mpl = pytest.importorskip("matplotlib")

from matplotlib import pyplot as plt

from flowalign.benchmark import figures

NAMES = ["a", "b", "c", "d"]
ACCURACY = {
    "flowalign": {name: [0.7 + 0.02 * k] for k, name in enumerate(NAMES)},
    "peer": {name: [0.6] for name in NAMES},
    "peer*": {name: [0.9] for name in NAMES},
    "weak": {"a": [0.3]},
}


@pytest.fixture(autouse=True)
def no_window():
    with mpl.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


@pytest.fixture
def summaries():
    fewer = {name: sets for name, sets in ACCURACY.items() if name != "weak"}
    return summarise(make(ACCURACY, n_shots=1) + make(fewer, n_shots=4))


def lines(ax, label):
    """The points of the lines of a label, (n, 2)."""
    return [line.get_xydata() for line in ax.get_lines() if line.get_label() == label]


def test_differences_are_drawn_with_their_intervals(summaries):
    figure = figures.paired_differences(summaries)
    for ax, summary in zip(figure.axes, summaries, strict=True):
        drawn = [line.get_xydata() for line in ax.get_lines()]
        for row, method in enumerate(["peer", "peer*"]):
            middle, low, high = 100 * np.array(differences(summary, method))
            (interval,) = [p for p in drawn if len(p) == 2 and (p[:, 1] == row).all()]
            np.testing.assert_allclose(interval, [[low, row], [high, row]])
            (point,) = [p for p in drawn if len(p) == 1 and p[0, 1] == row]
            np.testing.assert_allclose(point, [[middle, row]])
        assert ax.get_ylim() == (2.5, -0.5)  # the first method on top
    assert [ax.get_title() for ax in figure.axes] == ["1 shot", "4 shots"]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["peer", "peer*", "weak"]


def test_accuracy_against_time(summaries):
    figure = figures.accuracy_against_time(summaries)
    for ax in figure.axes[:2]:
        (ours,), (peer,) = lines(ax, "flowalign"), lines(ax, "peer")
        np.testing.assert_allclose(ours, [[0.5, 73]])
        np.testing.assert_allclose(peer, [[0.5, 60]])
        assert not lines(ax, "peer*")  # bounds are no results
        assert ax.get_xscale() == "log"
    (weak,) = lines(figure.axes[1], "weak")  # not run with four
    assert np.isnan(weak).all()


def test_accuracy_against_shots(summaries):
    figure = figures.accuracy_against_shots(summaries)
    assert [ax.get_title() for ax in figure.axes] == NAMES
    for k, ax in enumerate(figure.axes):
        np.testing.assert_allclose(lines(ax, "flowalign"), [[[1, 70 + 2 * k], [4, 70 + 2 * k]]])
        assert not lines(ax, "peer*")
    np.testing.assert_allclose(lines(figure.axes[0], "weak")[0], [[1, 30], [4, np.nan]])


def test_calibration_weighs_bins_by_their_samples():
    rows = make({"flowalign": {"a": [0.5], "b": [0.5]}, "peer*": {"a": [0.5]}}, n_shots=1)
    ours, other = rows[:2]
    ours["calibration"] = [[30, 0.42, 0.2], [10, 0.95, 1.0], [19, 0.15, 0.0]]
    other["calibration"] = [[10, 0.46, 0.6], [10, 1.0, 0.8]]
    (ax,) = figures.calibration(rows).axes
    (points,) = lines(ax, "1 shot")
    # Tenths of 40 and of 20 samples, 20 being enough; one of 19 is left out.
    np.testing.assert_allclose(points, [[0.43, 0.3], [0.975, 0.9]])


def test_ours_shares_its_colour_with_none_and_markers_differ():
    names = ["flowalign", *(f"peer {k}" for k in range(9))]
    (summary,) = summarise(make({name: {"a": [0.5]} for name in names}))
    ax = figures.accuracy_against_time([summary]).axes[0]
    looks = {line.get_label(): (line.get_color(), line.get_marker()) for line in ax.get_lines()}
    assert list(looks) == names
    assert len({marker for _, marker in looks.values()}) == len(names)
    assert [color for color, _ in looks.values()].count(looks["flowalign"][0]) == 1
