"""Tables of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowalign.benchmark.open_set import by_score
from flowalign.benchmark.summary import OURS, Summary, differences, is_oracle, summarise, wins

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Table(NamedTuple):
    """A table: title, names of columns, rows (name, cells) and the best cells, (row, column)."""

    title: str
    head: list[str]
    body: list[tuple[str, list[str]]]
    best: set[tuple[int, int]]


def accuracy_table(summary: Summary) -> Table:
    """Return the accuracy of each method in percent: means, comparisons, and each set."""
    compared = OURS in summary.methods
    head = ["mean", "spread", "rank"]
    head += [f"{OURS} above", "wins / ties / losses"] if compared else []
    head += ["log-loss", "ECE", "seconds"]
    n_columns = len(head)
    head += summary.sets
    body = []
    for k, method in enumerate(summary.methods):
        cells = [_percent(summary.mean()[k]), _percent(summary.spread[k], 2)]
        cells.append(_number(summary.ranks[k], 1))
        if compared:
            cells += _compared(summary, method)
        cells += [_number(summary.means["log_loss"][k], 2), _number(summary.means["ece"][k], 3)]
        seconds = summary.means["fit_seconds"][k]
        cells.append(f"{seconds:.2g}" if np.isfinite(seconds) else "-")
        body.append((method, cells + [_percent(value) for value in summary.accuracy[k]]))
    values = np.column_stack([summary.mean(), summary.accuracy])
    places = [0, *range(n_columns, len(head))]
    return Table(_title(summary), head, body, _best(summary, places, values))


def several_views_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Return tables of accuracy for rows of :func:`run_several_views`, by number of shots."""
    tables = map(accuracy_table, summarise(rows))
    return [table._replace(title=f"Several views: {table.title}") for table in tables]


def unlabeled_tables(rows: Sequence[dict[str, Any]], pool: str) -> list[Table]:
    """Return tables of accuracy for one pool of :func:`run_unlabeled`, by number of shots."""
    tables = map(accuracy_table, summarise([row for row in rows if row["pool"] == pool]))
    return [table._replace(title=f"Unlabelled, {pool}: {table.title}") for table in tables]


def open_set_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Return tables of the area under the ROC curve and false positives, by number of shots.

    Both are in percent. ``rows`` are those of :func:`flowalign.benchmark.run_open_set`.
    """
    found = list(by_score(rows))
    every = (summarise(found, score, ()) for score in ("auroc", "fpr95", "refused"))
    return [_open_set_table(*summaries) for summaries in zip(*every, strict=True)]


def _open_set_table(area: Summary, false: Summary, refused: Summary) -> Table:
    head = ["AUROC", "FPR", "rank", f"{OURS} above", "wins / ties / losses"]
    places = [0, *range(len(head), len(head) + len(area.sets))]
    body = []
    for k, name in enumerate(area.methods):
        cells = [_percent(area.mean()[k]), _percent(false.mean()[k]), _number(area.ranks[k], 1)]
        cells += _compared(area, name)
        pairs = zip(area.accuracy[k], false.accuracy[k], strict=True)
        body.append((name, cells + [f"{_percent(a)} / {_percent(f)}" for a, f in pairs]))
    shares = refused.accuracy[refused.methods.index(OURS)]
    cells = [_percent(shares.mean()), *[""] * (len(head) - 1), *map(_percent, shares)]
    body.append(("known rows refused", cells))
    values = np.column_stack([area.mean(), area.accuracy])
    title = f"None of these: {_title(area)}"
    return Table(title, head + area.sets, body, _best(area, places, values))


def _best(summary: Summary, places: list[int], values: NDArray[Any]) -> set[tuple[int, int]]:
    """Return row and column of the highest values, (n_methods, len(places)), without oracles."""
    honest = np.array([not is_oracle(m) for m in summary.methods])
    values = np.where(honest[:, None], values, np.nan).round(4)
    return {
        (int(k), column)
        for column, found in zip(places, values.T, strict=True)
        for k in np.flatnonzero(found == np.nanmax(found, initial=-1))
    }


def _compared(summary: Summary, method: str) -> list[str]:
    """Return how far ours is above a method, and on how many sets."""
    if method == OURS:
        return ["", ""]
    known = np.isfinite(summary.accuracy[summary.methods.index(method)]).any()
    won = " / ".join(map(str, wins(summary, method))) if known else ""
    return [_difference(summary, method), won]


def _difference(summary: Summary, method: str) -> str:
    middle, low, high = 100 * np.array(differences(summary, method))
    if not np.isfinite(middle):
        return "-"
    return f"{middle:+.1f}" + (f" [{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else "")


def _percent(value: float, digits: int = 1) -> str:
    return _number(100 * value, digits)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def _title(summary: Summary) -> str:
    return f"{summary.n_shots} labelled sample{'s' if summary.n_shots > 1 else ''} a class"
