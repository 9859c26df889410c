"""``flowalign predict``: a table of answers."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import warnings

from flowalign.atomic_file import written_whole
from flowalign.command.answers import Answers, answers_to_features, answers_to_files
from flowalign.command.files import check_can_be_written, listed
from flowalign.inputs import shown

FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets compute cells that begin like this
COLUMNS = ("path", "label", "probability", "score", "unknown")


def run(args: argparse.Namespace) -> None:
    """Write or print the answers for files or features."""
    if args.out is not None:
        check_can_be_written(args.out)
    if bool(args.inputs) == (args.features is not None):
        raise ValueError("Give files or folders, or else --features.")
    if args.features is not None:
        answers = answers_to_features(args.model_file, args.features)
    else:
        answers, _ = answers_to_files(args, lambda kind: listed(args.inputs, kind))
    _warn_of_formulas(answers)
    # The bytes of a file's name may be no valid text; the table has them unchanged.
    table = _table(answers).encode("utf-8", "surrogateescape")
    if args.out is None:
        sys.stdout.flush()
        sys.stdout.buffer.writelines(table.splitlines(keepends=True))  # a pipe may cut long writes
        return
    with written_whole(args.out) as file:
        file.write(table)
    refused = int(answers.unknown.sum())
    print(f"{len(answers.paths)} answers, {refused} unknown: {shown(args.out)}")


def _warn_of_formulas(answers: Answers) -> None:
    """Warn of names that a spreadsheet would compute. The table has the names unchanged."""
    risky = [text for text in (*answers.classes.tolist(), *answers.paths) if _is_formula(text)]
    if risky:
        warnings.warn(
            f"A spreadsheet may take {shown(risky[0])} for a formula; import the columns path and "
            "label as text.",
            UserWarning,
            stacklevel=2,
        )


def _is_formula(text: object) -> bool:
    return isinstance(text, str) and text.startswith(FORMULAS)


def _table(answers: Answers) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for path, label, probability, score, unknown in zip(
        answers.paths,
        answers.labels.tolist(),
        answers.certainty,
        answers.scores,
        answers.unknown,
        strict=True,
    ):
        said = "yes" if unknown else "no"
        rows.writerow([path, label, f"{probability:.6g}", f"{score:.6g}", said])
    return text.getvalue()
