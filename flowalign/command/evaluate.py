"""``flowalign evaluate``: how often a model is right."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowalign.benchmark.metrics import evaluate
from flowalign.command.answers import Answers, answers_to_files
from flowalign.command.files import labelled
from flowalign.inputs import shorten, shown

MAX_CONFUSIONS = 10


def run(args: argparse.Namespace) -> None:
    """Print how often a model is right on labelled files."""
    truth: list[str] = []

    def paths_of(kind: str) -> list[str]:
        data = labelled(args.folder, args.labels, kind)
        truth.extend(data.y.tolist())
        return list(data.X)

    answers, kind = answers_to_files(args, paths_of)
    places = {str(label): place for place, label in enumerate(answers.classes.tolist())}
    strange = sorted({*truth} - {*places})
    if strange:
        raise ValueError(
            f"{shown(args.labels or args.folder)} has classes that the model was not fitted to: "
            f"{shorten(strange)}. It knows {shorten(places)}."
        )
    found = _summary(answers, np.array([places[truth[row]] for row in answers.rows]))
    print(json.dumps(found, indent=2) if args.json else _text(found, kind))


def _summary(answers: Answers, codes: NDArray[np.intp]) -> dict[str, Any]:
    """Compare answers with the true classes, (n,)."""
    measured = evaluate(answers.proba, codes)
    right = answers.codes == codes
    names = [str(label) for label in answers.classes.tolist()]
    of_class = [codes == c for c in range(len(names))]
    confused = Counter(zip(codes[~right].tolist(), answers.codes[~right].tolist(), strict=True))
    return {
        "files": len(codes),
        "accuracy": measured["accuracy"],
        "log_loss": measured["log_loss"],
        "ece": measured["ece"],
        "unknown": float(answers.unknown.mean()),
        "unknown_of_wrong": float(answers.unknown[~right].mean()) if not right.all() else None,
        "classes": [
            {
                "label": name,
                "files": int(mine.sum()),
                "accuracy": float(right[mine].mean()),
                "unknown": float(answers.unknown[mine].mean()),
            }
            for name, mine in zip(names, of_class, strict=True)
            if mine.any()
        ],
        "confusions": [
            {"label": names[true], "predicted": names[said], "files": n}
            for (true, said), n in confused.most_common(MAX_CONFUSIONS)
        ],
    }


def _text(found: dict[str, Any], kind: str) -> str:
    """Return the figures as lines of text."""
    lines = [
        f"Accuracy           {found['accuracy']:7.1%}   of {found['files']} {kind}",
        f"Log-loss           {found['log_loss']:7.3f}   of the probabilities; less is better",
        f"Calibration error  {found['ece']:7.1%}   between probabilities and accuracy",
        f"Unknown            {found['unknown']:7.1%}   look like no class",
    ]
    if found["unknown_of_wrong"] is not None:
        lines.append(f"  of wrong answers {found['unknown_of_wrong']:7.1%}")
    width = max(5, *(len(row["label"]) for row in found["classes"]))
    lines += ["", f"{'Class':{width}}  {kind:>8}  accuracy  unknown"]
    lines += [
        f"{row['label']:{width}}  {row['files']:8}  {row['accuracy']:8.1%}  {row['unknown']:7.1%}"
        for row in found["classes"]
    ]
    if found["confusions"]:
        lines += ["", "Most often confused"]
        lines += [
            f"{row['label']:{width}}  taken for {row['predicted']:{width}}  {row['files']:4}"
            for row in found["confusions"]
        ]
    return "\n".join(lines)
