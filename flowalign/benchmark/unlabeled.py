"""Unlabelled rows: what methods gain from a pool of them, compared with a fit without the pool."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import has_fit_parameter

from flowalign.aligner import FlowMatchingAligner
from flowalign.benchmark.feature_sets import FeatureSet, all_drawn
from flowalign.benchmark.metrics import evaluate
from flowalign.benchmark.peers import ZeroShot
from flowalign.benchmark.pools import POOLS, SETTINGS, Case
from flowalign.benchmark.runner import all_classes, choices, identity, seeded, with_oracles
from flowalign.benchmark.store import Task, cells, collect
from flowalign.benchmark.summary import OURS
from flowalign.benchmark.unlabeled_peers import UNLABELED

if TYPE_CHECKING:
    from numpy.typing import NDArray

WITHOUT = f"{OURS}, without them"
"""The aligner, fitted to labelled rows alone."""
UNLABELED_METHODS: dict[str, BaseEstimator] = {
    OURS: FlowMatchingAligner(),
    WITHOUT: FlowMatchingAligner(),
    "zero-shot": ZeroShot(),
    **UNLABELED,
}


@dataclass(frozen=True)
class PoolFit(Task):
    """The fits of a method to the cases of one pool, and its answers for the judged rows."""

    pool: str
    estimator: BaseEstimator
    oracle: bool

    unit = "fit"

    @property
    def identity(self) -> list[Any]:
        """The pool, the estimator and its parameters."""
        return [self.pool, *identity(self.estimator), self.oracle]

    @property
    def fields(self) -> dict[str, Any]:
        """The pool, since each pool has a table."""
        return {"pool": self.pool}

    def measure(self, data: FeatureSet) -> dict[str, Any]:
        """Fit, predict and judge. Rows of several batches are judged together.

        Returns
        -------
        dict
            As from :meth:`flowalign.benchmark.runner.Fit.measure`. Seconds are means over fits, and
            `choices` are those of the last fit. `n_samples` leaves out samples of absent classes.
        """
        cases = POOLS[self.pool](data, self.n_shots, self.seed)
        found = [self._fit(data, case) for case in cases]
        proba, fit_seconds, predict_seconds, models = zip(*found, strict=True)
        return {
            "n_samples": len(self._support(data, cases[0])),
            **evaluate(np.concatenate(proba), np.concatenate([case.y for case in cases])),
            "fit_seconds": float(np.mean(fit_seconds)),
            "predict_seconds": float(np.mean(predict_seconds)),
            "choices": choices(models[-1]),
        }

    def _fit(
        self, data: FeatureSet, case: Case
    ) -> tuple[NDArray[Any], float, float, BaseEstimator]:
        """Return probabilities of the judged rows, seconds of fit and prediction, and the model."""
        rows, table = self._support(data, case), data.class_embeddings
        table = table.subset(np.setdiff1d(table.classes, case.absent))
        model = seeded(self.estimator, self.seed)
        extra = {"X_val": case.X, "y_val": case.y} if self.oracle else {}
        takes_them = self.method != WITHOUT and has_fit_parameter(model, "X_unlabeled")
        if takes_them:
            extra["X_unlabeled"] = case.unlabeled
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The unlabelled rows lie elsewhere", UserWarning)
            start = time.perf_counter()
            model.fit(data.X_train[rows], data.y_train[rows], table, **extra)
            fitted = time.perf_counter()
        if takes_them and case.rows is not None:
            proba = model.transduction_proba_[case.rows]
        else:
            proba = model.predict_proba(case.X)
        predicted = time.perf_counter()
        proba = all_classes(proba, model.classes_, len(case.y), data.class_embeddings.classes)
        return proba, fitted - start, predicted - fitted, model

    def _support(self, data: FeatureSet, case: Case) -> NDArray[np.intp]:
        rows = data.draw(self.n_shots, self.seed)
        return rows[~np.isin(data.y_train[rows], case.absent)]


def run_unlabeled(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Sequence[str] = tuple(SETTINGS),
    methods: dict[str, BaseEstimator] | None = None,
    shots: Sequence[int] = (1, 4, 16),
    n_seeds: int = 3,
    oracle: bool = False,
    n_jobs: int | None = -1,
    verbose: int = 1,
) -> list[dict[str, Any]]:
    """Give methods pools of unlabelled rows, and keep a row of each in ``out/rows.jsonl``.

    Parameters
    ----------
    paths, out, shots, n_seeds, oracle, n_jobs, verbose
        As for :func:`flowalign.benchmark.run`, which may use the same folder.
    settings : sequence of str
        Some of "semi-supervised", "transductive" and "realistic"; see
        :data:`flowalign.benchmark.pools.SETTINGS` for their pools.
    methods : dict of str to classifier or None
        Classifiers with ``fit(X, y, class_embeddings)``. If they learn from unlabelled rows,
        ``fit`` takes ``X_unlabeled``, and ``transduction_proba_`` has the answers for these. None
        takes :data:`UNLABELED_METHODS`.

    Returns
    -------
    list of dict
        The rows, as from :func:`flowalign.benchmark.run`, with ``pool``.

    Notes
    -----
    The semi-supervised setting leaves out sets whose samples are all drawn, and methods without an
    answer for new rows. If all draws have the same samples and the same pool, one draw is run.
    """
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ValueError(f"settings must be some of {', '.join(SETTINGS)}; got {unknown}.")
    tasks = _tasks(paths, settings, methods or UNLABELED_METHODS, shots, n_seeds, oracle)
    return collect(tasks, out, n_jobs=n_jobs, verbose=verbose)


def _tasks(
    paths: Sequence[str | os.PathLike[str]],
    settings: Sequence[str],
    methods: dict[str, BaseEstimator],
    shots: Sequence[int],
    n_seeds: int,
    oracle: bool,
) -> Iterator[Task]:
    for data, cell in cells(paths, shots, n_seeds):
        _, n_shots, seed, _ = cell
        for pool, cases in _pools(data, settings, n_shots, seed):
            for name, estimator, starred in with_oracles(methods, oracle):
                # A transductive method has no answer for rows that are not in the pool.
                if cases[0].rows is not None or getattr(estimator, "inductive", True):
                    yield PoolFit(*cell, name, pool, estimator, starred)


def _pools(
    data: FeatureSet, settings: Sequence[str], n_shots: int, seed: int
) -> Iterator[tuple[str, list[Case]]]:
    """Yield the pools of a draw, without those that an earlier draw had with the same samples."""
    earlier = range(seed) if all_drawn(data.y_train, n_shots) else ()
    for name in (name for setting in settings for name in SETTINGS[setting]):
        cases = POOLS[name](data, n_shots, seed)
        if cases and not any(_same(cases, POOLS[name](data, n_shots, k)) for k in earlier):
            yield name, cases


def _same(ones: list[Case], others: list[Case]) -> bool:
    """Whether two pools have the same unlabelled rows. Then the same rows are judged, too."""
    return len(ones) == len(others) and all(
        np.array_equal(one.unlabeled, other.unlabeled) and np.array_equal(one.absent, other.absent)
        for one, other in zip(ones, others, strict=True)
    )
