"""Classes whose embeddings are equal: their samples tell them apart, their names cannot."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign.inputs import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-6  # of the largest entry of an embedding: what rounding leaves of equal texts


def equal_groups(E: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Group class embeddings, (C, e), that are equal but for rounding; no group of one.

    >>> [group.tolist() for group in equal_groups(np.array([[0.0, 1], [1, 0], [0, 1]]))]
    [[0, 2]]
    """
    # Equal rows are neighbours in the order of any projection.
    direction = np.random.default_rng(0).normal(size=E.shape[1])
    order = np.argsort(E @ direction, kind="stable")
    rows = E[order]
    apart = np.abs(np.diff(rows, axis=0)).max(axis=1)
    new = apart > TOLERANCE * np.maximum(np.abs(rows[1:]).max(axis=1), np.finfo(E.dtype).tiny)
    groups = np.split(order, np.flatnonzero(new) + 1)
    return [np.sort(group) for group in groups if len(group) > 1]


def shadowed_names(E: NDArray[Any] | None, counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Find classes without samples whose embedding is that of a class with samples: (C,).

    Nothing speaks for one of them that does not speak for its twin.
    """
    shadowed = np.zeros(len(counts), dtype=bool)
    for group in [] if E is None else equal_groups(E):
        if counts[group].any():
            shadowed[group[counts[group] == 0]] = True
    return shadowed


def warn_of_equal_names(
    classes: NDArray[Any], E: NDArray[Any] | None, counts: NDArray[Any]
) -> None:
    """Warn ``fit`` of classes with equal embeddings that nothing tells apart.

    At most one of them has samples, and it is the one that will be predicted.
    """
    alike = [
        classes[group].tolist()
        for group in ([] if E is None else equal_groups(E))
        if (counts[group] > 0).sum() < 2
    ]
    if alike:
        warnings.warn(
            f"class_embeddings are equal for {shorten(alike)}. Of such classes one at most has "
            "samples, so nothing tells them apart: only that one, or the first, is predicted. "
            "Describe them in other words, give samples of each, or make them one class.",
            UserWarning,
            stacklevel=5,  # whoever called fit
        )
