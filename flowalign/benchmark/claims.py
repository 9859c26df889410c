"""The claims of the paper on Flow Matching Alignment, checked on feature sets.

``python -m flowalign.benchmark.claims --out claims.rst`` takes sets that need no download (emoji,
digits, synthetic sets of three difficulties). ``--features FOLDER`` takes your own.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from flowalign.benchmark.feature_sets import load_feature_set
from flowalign.benchmark.measurements import SHOTS, measure_all, shipped
from flowalign.benchmark.summary import interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

EASY = 0.9  # zero-shot accuracy


@dataclass(frozen=True)
class Claim:
    """Two measured variants, and the claim that the first is better.

    Attributes
    ----------
    text : str
        The claim.
    better, worse : str
        The keys of their accuracies in :func:`~flowalign.benchmark.measurements.measure`.
    easy_only : bool
        Whether the claim is about sets on which zero-shot classification is right nine times in
        ten.
    margin : float
        Points by which the first may be worse, if the claim is that it is no worse.
    """

    text: str
    better: str
    worse: str
    easy_only: bool = False
    margin: float = 0.0


CLAIMS = {
    "Noise on the path helps across data sizes": [
        Claim("network", "network", "network, no noise"),
        Claim("closed form", "closed form", "closed form, no noise"),
    ],
    "Many steps are better than one that goes as far": [
        Claim("network", "network", "network, one step"),
        Claim("closed form", "closed form", "closed form, one step"),
    ],
    "The coupling must follow the class label": [
        Claim("network, against random pairs", "network, own pairs", "network, random pairs"),
        Claim(
            "network, against optimal transport", "network, own pairs", "network, transport pairs"
        ),
    ],
    "Stopping early is better than the whole flow": [
        Claim("network", "network", "network, whole flow"),
        Claim("closed form", "closed form", "closed form, whole flow"),
    ],
    "On easy sets a fixed stop falls below zero-shot": [
        Claim("network", "zero-shot", "network", easy_only=True),
        Claim("closed form", "zero-shot", "closed form", easy_only=True),
    ],
    'On easy sets n_steps="auto" is no worse than zero-shot by half a point': [
        Claim("network", "network, auto", "zero-shot", easy_only=True, margin=0.5),
        Claim("closed form", "closed form, auto", "zero-shot", easy_only=True, margin=0.5),
    ],
    "Features from an adapted encoder gain as plain ones do": [
        Claim("plain features over zero-shot", "closed form, auto", "zero-shot"),
        Claim("adapted features over their zero-shot", "adapted, auto", "adapted, zero-shot"),
    ],
}


def page(cells: dict[tuple[str, int], dict[str, NDArray[Any]]]) -> str:
    """Write the page, as reStructuredText."""
    sets = list(dict.fromkeys(name for name, _ in cells))
    n_draws = max(len(values["zero-shot"]) for values in cells.values())
    parts = [
        _heading("The paper's claims", "="),
        f"Made by ``python -m flowalign.benchmark.claims`` on {len(sets)} feature sets "
        f"({'; '.join(sets)}), {n_draws} draws where there are samples left to draw. Figures are "
        "points of test accuracy by which one variant is above another, mean over draws and sets, "
        "with Student's 95 % interval over sets, each averaged over its numbers of shots. Stops "
        "are fixed half way unless a name says otherwise, so that nothing is chosen on test. What "
        "is said of the flow is read from it alone: a state has the class of the most similar "
        'class embedding. Gains, ``n_steps="auto"`` and adapted features are what the aligner '
        "predicts. "
        "*Confirmed* and *contradicted* need an interval that excludes zero, and so four sets.",
    ]
    parts += [_difficulty(cells)]
    for title, claims in CLAIMS.items():
        rows = [_row(claim, cells) for claim in claims]
        head = ["", *(f"{k} shot{'s' if k > 1 else ''}" for k in SHOTS), "all", "verdict"]
        parts += [_heading(title, "-"), _table([head, *rows])]
    return "\n\n".join(parts) + "\n"


def _row(claim: Claim, cells: dict[tuple[str, int], dict[str, NDArray[Any]]]) -> list[str]:
    gaps = {
        cell: 100 * float(np.mean(seen[claim.better] - seen[claim.worse]))
        for cell, seen in cells.items()
        if not claim.easy_only or seen["zero-shot"].mean() >= EASY
    }
    sets = list(dict.fromkeys(name for name, _ in gaps))  # a set's order changes from run to run
    if not sets:
        return [claim.text, *[""] * len(SHOTS), "", "no such sets"]
    by_shots = [[gap for (_, k), gap in gaps.items() if k == n_shots] for n_shots in SHOTS]
    shown = [_signed(np.mean(found)) if found else "" for found in by_shots]
    mean, low, high = interval(
        [
            float(np.mean([gap for (other, _), gap in gaps.items() if other == name]))
            for name in sets
        ]
    )
    spread = f" [{_signed(low)}, {_signed(high)}]" if np.isfinite(low) else ""
    return [
        claim.text,
        *shown,
        _signed(mean) + spread,
        verdict(low + claim.margin, high + claim.margin),
    ]


def verdict(low: float, high: float) -> str:
    """Return the verdict that an interval allows."""
    if np.isnan(low):
        return "too few sets"
    if low <= 0 <= high:
        return "not decided"
    return "confirmed" if low > 0 else "contradicted"


def _signed(points: Any) -> str:
    return f"{round(float(points), 1) + 0.0:+.1f}"  # no -0.0


def _difficulty(cells: dict[tuple[str, int], dict[str, NDArray[Any]]]) -> str:
    rows = [["set", "shots", "zero-shot", "closed form gains", "network gains"]]
    points = defaultdict(list)
    for (name, n_shots), seen in cells.items():
        base = seen["zero-shot"].mean()
        gains = [seen[f"{field}, auto"].mean() - base for field in ("closed form", "network")]
        rows.append([name, str(n_shots), f"{100 * base:.1f}", *(_signed(100 * g) for g in gains)])
        points[n_shots].append((base, gains[0]))
    found = [
        f"{spearmanr(*np.transpose(pairs)).statistic:+.2f} at {n_shots}"
        for n_shots, pairs in points.items()
        if len(pairs) > 2 and np.ptp(pairs, axis=0).all()
    ]
    said = (
        "Where class names live in another space than the features, zero-shot means their mapped "
        "embeddings, which have seen the support set. Rank correlation over sets of zero-shot "
        f"accuracy and the gain of the closed form, by shots: {', '.join(found) or 'too few sets'}."
        " The claim asks for negative ones; a handful of sets can hardly confirm it."
    )
    return "\n\n".join([_heading("Gains are largest on difficult sets", "-"), said, _table(rows)])


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def _table(rows: list[list[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for k, cell in enumerate(row):
            lines.append(f"   {'* -' if k == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m flowalign.benchmark.claims",
        description="Check the paper's claims on feature sets, by default on those that ship.",
    )
    parser.add_argument("--out", type=Path, required=True, help="the page, an .rst file")
    parser.add_argument("--features", type=Path, help="folder of .npz feature sets")
    parser.add_argument("--seeds", type=int, default=3, help="number of draws")
    parser.add_argument("--jobs", type=int, default=-1, help="draws at once")
    args = parser.parse_args(arguments)
    sets = shipped()
    if args.features:
        sets = [load_feature_set(path) for path in sorted(args.features.glob("*.npz"))]
        if not sets:
            parser.error(f"--features: no .npz file at {args.features}")
    args.out.write_text(page(measure_all(sets, n_seeds=args.seeds, n_jobs=args.jobs)), "utf-8")


if __name__ == "__main__":
    main()
