"""``flowalign report``: one page of answers, with pictures or players, to look through."""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from flowalign.atomic_file import written_whole
from flowalign.command.answers import Answers, answers_to_files
from flowalign.command.files import check_can_be_written, listed
from flowalign.command.page import page
from flowalign.inputs import shown
from flowalign.parameters import integer

LIMITS = {"pictures": 1000, "sounds": 100}  # files on a page; a sound takes up to 0.5 MB
N_NEXT = 12  # files in the section "Label next"
SURE = 0.9  # probability; the label of a more certain file would tell little


def run(args: argparse.Namespace) -> None:
    """Write the page."""
    check_can_be_written(args.out)
    if args.limit is not None:
        integer("--limit", args.limit, low=1)
    answers, kind = answers_to_files(args, lambda kind: listed(args.inputs, kind))
    limit = LIMITS[kind] if args.limit is None else args.limit
    kept = to_show(answers, limit)
    text = page(answers, kind, kept, label_next(answers), args.model_file.name)
    with written_whole(args.out) as file:
        file.write(text.encode())
    print(f"{len(kept)} of {len(answers.paths)} {kind} in {shown(args.out)}")


def to_show(answers: Answers, limit: int) -> NDArray[np.intp]:
    """Return the rows of files to show: first unknown files, then the least certain ones, (m,)."""
    order = np.lexsort((answers.certainty, ~answers.unknown))
    return order[:limit]


def label_next(answers: Answers, n: int = N_NEXT) -> NDArray[np.intp]:
    """Return the rows of the files, at most n, whose labels would help most.

    These files look like some class, but their best two classes are nearly as probable as each
    other. They are taken from each predicted class in turn, so that not all are of one class.
    """
    known = np.flatnonzero(~answers.unknown & (answers.certainty < SURE))
    best = np.sort(answers.proba[known], axis=1)
    margins, codes = best[:, -1] - best[:, -2], answers.codes[known]
    order = np.argsort(margins, kind="stable")
    turn = np.empty(len(known), dtype=np.intp)
    for code in np.unique(codes):
        mine = order[codes[order] == code]
        turn[mine] = np.arange(len(mine))
    return known[np.lexsort((margins, turn))][:n]
