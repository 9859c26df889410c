"""Runs methods on feature sets, with one row of results for each fit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator, clone

from flowalign.aligner import FlowMatchingAligner
from flowalign.benchmark.adapters import CLIPAdapter, LPPlusPlus, TaskRes, TipAdapterF
from flowalign.benchmark.convex_peers import CrossModalProbe, ProKeR
from flowalign.benchmark.feature_sets import FeatureSet, all_drawn
from flowalign.benchmark.metrics import evaluate
from flowalign.benchmark.peer import Peer
from flowalign.benchmark.peers import GDA, LinearProbe, NearestClassMean, TipAdapter, ZeroShot
from flowalign.benchmark.store import Task, cells, collect
from flowalign.benchmark.tabular import TabICL
from flowalign.multi_view import MultiViewAligner

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS: dict[str, BaseEstimator] = {
    "flowalign": FlowMatchingAligner(),
    "flowalign, network": FlowMatchingAligner(velocity_field="mlp"),
    "zero-shot": ZeroShot(),
    "class means": NearestClassMean(),
    "logistic regression": LinearProbe(),
    "cross-modal probe": CrossModalProbe(),
    "GDA-CLIP": GDA(),
    "ProKeR": ProKeR(),
    "Tip-Adapter": TipAdapter(),
    "Tip-Adapter-F": TipAdapterF(),
    "CLIP-Adapter": CLIPAdapter(),
    "LP++": LPPlusPlus(),
    "TaskRes": TaskRes(),
}

# Not run unless named: they need an optional dependency and download weights.
EXTRA_METHODS: dict[str, BaseEstimator] = {"TabICL": TabICL()}


@dataclass(frozen=True)
class Fit(Task):
    """One fit of a method, and its predictions for the test data."""

    estimator: BaseEstimator
    oracle: bool

    unit = "fit"

    @property
    def identity(self) -> list[Any]:
        """The estimator and its parameters."""
        return [*identity(self.estimator), self.oracle]

    def measure(self, data: FeatureSet) -> dict[str, Any]:
        """Fit, predict and judge."""
        rows = data.draw(self.n_shots, self.seed)
        model = seeded(self.estimator, self.seed)
        extra = {"X_val": data.X_test, "y_val": data.y_test} if self.oracle else {}
        start = time.perf_counter()
        model.fit(data.X_train[rows], data.y_train[rows], data.class_embeddings, **extra)
        fitted = time.perf_counter()
        proba = model.predict_proba(data.X_test)
        predicted = time.perf_counter()
        classes = data.class_embeddings.classes
        proba = all_classes(proba, model.classes_, len(data.X_test), classes)
        return {
            "n_samples": len(rows),
            **evaluate(proba, data.y_test),
            "fit_seconds": fitted - start,
            "predict_seconds": predicted - fitted,
            "choices": choices(model),
        }


def run(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    methods: dict[str, BaseEstimator] | None = None,
    shots: Sequence[int] = (1, 4, 16),
    n_seeds: int = 3,
    oracle: bool = False,
    n_jobs: int | None = -1,
    verbose: int = 1,
) -> list[dict[str, Any]]:
    """Fit all methods to all draws, and keep a row of each fit in ``out/rows.jsonl``.

    Parameters
    ----------
    paths : sequence of path
        Feature sets of one view, see :func:`load_feature_set`.
    out : path
        A folder. Fits whose rows it already has are not run again. So an interrupted run goes on,
        and a run with more shots or methods adds rows. Delete a row with an error to run its fit
        again.
    methods : dict of str to classifier or None
        Classifiers with ``fit(X, y, class_embeddings)`` and ``predict_proba``; None takes
        :data:`METHODS`.
    shots : sequence of int
        Samples a class. Of smaller classes, all samples are taken.
    n_seeds : int
        Number of draws, with seeds 0 to ``n_seeds - 1``. If a draw takes all samples, there is only
        one.
    oracle : bool
        Whether peers with settings to choose are also fitted with settings chosen on *test* data.
        Such rows have an asterisk, ``"GDA-CLIP*"``. They bound what the peer could reach, and are
        no results.
    n_jobs : int or None
        Number of processes, as for joblib. Its backend can be set around this call.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    list of dict
        The rows: ``set``, ``n_shots``, ``seed``, ``method``, ``n_samples``, the results of
        :func:`~flowalign.benchmark.metrics.evaluate`, ``fit_seconds``, ``predict_seconds`` and
        ``choices``, or ``error`` if the fit failed.

    Notes
    -----
    If the system kills a process, mostly for want of memory, joblib ends the run with a
    ``TerminatedWorkerError``. The rows until then are kept; take fewer processes. On a cluster,
    ``joblib.parallel_config(backend="dask")``, workers read `paths` themselves. If a worker dies,
    another one runs its fits.
    """
    tasks = _tasks(paths, methods or METHODS, shots, n_seeds, oracle)
    return collect(tasks, out, n_jobs=n_jobs, verbose=verbose)


def _tasks(
    paths: Sequence[str | os.PathLike[str]],
    methods: dict[str, BaseEstimator],
    shots: Sequence[int],
    n_seeds: int,
    oracle: bool,
) -> Iterable[Task]:
    for data, cell in cells(paths, shots, n_seeds):
        _, n_shots, seed, _ = cell
        if seed and all_drawn(data.y_train, n_shots):
            continue
        for name, estimator, starred in with_oracles(methods, oracle):
            yield Fit(*cell, name, estimator, starred)


def with_oracles(
    methods: dict[str, BaseEstimator], oracle: bool
) -> Iterator[tuple[str, BaseEstimator, bool]]:
    """Yield name, estimator and whether it is an oracle; with `oracle`, starred oracles too."""
    for name, estimator in methods.items():
        yield name, estimator, False
        if oracle and isinstance(estimator, Peer) and estimator.candidates:
            yield f"{name}*", estimator, True


def identity(estimator: BaseEstimator) -> list[str]:
    """Return class and parameters of an estimator, which are part of the key of its rows."""
    kind = type(estimator)
    return [f"{kind.__module__}.{kind.__qualname__}", joblib.hash(estimator.get_params())]


def seeded(estimator: BaseEstimator, seed: int) -> BaseEstimator:
    """Return an unfitted copy of an estimator, with the seed of the draw if it takes a seed."""
    model = clone(estimator)
    return model.set_params(random_state=seed) if "random_state" in model.get_params() else model


def all_classes(
    proba: NDArray[Any], found: NDArray[Any], n: int, classes: NDArray[Any]
) -> NDArray[Any]:
    """Give each class a column, (n, C). Columns of classes that a model does not know are zero."""
    if proba.shape != (n, len(found)) or not np.isfinite(proba).all():
        raise ValueError(f"predict_proba gave {proba.shape} values, or some that are not finite")
    placed = np.zeros((n, len(classes)))
    placed[:, np.searchsorted(classes, found)] = proba
    return placed


def choices(model: BaseEstimator) -> dict[str, Any]:
    """Return what a fitted model has chosen: settings, weights of views, or its stop."""
    if isinstance(model, Peer):
        return {**model.settings_, "chosen on": model.chosen_on_}
    if isinstance(model, MultiViewAligner):
        return dict(zip(model.named_views_, model.view_weights_.tolist(), strict=True))
    names = ("n_steps_", "stop_time_", "logit_scale_", "joint_", "stop_source_")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}
