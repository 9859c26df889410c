"""Pools of unlabelled rows: which rows each setting gives without labels, and which it judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flowalign.benchmark.feature_sets import FeatureSet
from flowalign.benchmark.open_set import held_out_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 256
MOST_BATCHES = 4


@dataclass(frozen=True)
class Case:
    """The unlabelled rows of one fit, and the rows on which the fit is judged.

    Attributes
    ----------
    unlabeled : ndarray of shape (m, d)
        Features without labels.
    X, y : ndarray of shape (k, d) and (k,)
        Rows that are judged, and their codes.
    rows : ndarray of shape (k,) or None
        The positions of the judged rows in `unlabeled`; None if they are not in it.
    absent : ndarray
        Codes of classes that are left out of class embeddings and support set; mostly none.
    """

    unlabeled: NDArray[np.float32]
    X: NDArray[np.float32]
    y: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None
    absent: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def undrawn(data: FeatureSet, n_shots: int, seed: int) -> list[Case]:
    """Take the training rows that are no support samples; test rows are judged, as new rows."""
    rows = np.setdiff1d(np.arange(len(data.y_train)), data.draw(n_shots, seed))
    if not len(rows):
        return []
    return [Case(data.X_train[rows], data.X_test, data.y_test)]


def all_test_rows(data: FeatureSet, n_shots: int, seed: int) -> list[Case]:
    """Take all test rows at once."""
    return [_among_test_rows(data, np.arange(len(data.y_test)))]


def batches(data: FeatureSet, n_shots: int, seed: int) -> list[Case]:
    """Take up to four random batches of 256 test rows, each for its own fit; all rows if fewer."""
    order = np.random.default_rng(seed).permutation(len(data.y_test))
    n = min(max(1, len(order) // BATCH), MOST_BATCHES)
    return [_among_test_rows(data, order[k * BATCH : (k + 1) * BATCH]) for k in range(n)]


def imbalanced(data: FeatureSet, n_shots: int, seed: int) -> list[Case]:
    """Take a third of the test rows, with class shares from a Dirichlet distribution.

    Its concentration is uniform between .3 and 1. If a class has fewer rows than its share, all of
    its rows are taken.
    """
    rng = np.random.default_rng(seed)
    n_classes = len(data.class_embeddings.classes)
    share = rng.dirichlet(np.full(n_classes, rng.uniform(0.3, 1)))
    weight = share[data.y_test] / np.bincount(data.y_test, minlength=n_classes)[data.y_test]
    weight /= weight.sum()
    rows = rng.choice(len(weight), max(1, len(weight) // 3), replace=False, p=weight)
    return [_among_test_rows(data, rows)]


def few_classes(data: FeatureSet, n_shots: int, seed: int) -> list[Case]:
    """Take the test rows of a random third of the classes, of at least two."""
    present = np.random.default_rng(seed).permutation(np.unique(data.y_test))
    rows = np.flatnonzero(np.isin(data.y_test, present[: max(len(present) // 3, 2)]))
    return [_among_test_rows(data, rows)]


def foreign(data: FeatureSet, n_shots: int, seed: int) -> list[Case]:
    """Take all test rows, with half of the classes unknown to the method; judge known classes.

    There is nothing to judge if fewer than two classes are known, or if these have no test rows.
    """
    n_classes = len(data.class_embeddings.classes)
    absent = held_out_classes(n_classes, seed)
    known = np.flatnonzero(~np.isin(data.y_test, absent))
    if n_classes - len(absent) < 2 or not len(known):
        return []
    return [Case(data.X_test, data.X_test[known], data.y_test[known], known, absent)]


def _among_test_rows(data: FeatureSet, rows: NDArray[np.int64]) -> Case:
    X, y = data.X_test[rows], data.y_test[rows]
    return Case(X, X, y, np.arange(len(y)))


Pool = Callable[[FeatureSet, int, int], list[Case]]
SETTINGS: dict[str, dict[str, Pool]] = {
    "semi-supervised": {"undrawn training rows": undrawn},
    "transductive": {"all test rows": all_test_rows, "test rows in batches": batches},
    "realistic": {
        "imbalanced": imbalanced,
        "a third of the classes": few_classes,
        "half of the classes foreign": foreign,
    },
}
"""The pools of each setting with unlabelled rows, by their names in the report."""
POOLS: dict[str, Pool] = {name: pool for pools in SETTINGS.values() for name, pool in pools.items()}
