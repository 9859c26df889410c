"""The report: one page as HTML, with its pictures inside, and as Markdown, with them beside it."""

from __future__ import annotations

import html
import io
import os
import platform
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
import torch

import flowalign
from flowalign.atomic_file import expanded
from flowalign.benchmark.summary import OURS, Summary, differences, is_oracle, summarise, wins

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 100rem; margin: 2rem auto;
       padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
table { font-size: .87rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
tr.ours, tr.ours td { background: #e8f1fa; } tr.oracle { color: #888; }
td.best { font-weight: 700; }
figure { margin: 1.5rem 0; overflow-x: auto; } figcaption { color: #555; max-width: 60rem; }
svg { max-width: 100%; height: auto; } .scroll { overflow-x: auto; }
"""
INTRODUCTION = (
    "Accuracy on test data in percent, mean over draws of the support set. Every method sees the "
    "same features, draws and class names. Settings are chosen on the support set; rows with an "
    "asterisk chose theirs on test data and are bounds, not results. Spread: standard deviation "
    "over draws of the mean over sets. Rank: average over sets, 1 is best. Seconds: of a fit, all "
    "choices included, with other fits beside it on the same machine."
)
CAPTIONS = {
    "differences": f"Points by which {OURS} is above each method, mean over sets, with Student's "
    "95 % intervals over sets. Grey: chosen on test.",
    "time": "Mean accuracy over sets against the mean time of a fit.",
    "shots": "Accuracy on each set.",
    "calibration": "Accuracy against confidence, samples of all sets and draws together; above the "
    "dashed line a method is right more often than it says.",
}


def write_report(rows: Sequence[dict[str, Any]], out: str | os.PathLike[str]) -> Path:
    """Write ``report.html``, ``report.md`` and the pictures of the latter.

    Parameters
    ----------
    rows : sequence of dict
        As :func:`flowalign.benchmark.run` returns them.
    out : path
        A folder.

    Returns
    -------
    Path
        Of the HTML page.
    """
    out = expanded(out)
    out.mkdir(parents=True, exist_ok=True)
    if not rows:
        raise ValueError("rows is empty: there is nothing to report.")
    summaries = summarise(rows)
    pictures = _pictures(rows, summaries)
    for name, svg in pictures.items():
        (out / f"{name}.svg").write_text(svg, encoding="utf-8")
    (out / "report.md").write_text(_markdown(rows, summaries, pictures), encoding="utf-8")
    page = out / "report.html"
    page.write_text(_html(rows, summaries, pictures), encoding="utf-8")
    return page


def _pictures(rows: Sequence[dict[str, Any]], summaries: Sequence[Summary]) -> dict[str, str]:
    import matplotlib.pyplot as plt

    from flowalign.benchmark import figures

    style: Any = figures.STYLE
    with plt.rc_context(style):
        drawn = {}
        if any(OURS in summary.methods and len(summary.methods) > 1 for summary in summaries):
            drawn["differences"] = figures.paired_differences(summaries)
        if figures.honest(summaries):
            drawn |= {
                "time": figures.accuracy_against_time(summaries),
                "shots": figures.accuracy_against_shots(summaries),
                "calibration": figures.calibration(rows),
            }
        pictures = {name: _svg(name, figure) for name, figure in drawn.items()}
    for figure in drawn.values():
        plt.close(figure)
    return pictures


def _svg(name: str, figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    # Several on one page must not share the names of their parts.
    return re.sub(r'((?:\bid="|href="#|url\(#))', rf"\g<1>{name}-", text.getvalue())


def _table(summary: Summary) -> tuple[list[str], list[tuple[str, list[str]]], set[tuple[int, int]]]:
    """Head, rows (method, cells) and the best cells, by row and column."""
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
            cells.append(_difference(summary, method) if method != OURS else "")
            won = " / ".join(map(str, wins(summary, method)))
            cells.append(won if method != OURS and np.isfinite(summary.accuracy[k]).any() else "")
        cells += [_number(summary.means["log_loss"][k], 2), _number(summary.means["ece"][k], 3)]
        seconds = summary.means["fit_seconds"][k]
        cells.append(f"{seconds:.2g}" if np.isfinite(seconds) else "-")
        body.append((method, cells + [_percent(value) for value in summary.accuracy[k]]))
    honest = np.array([not is_oracle(m) for m in summary.methods])
    values = np.column_stack([summary.mean(), summary.accuracy])
    places = [0, *range(n_columns, len(head))]
    values = np.where(honest[:, None], values, np.nan).round(4)
    best = {
        (int(k), column)
        for column, found in zip(places, values.T, strict=True)
        for k in np.flatnonzero(found == np.nanmax(found, initial=-1))
    }
    return head, body, best


def _difference(summary: Summary, method: str) -> str:
    middle, low, high = 100 * np.array(differences(summary, method))
    if not np.isfinite(middle):
        return "-"
    return f"{middle:+.1f}" + (f" [{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else "")


def _percent(value: float, digits: int = 1) -> str:
    return _number(100 * value, digits)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def _facts(rows: Sequence[dict[str, Any]]) -> str:
    sets = {row["set"] for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    return (
        f"{len(rows)} fits, {len(sets)} feature sets, draws {', '.join(map(str, seeds))}; "
        f"flowalign {flowalign.__version__}, torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}; {date.today().isoformat()}."
    )


def _failures(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{row['method']} on {row['set']}, {row['n_shots']} shots, draw {row['seed']}: "
        f"{' '.join(row['error'].split())}"
        for row in rows
        if "error" in row
    ]


def _title(summary: Summary) -> str:
    return f"{summary.n_shots} labelled sample{'s' if summary.n_shots > 1 else ''} a class"


def _markdown(
    rows: Sequence[dict[str, Any]], summaries: Sequence[Summary], pictures: dict[str, str]
) -> str:
    lines = ["# Benchmark", "", INTRODUCTION, "", _facts(rows), ""]
    for summary in summaries:
        head, body, best = _table(summary)
        names = [name.replace("|", r"\|") for name in head]
        lines += [f"## {_title(summary)}", "", f"| method | {' | '.join(names)} |"]
        lines.append("|---|" + "---:|" * len(head))
        for k, (method, cells) in enumerate(body):
            shown = [f"**{c}**" if (k, j) in best else c for j, c in enumerate(cells)]
            name = method.replace("*", r"\*").replace("|", r"\|")
            lines.append(f"| {name} | {' | '.join(shown)} |")
        lines.append("")
    for name in pictures:
        lines += [f"![{CAPTIONS[name]}]({name}.svg)", "", CAPTIONS[name], ""]
    failures = _failures(rows)
    if failures:
        lines += ["## Fits that failed", "", *[f"- {line}" for line in failures], ""]
    return "\n".join(lines)


def _html(
    rows: Sequence[dict[str, Any]], summaries: Sequence[Summary], pictures: dict[str, str]
) -> str:
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Benchmark</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>Benchmark</h1><p>{INTRODUCTION}</p><p>{html.escape(_facts(rows))}</p>",
    ]
    for summary in summaries:
        head, body, best = _table(summary)
        names = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *head])
        parts.append(f"<h2>{_title(summary)}</h2><div class='scroll'><table>")
        parts.append(f"<thead><tr>{names}</tr></thead><tbody>")
        for k, (method, cells) in enumerate(body):
            kind = "ours" if method == OURS else "oracle" if is_oracle(method) else ""
            shown = "".join(
                f'<td class="best">{c}</td>' if (k, j) in best else f"<td>{c}</td>"
                for j, c in enumerate(cells)
            )
            parts.append(f'<tr class="{kind}"><td>{html.escape(method)}</td>{shown}</tr>')
        parts.append("</tbody></table></div>")
    for name, svg in pictures.items():
        drawing = svg[svg.index("<svg") :]
        parts.append(f"<figure>{drawing}<figcaption>{CAPTIONS[name]}</figcaption></figure>")
    failures = _failures(rows)
    if failures:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in failures)
        parts.append(f"<h2>Fits that failed</h2><ul>{items}</ul>")
    return "\n".join([*parts, "</body></html>", ""])
