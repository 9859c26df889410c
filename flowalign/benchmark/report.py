"""The report: an HTML page with pictures inside, and a Markdown page with separate pictures."""

from __future__ import annotations

import html
import io
import os
import platform
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import sklearn
import torch

import flowalign
from flowalign.atomic_file import expanded
from flowalign.benchmark.summary import OURS, is_oracle, summarise
from flowalign.benchmark.tables import (
    Table,
    accuracy_table,
    open_set_tables,
    several_views_tables,
    unlabeled_tables,
)

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
    "same features, draws and class names. Settings are chosen on the support set. For rows with "
    "an asterisk they are chosen on test data: these are bounds, not results. Spread: standard "
    "deviation over draws of the mean over sets. Rank: average over sets, 1 is best. Seconds: time "
    "of a fit with all its choices, while other fits run on the same machine."
)
OPEN_SET = (
    "A random half of the classes is held out of class names and support set, another half in each "
    "draw. Test rows of these classes are foreign. A cell has the area under the ROC curve for "
    "telling known rows from foreign ones, then the share of foreign rows above the threshold that "
    "95 % of the known rows pass; both in percent, mean over draws. Rank, differences, wins and "
    "losses are of the area. Known rows refused: known rows below the threshold of the aligner, "
    "which is nominally 5 %."
)
SEVERAL_VIEWS = (
    f"Sets in which each sample was encoded by several encoders. {OURS} has an aligner for each of "
    "these views and weighs their probabilities. Side by side: one aligner has the features of all "
    "views, each scaled to length 1, and their class embeddings likewise. Alone: one aligner has "
    "one view. If a sample lacks a view, side by side has zeros, and the view alone learns nothing "
    "from the sample. All are scored on the same test rows. A view alone has no answer for rows "
    "that lack it: they count as wrong, and all classes as equally probable."
)
UNLABELED = {
    "undrawn training rows": "Training rows that are no support samples are given without labels. "
    "Test rows are judged, as new rows. A set without such training rows is left out, and so are "
    "methods that have no answer for new rows.",
    "all test rows": "The test rows are given without labels, all at once, and judged.",
    "test rows in batches": "Test rows are given without labels, in up to four random batches of "
    "256 for each set, and each batch has its own fit. All methods are judged on these rows.",
    "imbalanced": "A third of the test rows are given and judged. The shares of the classes come "
    "from a Dirichlet distribution.",
    "a third of the classes": "The test rows of a random third of the classes are given and "
    "judged. No method knows which classes these are.",
    "half of the classes foreign": "All test rows are given. No method knows a random half of the "
    "classes, neither by name nor by samples. Rows of the known classes are judged.",
}
CAPTIONS = {
    "differences": f"Points by which {OURS} is above each method, mean over sets, with Student's "
    "95 % intervals over sets. Grey: settings chosen on test.",
    "time": "Mean accuracy over sets against the mean time of a fit.",
    "shots": "Accuracy on each set.",
    "calibration": "Accuracy against confidence, over the samples of all sets and draws. Above the "
    "dashed line, a method is right more often than its probabilities say.",
}


class Section(NamedTuple):
    """Tables, an introduction below the title of the first table, and pictures."""

    introduction: str
    tables: list[Table]
    pictures: dict[str, Picture]  # by the name of the file


class Picture(NamedTuple):
    """A drawing and its caption."""

    svg: str
    caption: str


class Contents(NamedTuple):
    """The contents of the report, before they are written as HTML or Markdown."""

    facts: str
    sections: list[Section]
    failures: list[str]


def write_report(
    rows: Sequence[dict[str, Any]],
    out: str | os.PathLike[str],
    open_set: Sequence[dict[str, Any]] = (),
    several_views: Sequence[dict[str, Any]] = (),
    unlabeled: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write ``report.html``, ``report.md`` and the pictures for ``report.md``.

    Parameters
    ----------
    rows : sequence of dict
        As :func:`flowalign.benchmark.run` returns them. May be empty if there are other rows.
    out : path
        A folder.
    open_set, several_views, unlabeled : sequence of dict
        As :func:`flowalign.benchmark.run_open_set`, :func:`flowalign.benchmark.run_several_views`
        and :func:`flowalign.benchmark.run_unlabeled` return them. Each has its own section.

    Returns
    -------
    Path
        The path of the HTML page.
    """
    out = expanded(out)
    out.mkdir(parents=True, exist_ok=True)
    fits = [*rows, *several_views, *unlabeled]
    if not (fits or open_set):
        raise ValueError("There is nothing to report: no rows of any kind.")
    sections = [
        Section("", [accuracy_table(summary) for summary in summarise(rows)], _pictures(rows)),
        Section(
            SEVERAL_VIEWS,
            several_views_tables(several_views),
            _pictures(several_views, prefix="views_"),
        ),
        *(Section(said, unlabeled_tables(unlabeled, pool), {}) for pool, said in UNLABELED.items()),
        Section(OPEN_SET, open_set_tables(open_set), {}),
    ]
    contents = Contents(_facts(fits or open_set), sections, _failures([*fits, *open_set]))
    for section in sections:
        for name, picture in section.pictures.items():
            (out / f"{name}.svg").write_text(picture.svg, encoding="utf-8")
    (out / "report.md").write_text(_markdown(contents), encoding="utf-8")
    page = out / "report.html"
    page.write_text(_html(contents), encoding="utf-8")
    return page


def _pictures(rows: Sequence[dict[str, Any]], prefix: str = "") -> dict[str, Picture]:
    if not rows:
        return {}
    import matplotlib.pyplot as plt

    from flowalign.benchmark import figures

    style: Any = figures.STYLE
    summaries = summarise(rows)
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
        pictures = {
            prefix + name: Picture(_svg(prefix + name, figure), CAPTIONS[name])
            for name, figure in drawn.items()
        }
    for figure in drawn.values():
        plt.close(figure)
    return pictures


def _svg(name: str, figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    # The parts of several pictures on one page must have different names.
    return re.sub(r'((?:\bid="|href="#|url\(#))', rf"\g<1>{name}-", text.getvalue())


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


def _markdown(contents: Contents) -> str:
    facts, sections, failures = contents
    lines = ["# Benchmark", "", INTRODUCTION, "", facts, ""]
    for section in sections:
        for k, table in enumerate(section.tables):
            lines += _markdown_table(table, "" if k else section.introduction)
        for name, (_, caption) in section.pictures.items():
            lines += [f"![{caption}]({name}.svg)", "", caption, ""]
    if failures:
        lines += ["## Fits that failed", "", *[f"- {line}" for line in failures], ""]
    return "\n".join(lines)


def _markdown_table(table: Table, introduction: str = "") -> list[str]:
    names = [name.replace("|", r"\|") for name in table.head]
    lines = [f"## {table.title}", ""]
    lines += [introduction, ""] if introduction else []
    lines += [f"| method | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for k, (method, cells) in enumerate(table.body):
        shown = [f"**{c}**" if (k, j) in table.best else c for j, c in enumerate(cells)]
        name = method.replace("*", r"\*").replace("|", r"\|")
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return [*lines, ""]


def _html(contents: Contents) -> str:
    facts, sections, failures = contents
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Benchmark</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>Benchmark</h1><p>{INTRODUCTION}</p><p>{html.escape(facts)}</p>",
    ]
    for section in sections:
        for k, table in enumerate(section.tables):
            said = "" if k or not section.introduction else f"<p>{section.introduction}</p>"
            parts += _html_table(table, said)
        for svg, caption in section.pictures.values():
            drawing = svg[svg.index("<svg") :]
            parts.append(f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>")
    if failures:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in failures)
        parts.append(f"<h2>Fits that failed</h2><ul>{items}</ul>")
    return "\n".join([*parts, "</body></html>", ""])


def _html_table(table: Table, introduction: str = "") -> list[str]:
    names = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *table.head])
    parts = [f"<h2>{table.title}</h2>{introduction}<div class='scroll'><table>"]
    parts.append(f"<thead><tr>{names}</tr></thead><tbody>")
    for k, (method, cells) in enumerate(table.body):
        kind = "ours" if method == OURS else "oracle" if is_oracle(method) else ""
        shown = "".join(
            f'<td class="best">{c}</td>' if (k, j) in table.best else f"<td>{c}</td>"
            for j, c in enumerate(cells)
        )
        parts.append(f'<tr class="{kind}"><td>{html.escape(method)}</td>{shown}</tr>')
    return [*parts, "</tbody></table></div>"]
