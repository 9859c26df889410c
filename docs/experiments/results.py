"""Runs the benchmark in all settings, and writes the tables of the documentation and of README.

    python docs/experiments/results.py FOLDER --out REPORTS [--settings inductive ...]
        [--shots 1 4 16] [--seeds 3] [--jobs 2]

FOLDER has a folder for each group of feature sets, such as ``eight_sets``, whose name is its title.
REPORTS has a report of each group and one of all, with intervals and the results on each set. It
keeps a row for each fit, so that a run which was interrupted goes on. Written are
``docs/results/<setting>.rst``, which pages of the documentation include, and a short table in
``docs/results/summary.rst`` and in README, between its two marks. Each says at which commit it was
made; commit before a run.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

import numpy as np

from flowalign.benchmark import (
    run,
    run_open_set,
    run_several_views,
    run_unlabeled,
    write_report,
)
from flowalign.benchmark.open_set import by_score
from flowalign.benchmark.pools import SETTINGS
from flowalign.benchmark.summary import OURS, Summary, summarise, wins
from flowalign.benchmark.view_sets import has_views

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"
MARKS = "<!-- results -->\n", "<!-- end of results -->\n"
COLUMNS = (
    "Below a number of samples a class stands the mean accuracy over sets, in percent; w/t/l "
    f"are sets on which {OURS} is better, level within half a point, and worse. Log-loss, ECE and "
    "seconds of a fit are those with the most samples."
)
NOT_POOLED = ("inductive", "open-set", "several-views")
EVERY = ("inductive", *SETTINGS, "open-set", "several-views")


def measured(setting: str, paths: list[Path], args: argparse.Namespace) -> list[dict]:
    """Rows of a setting, of feature sets that it is for."""
    paths = [path for path in paths if has_views(path) == (setting == "several-views")]
    if not paths:
        return []
    given = {"shots": args.shots, "n_seeds": args.seeds, "n_jobs": args.jobs}
    if setting in SETTINGS:
        return run_unlabeled(paths, args.out, settings=[setting], **given)
    runs = {"inductive": run, "open-set": run_open_set, "several-views": run_several_views}
    return runs[setting](paths, args.out, **given)


def percent(value: float) -> str:
    return f"{100 * value:.1f}" if np.isfinite(value) else "-"


def accuracy_table(rows: list[dict]) -> Iterator[list[str]]:
    """Yield head and rows: mean accuracy, wins, ties and losses of ours, seconds at most shots."""
    found = summarise(rows)
    head = ["method"]
    for summary in found:
        head += [f"{summary.n_shots}", "w/t/l"]
    yield [*head, "log-loss", "ECE", "seconds"]
    for method in dict.fromkeys(name for summary in found for name in summary.methods):
        cells = []
        for summary in found:
            cells += compared(summary, method)
        last = found[-1]
        of_last = [np.nan] * 3
        if method in last.methods:
            k = last.methods.index(method)
            of_last = [last.means[name][k] for name in ("log_loss", "ece", "fit_seconds")]
        yield [method, *cells, f"{of_last[0]:.2f}", f"{of_last[1]:.3f}", f"{of_last[2]:.2g}"]


def compared(summary: Summary, method: str) -> list[str]:
    if method not in summary.methods:
        return ["-", ""]
    mean = percent(summary.mean()[summary.methods.index(method)])
    return [mean, "" if method == OURS else "/".join(map(str, wins(summary, method)))]


def open_set_table(rows: list[dict]) -> Iterator[list[str]]:
    """Yield head and rows: areas under the ROC curve and false positives."""
    scores = list(by_score(rows))
    areas, false, refused = (summarise(scores, name, ()) for name in ("auroc", "fpr95", "refused"))
    shots = [str(summary.n_shots) for summary in areas]
    yield ["score", *[f"AUROC {n}" for n in shots], *[f"FPR {n}" for n in shots]]
    for k, name in enumerate(areas[0].methods):
        yield [name, *(percent(summary.mean()[k]) for summary in [*areas, *false])]
    nothing = [""] * len(shots)
    yield ["known rows refused", *(percent(summary.mean()[0]) for summary in refused), *nothing]


def table(rows: Iterable[list[str]], title: str) -> list[str]:
    """Lines of a table; our name is bold."""
    head, *body = rows
    lines = [f".. csv-table:: {title}", f"   :header: {', '.join(map(quoted, head))}", ""]
    for name, *cells in body:
        shown = f"**{name}**" if name == OURS else name
        lines.append(f"   {', '.join(map(quoted, [shown, *cells]))}")
    return [*lines, ""]


def quoted(cell: str) -> str:
    return f'"{cell}"'


def tables(setting: str, title: str, rows: list[dict]) -> list[str]:
    """All tables of a setting and a group."""
    if setting == "open-set":
        return table(open_set_table(rows), title)
    parts = {title: rows}
    if setting in SETTINGS:
        parts = {f"{title}, {p}": [r for r in rows if r["pool"] == p] for p in SETTINGS[setting]}
    if setting == "several-views":
        parts = {
            name: [r for r in rows if r["set"] == name] for name in sorted({r["set"] for r in rows})
        }
    return [line for t, part in parts.items() if part for line in table(accuracy_table(part), t)]


def state() -> str:
    """Say which commit this is, and whether something was changed since."""
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short=10", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    changed = subprocess.run(
        ["git", "-C", ROOT, "status", "--porcelain", "flowalign"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    return f"commit {commit}{', changed since' if changed else ''}, {date.today().isoformat()}"


def means(groups: dict[str, list[dict]]) -> list[list[str]]:
    """Head and rows of the short table: mean accuracy of each method, ours first, by group."""
    found = {title: summarise(rows) for title, rows in groups.items()}
    names = list(dict.fromkeys(row["method"] for rows in groups.values() for row in rows))
    cells = [(title, summary) for title, every in found.items() for summary in every]
    values = {
        name: [summary.mean()[summary.methods.index(name)] for _, summary in cells]
        for name in names
    }
    names.sort(key=lambda name: (name != OURS, -np.nan_to_num(np.mean(values[name]))))
    head = [f"{title.replace('_', ' ')}, {summary.n_shots}" for title, summary in cells]
    return [["method", *head], *([name, *map(percent, values[name])] for name in names)]


def write_summary(groups: dict[str, list[dict]]) -> None:
    """Put the short table between the marks of README, and beside the others."""
    head, *body = means(groups)
    lines = table([head, *body], "Mean accuracy in percent, by samples a class")
    (RESULTS / "summary.rst").write_text("\n".join([*lines, f"*{state().capitalize()}.*"]) + "\n")
    rows = [[f"**{cell}**" for cell in row] if row[0] == OURS else row for row in body]
    rule = ["---", *["---:"] * (len(head) - 1)]
    text = "".join(f"| {' | '.join(row)} |\n" for row in [["", *head[1:]], rule, *rows])
    before, rest = README.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    README.write_text(f"{before}{MARKS[0]}{text}\n({state()})\n{MARKS[1]}{after}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--settings", nargs="+", choices=EVERY, default=EVERY)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=-1)
    args = parser.parse_args(arguments)
    folders = sorted({path.parent for path in args.folder.glob("*/*.npz")})
    if not folders:
        parser.error(f"{args.folder} has no folder with .npz files")
    if "inductive" in args.settings and not all(mark in README.read_text() for mark in MARKS):
        parser.error(f"{README} lacks a line {' or '.join(mark.strip() for mark in MARKS)}")
    found: dict[str, dict[str, list[dict]]] = {"all": {}}
    for setting in args.settings:
        groups = {
            folder.name: rows
            for folder in folders
            if (rows := measured(setting, sorted(folder.glob("*.npz")), args))
        }
        if groups:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{setting}.rst").write_text("\n".join(page(setting, groups)) + "\n")
        if groups and setting == "inductive":
            write_summary(groups)
        for name, rows in groups.items():
            found.setdefault(name, {})[setting] = rows
            found["all"].setdefault(setting, []).extend(rows)
    for name, by_setting in found.items():
        if not by_setting:
            continue
        rows, open_set, views = (by_setting.get(setting, []) for setting in NOT_POOLED)
        unlabeled = [row for setting in SETTINGS for row in by_setting.get(setting, [])]
        write_report(rows, args.out / name, open_set, views, unlabeled)


def page(setting: str, groups: dict[str, list[dict]]) -> list[str]:
    """Lines of the tables of a setting: of all sets together, then of each group."""
    rows = [row for group in groups.values() for row in group]
    for row in (row for row in rows if "error" in row):
        print(f"{setting}: {row['method']} on {row['set']}: {row['error']}")
    lines = []
    if len(groups) > 1:
        lines += tables(setting, f"All {len({row['set'] for row in rows})} sets", rows)
    for name, group in groups.items():
        lines += tables(setting, name.replace("_", " ").capitalize(), group)
    seconds = sum(row.get("fit_seconds", 0) + row.get("predict_seconds", 0) for row in rows)
    spent = f", {seconds / 60:.0f} minutes of fits and predictions" if seconds else ""
    lines += [] if setting == "open-set" else [COLUMNS, ""]
    return [*lines, f"*{len(rows)} fits{spent}; {state()}.*"]


if __name__ == "__main__":
    main()
