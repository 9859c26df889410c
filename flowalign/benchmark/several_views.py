"""Several views: one aligner for all views, each view alone, and all features side by side.

All are judged on the same test rows. A view alone has no answer for rows that lack the view. They
count as wrong, since a user with one encoder has no other answer. (If they were left out, each view
would be judged on other rows, and the columns could not be compared.)
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin

from flowalign.aligner import FlowMatchingAligner
from flowalign.benchmark.feature_sets import all_drawn
from flowalign.benchmark.metrics import evaluate
from flowalign.benchmark.runner import all_classes, choices
from flowalign.benchmark.store import Task, cells, collect
from flowalign.benchmark.summary import OURS
from flowalign.benchmark.view_sets import ViewSet, load_view_set
from flowalign.class_embeddings import ClassEmbeddings
from flowalign.multi_view import MultiViewAligner
from flowalign.sphere import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Parts = list[tuple[NDArray[Any], NDArray[Any]]]  # of views: support set and test

SIDE_BY_SIDE = "side by side"
ALONE = " alone"


@dataclass(frozen=True)
class Views(Task):
    """One fit to all views together, side by side, or to one view alone."""

    unit = "fit"

    @property
    def identity(self) -> list[Any]:
        """The methods have no parameters."""
        return []

    def load(self) -> ViewSet:
        """Read the set at `path`."""
        return load_view_set(self.path)

    def measure(self, data: ViewSet) -> dict[str, Any]:
        """Fit, predict and judge.

        Returns
        -------
        dict
            As from :meth:`flowalign.benchmark.runner.Fit.measure`. `choices` of several views are
            their weights. `n_samples` counts the samples that the method could learn from.
        """
        rows = data.draw(self.n_shots, self.seed)
        model, X, X_test = self._model(data, rows)
        train, test = (~np.isnan(part).all(axis=1) for part in (X, X_test))
        proba = np.full((len(X_test), data.n_classes), np.nan)
        start = time.perf_counter()
        model.fit(X[train], data.y_train[rows][train])
        fitted = time.perf_counter()
        if test.any():
            found = model.predict_proba(X_test[test])
            proba[test] = all_classes(found, model.classes_, test.sum(), np.arange(data.n_classes))
        predicted = time.perf_counter()
        return {
            "n_samples": int(train.sum()),
            **evaluate(proba, data.y_test),
            "fit_seconds": fitted - start,
            "predict_seconds": predicted - fitted,
            "choices": choices(model),
        }

    def _model(
        self, data: ViewSet, rows: NDArray[Any]
    ) -> tuple[ClassifierMixin, NDArray[Any], NDArray[Any]]:
        """Return a classifier, and its features for the support set, (n, d), and test, (m, d)."""
        if self.method in (OURS, SIDE_BY_SIDE):
            together = self._ours if self.method == OURS else self._side_by_side
            model, parts = together(data, rows)
            support, test = zip(*parts, strict=True)
            return model, np.hstack(support), np.hstack(test)
        view = data.views[self.method.removesuffix(ALONE)]
        return self._aligner(view.class_embeddings), view.X_train[rows], view.X_test

    def _ours(self, data: ViewSet, rows: NDArray[Any]) -> tuple[ClassifierMixin, Parts]:
        views, start = [], 0
        for name, view in data.views.items():
            columns = slice(start, start := start + view.X_train.shape[1])
            views.append((name, self._aligner(view.class_embeddings), columns))
        parts = [(view.X_train[rows], view.X_test) for view in data.views.values()]
        return MultiViewAligner(views), parts

    def _side_by_side(self, data: ViewSet, rows: NDArray[Any]) -> tuple[ClassifierMixin, Parts]:
        views = data.views.values()
        names = [unit_rows(view.class_embeddings.vectors, "class_embeddings") for view in views]
        table = ClassEmbeddings(np.arange(data.n_classes), np.hstack(names))
        parts = [(_unit_rows(view.X_train[rows]), _unit_rows(view.X_test)) for view in views]
        return self._aligner(table, joint=False), parts

    def _aligner(self, table: ClassEmbeddings, **params: Any) -> FlowMatchingAligner:
        return FlowMatchingAligner(table, random_state=self.seed, **params)


def _unit_rows(X: NDArray[Any]) -> NDArray[Any]:
    """Scale rows to length 1. Rows that lack the view become zero."""
    return np.nan_to_num(unit_rows(X, "X"), nan=0.0)


def run_several_views(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    shots: Sequence[int] = (1, 4, 16),
    n_seeds: int = 3,
    n_jobs: int | None = -1,
    verbose: int = 1,
) -> list[dict[str, Any]]:
    """Fit all views together, each alone and all side by side; keep a row of each fit.

    Parameters
    ----------
    paths : sequence of path
        Feature sets of several views, see :func:`load_view_set`.
    out, shots, n_seeds, n_jobs, verbose
        As for :func:`flowalign.benchmark.run`, which may use the same folder.

    Returns
    -------
    list of dict
        The rows, as from :func:`flowalign.benchmark.run`. ``method`` is "flowalign" for
        :class:`MultiViewAligner`, "side by side" or "<view> alone".
    """
    tasks = _tasks(paths, shots, n_seeds)
    return collect(tasks, out, n_jobs=n_jobs, verbose=verbose)


def _tasks(
    paths: Sequence[str | os.PathLike[str]], shots: Sequence[int], n_seeds: int
) -> Iterator[Task]:
    for data, cell in cells(paths, shots, n_seeds, load_view_set):
        _, n_shots, seed, _ = cell
        if not (seed and all_drawn(data.y_train, n_shots)):
            for method in (OURS, SIDE_BY_SIDE, *(view + ALONE for view in data.views)):
                yield Views(*cell, method)
