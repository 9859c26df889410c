"""``flowalign fit``: from labelled files to a model file."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from typing import Any

import numpy as np

from flowalign.aligner import FlowMatchingAligner
from flowalign.command.files import check_can_be_written, kind_of, labelled, listed
from flowalign.encoders.clap import ClapEncoder
from flowalign.encoders.clip import OpenCLIPEncoder, usual_weights
from flowalign.held_out import HELD_OUT_CLASSES, LEAVE_ONE_OUT
from flowalign.inputs import shown
from flowalign.persistence import save

MAX_LISTED = 20  # classes


def run(args: argparse.Namespace) -> None:
    """Fit a model to the files of a folder."""
    check_can_be_written(args.out)
    kind = args.kind or kind_of(args.folder)
    data = labelled(args.folder, args.labels, kind)
    if len(data.class_names) < 2:
        raise ValueError(f"There is only one class, {data.y[0].item()!r}; give two or more.")
    more = [] if args.unlabeled is None else _others(listed([args.unlabeled], kind), data.X)
    aligner = FlowMatchingAligner(unknown_rate=args.unknown_rate, device=args.device or "auto")
    encoder = _encoder(args, kind)
    on_error = "skip" if args.skip_unreadable else "raise"
    encoded = encoder.encode(data.X, data.y, on_error=on_error)
    rows = encoder.encode(more, on_error=on_error).X if more else []
    lost = sorted({*data.y.tolist()} - {*encoded.y.tolist()})
    if lost:
        raise ValueError(f"No file of {lost[0]!r} could be read.")
    names = encoder.class_embeddings(data.class_names)
    aligner.fit(encoded.X, encoded.y, names, X_unlabeled=rows if more else None)
    save(aligner, args.out, encoder=encoder)
    print(f"Classes: {_counted(encoded.y)}")
    print(f"Labelled {kind}: {len(encoded.X)}" + (f", unlabelled: {len(rows)}" if more else ""))
    weights = "" if encoder.pretrained is None else f", {encoder.pretrained}"
    print(f"Encoder: {encoder.model_name}{weights}")
    print(_estimate(aligner, kind))
    print(f"Model: {shown(args.out)}")
    options = {"model_name": "--model", "pretrained": "--pretrained"}
    again = " ".join(f"{options[name]} {getattr(encoder, name)}" for name in encoder._places())
    if again:
        print(f"The model file does not say where the encoder is; always give {again} with it.")


def _others(paths: list[str], labelled_paths: Any) -> list[str]:
    """Leave out files that have a label, so that one folder may hold labelled and other files."""
    known = {os.path.realpath(path) for path in labelled_paths}
    others = [path for path in paths if os.path.realpath(path) not in known]
    if not others:
        raise ValueError("--unlabeled has no other files than those with labels; leave it out.")
    return others


def _encoder(args: argparse.Namespace, kind: str) -> OpenCLIPEncoder | ClapEncoder:
    """Make the encoder that the options name, and load it before any file is read."""
    encoder = OpenCLIPEncoder() if kind == "pictures" else ClapEncoder()
    untrained = args.pretrained == "none"
    given = {"model_name": args.model, "batch_size": args.batch_size, "device": args.device}
    encoder.set_params(**{name: value for name, value in given.items() if value is not None})
    pretrained = None if untrained else args.pretrained
    if kind == "pictures" and args.pretrained is None:
        pretrained = usual_weights(encoder.model_name)
    encoder.set_params(pretrained=pretrained, n_views=args.views, **work(args))
    encoder.fit()
    if untrained and not encoder._draws_weights():
        raise ValueError(
            f"--pretrained none: {encoder.model_name} brings its own weights. For an untrained "
            "model, give --model a folder that has its configuration and no weights."
        )
    warn_if_untrained(encoder)
    encoder._load()
    return encoder


def work(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of an encoder that change no feature."""
    shows = sys.stderr.isatty() if args.progress is None else args.progress
    given = {"batch_size": args.batch_size, "device": args.device}
    given = {name: value for name, value in given.items() if value is not None}
    return {"cache": args.cache, "verbose": int(shows)} | given


def warn_if_untrained(encoder: OpenCLIPEncoder | ClapEncoder) -> None:
    """Say on the error output that the answers of an untrained model mean nothing."""
    if encoder._draws_weights():
        print(
            f"WARNING: {encoder.model_name} is untrained. Its weights are random numbers, so the "
            "answers mean nothing; this is for tests.",
            file=sys.stderr,
        )


def _counted(labels: Any) -> str:
    counts = Counter(labels.tolist())
    shown_counts = [f"{label} ({counts[label]})" for label in sorted(counts)]
    rest = len(shown_counts) - MAX_LISTED
    more = f" and {rest} more" if rest > 0 else ""
    return f"{len(counts)}: {', '.join(shown_counts[:MAX_LISTED])}{more}"


def _estimate(aligner: FlowMatchingAligner, kind: str) -> str:
    """Return a line with the accuracy on held-out samples, and how far to trust it."""
    scores, source = aligner.stop_scores_, aligner.stop_source_
    if scores is None or source == HELD_OUT_CLASSES:
        return (
            f"Accuracy: cannot be estimated with one of the {kind} for each class; count it on "
            "other files with flowalign evaluate."
        )
    at = np.abs(scores["stop_time"] - aligner.stop_time_).argmin()
    without = "it" if source == LEAVE_ONE_OUT else "it and some others"
    return (
        f"Accuracy: about {scores['accuracy'][at]:.0%}, of labelled {kind}, each predicted without "
        f"{without}. Near-copies make it too high; count on other files with flowalign evaluate."
    )
