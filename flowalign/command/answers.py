"""Answers of a model to files or features, as predict, report and evaluate need them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowalign.aligner import FlowMatchingAligner
from flowalign.atomic_file import check_is_file
from flowalign.command.fit import warn_if_untrained, work
from flowalign.encoders.clip import OpenCLIPEncoder
from flowalign.inputs import shown
from flowalign.persistence import load, load_encoder


@dataclass(frozen=True)
class Answers:
    """Answers to n files, in the order of the files.

    Attributes
    ----------
    paths : list of str
    proba : ndarray of shape (n, C)
        Columns follow `classes`.
    scores : ndarray of shape (n,)
        High for files of known classes.
    threshold : float
        Files with a lower score look like no class.
    classes : ndarray of shape (C,)
    rows : ndarray of shape (n,)
        The positions of these files among all files that were given. The others could not be read.
    """

    paths: list[str]
    proba: NDArray[Any]
    scores: NDArray[Any]
    threshold: float
    classes: NDArray[Any]
    rows: NDArray[np.intp]

    @property
    def codes(self) -> NDArray[np.intp]:
        """The best class of each file, as an integer, (n,)."""
        return self.proba.argmax(axis=1)

    @property
    def labels(self) -> NDArray[Any]:
        """The label of the best class of each file, (n,)."""
        return self.classes[self.codes]

    @property
    def certainty(self) -> NDArray[Any]:
        """The probability of the best class of each file, (n,)."""
        return self.proba.max(axis=1)

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """Whether each file looks like no class, (n,)."""
        return self.scores < self.threshold


def model_in(path: Path) -> FlowMatchingAligner:
    """Load a model of one view."""
    aligner = load(path)
    if not isinstance(aligner, FlowMatchingAligner):
        raise ValueError(f"{shown(path)} has several views, which are files of several kinds.")
    return aligner


def answers_to_files(
    args: argparse.Namespace, paths_of: Callable[[str], Sequence[str]]
) -> tuple[Answers, str]:
    """Encode files; return the answers, and whether the files are pictures or sounds.

    The encoder of the model tells the kind, and `paths_of` lists the files of that kind.
    """
    aligner = model_in(args.model_file)
    encoder = load_encoder(
        args.model_file, model_name=args.model, pretrained=args.pretrained, **work(args)
    )
    warn_if_untrained(encoder)
    kind = "pictures" if isinstance(encoder, OpenCLIPEncoder) else "sounds"
    paths = paths_of(kind)
    encoded = encoder.encode(paths, on_error="skip" if args.skip_unreadable else "raise")
    names = [paths[row] for row in encoded.rows]
    return _answers(aligner, encoded.X, names, encoded.rows), kind


def answers_to_features(model_file: Path, features: Path) -> Answers:
    """Answer for rows of features. Rows without paths are named by their number, from 0."""
    aligner = model_in(model_file)
    check_is_file(features)
    paths: Any = None
    try:
        X = np.load(features, mmap_mode="r", allow_pickle=False)
        if not isinstance(X, np.ndarray):
            with X as parts:
                paths = parts["paths"] if "paths" in parts.files else None
                X = parts["X"]
    except (KeyError, ValueError, EOFError) as error:
        raise ValueError(
            f"{shown(features)} is no .npy file with an array, and no .npz file with X: {error}"
        ) from error
    names = [str(path) for path in (range(len(X)) if paths is None else paths)]
    if len(names) != len(X):
        raise ValueError(f"{shown(features)} has {len(X)} rows and {len(names)} paths.")
    return _answers(aligner, X, names, np.arange(len(names)))


def _answers(
    aligner: FlowMatchingAligner, X: Any, names: list[str], rows: NDArray[np.intp]
) -> Answers:
    return Answers(
        names,
        aligner.predict_proba(X),
        aligner.score_samples(X),
        aligner.unknown_threshold_,
        aligner.classes_,
        rows,
    )
