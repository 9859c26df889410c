"""Pictures of a benchmark. They need matplotlib: ``pip install "flowalign[plot]"``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from flowalign.benchmark.summary import OURS, Summary, differences, is_oracle
from flowalign.plotting.style import COLORS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

FEWEST = 20  # samples that a point of a calibration curve needs
STYLE: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "flowalign",  # so that the same rows give the same file
}


def _look(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return one colour and marker for each method; no other method has the colour of ours."""
    others = [method for method in methods if method != OURS]
    colors = {m: COLORS[1 + k % (len(COLORS) - 1)] for k, m in enumerate(others)}
    return {
        method: {
            "label": method,
            "color": colors.get(method, COLORS[0]),
            "marker": MARKERS[k % len(MARKERS)],
            "linewidth": 2.4 if method == OURS else 1.1,
            "zorder": 3 if method == OURS else 2,
        }
        for k, method in enumerate(methods)
    }


def honest(summaries: Sequence[Summary]) -> list[str]:
    """Return all methods but oracles."""
    return [m for m in _methods(summaries) if not is_oracle(m)]


def _methods(summaries: Sequence[Summary]) -> list[str]:
    return list(dict.fromkeys(m for summary in summaries for m in summary.methods))


def _value(summary: Summary, values: NDArray[Any], method: str) -> Any:
    """Return the value of a method, nan if it was not run with this number of shots."""
    known = method in summary.methods
    return values[summary.methods.index(method)] if known else np.nan


def _grid(n: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(n, columns)
    width = max(width, 5.5 / columns)  # so that a legend fits below, even of a single picture
    rows = -(-n // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
    )
    flat = list(axes.ravel())
    for ax in flat[n:]:
        ax.set_axis_off()
    return figure, flat[:n]


def paired_differences(summaries: Sequence[Summary]) -> Figure:
    """Points by which ours is above each other method, with 95 % intervals."""
    others = [m for m in _methods(summaries) if m != OURS]
    figure, axes = _grid(len(summaries), 3, 3.6, 0.6 + 0.27 * len(others))
    for ax, summary in zip(axes, summaries, strict=True):
        for k, method in enumerate(others):
            if OURS not in summary.methods or method not in summary.methods:
                continue
            middle, low, high = 100 * np.array(differences(summary, method))
            color = "0.55" if is_oracle(method) else COLORS[0]
            ax.plot([low, high], [k, k], color=color, linewidth=2)
            ax.plot(middle, k, marker="o", color=color)
        ax.axvline(0, color="0.2", linewidth=1)
        ax.set(
            title=_title(summary.n_shots),
            xlabel=f"points of {OURS} above",
            ylim=(len(others) - 0.5, -0.5),
        )
        ax.set_yticks(range(len(others)), others if ax is axes[0] else [""] * len(others))
    return figure


def accuracy_against_time(summaries: Sequence[Summary]) -> Figure:
    """Mean accuracy over sets against the mean time of a fit."""
    methods = honest(summaries)
    looks = _look(methods)
    figure, axes = _grid(len(summaries), 3, 3.6, 3.2)
    for ax, summary in zip(axes, summaries, strict=True):
        for method in methods:
            look = looks[method] | {"linestyle": "none", "markersize": 10 if method == OURS else 6}
            seconds = _value(summary, summary.means["fit_seconds"], method)
            ax.plot(seconds, 100 * _value(summary, summary.mean(), method), **look)
        ax.set(title=_title(summary.n_shots), xlabel="seconds of a fit", xscale="log")
    axes[0].set_ylabel("mean accuracy, %")
    _legend(figure, axes[0])
    return figure


def accuracy_against_shots(summaries: Sequence[Summary]) -> Figure:
    """Accuracy on each set against the number of shots."""
    methods = honest(summaries)
    looks = _look(methods)
    names = sorted({name for summary in summaries for name in summary.sets})
    figure, axes = _grid(len(names), 4, 2.7, 2.4)
    shots = [summary.n_shots for summary in summaries]
    for ax, name in zip(axes, names, strict=True):
        for method in methods:
            values = [np.mean(s.draws.get((method, name), [np.nan])) for s in summaries]
            ax.plot(shots, 100 * np.array(values), markersize=4, **looks[method])
        ax.set_xscale("log", base=2)
        ax.set_xticks(shots, [str(k) for k in shots])
        ax.set(title=name.replace("$", r"\$"), xlabel="labelled samples a class")
    axes[0].set_ylabel("accuracy, %")
    _legend(figure, axes[0])
    return figure


def calibration(rows: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy against confidence for each method, over the samples of all sets and draws.

    A tenth of confidence with fewer than twenty samples has no point.
    """
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if not is_oracle(m)]
    shots = sorted({row["n_shots"] for row in rows})
    bins: dict[tuple[str, int, int], list[tuple[int, float, float]]] = defaultdict(list)
    for row in rows:
        for count, confidence, share in row.get("calibration", []):
            # The bins in the rows are finer than the points of the picture.
            place = min(int(confidence * 10), 9)
            bins[row["method"], row["n_shots"], place].append((count, confidence, share))
    figure, axes = _grid(len(methods), 4, 2.4, 2.3)
    for ax, method in zip(axes, methods, strict=True):
        ax.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle="--", label="calibrated")
        for k, n_shots in enumerate(shots):
            found = [bins[method, n_shots, place] for place in range(10)]
            points = [
                np.average(b, axis=0, weights=[count for count, *_ in b])[1:]
                for b in found
                if sum(count for count, *_ in b) >= FEWEST
            ]
            if points:
                ax.plot(
                    *np.transpose(points), marker=MARKERS[k], markersize=4, color=COLORS[k % 8],
                    label=_title(n_shots),
                )  # fmt: skip
        ax.set(title=method, xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
    axes[0].set_ylabel("accuracy")
    _legend(figure, axes[0])
    return figure


def _title(n_shots: int) -> str:
    return f"{n_shots} shot{'s' if n_shots > 1 else ''}"


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    columns = max(2, int(figure.get_figwidth() / 1.6))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
