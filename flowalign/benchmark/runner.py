"""Runs methods on feature sets, a row per fit; what is there already is not run again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from tqdm import tqdm

import flowalign
from flowalign.aligner import FlowMatchingAligner
from flowalign.benchmark.adapters import CLIPAdapter, LPPlusPlus, TaskRes, TipAdapterF
from flowalign.benchmark.feature_sets import FeatureSet, load_feature_set
from flowalign.benchmark.metrics import evaluate
from flowalign.benchmark.peers import (
    GDA,
    LinearProbe,
    NearestClassMean,
    Peer,
    TipAdapter,
    ZeroShot,
)

METHODS: dict[str, BaseEstimator] = {
    "flowalign": FlowMatchingAligner(),
    "flowalign, network": FlowMatchingAligner(velocity_field="mlp"),
    "zero-shot": ZeroShot(),
    "class means": NearestClassMean(),
    "logistic regression": LinearProbe(),
    "GDA-CLIP": GDA(),
    "Tip-Adapter": TipAdapter(),
    "Tip-Adapter-F": TipAdapterF(),
    "CLIP-Adapter": CLIPAdapter(),
    "LP++": LPPlusPlus(),
    "TaskRes": TaskRes(),
}
ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Task:
    """One fit."""

    path: Path
    n_shots: int
    seed: int
    method: str
    estimator: BaseEstimator
    oracle: bool

    @property
    def key(self) -> str:
        """Says whether a row is of this very fit: same data, draw, parameters and version."""
        what = [
            load_feature_set(self.path).fingerprint,
            self.n_shots,
            self.seed,
            self.method,
            repr(sorted(self.estimator.get_params().items())),
            self.oracle,
            flowalign.__version__,
        ]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


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
        Feature sets, see :func:`load_feature_set`.
    out : path
        A folder. Rows that it has of the same fits are taken, so that an interrupted run goes on
        and one with more shots or methods adds to it. Delete a row with an error to have it tried
        again.
    methods : dict of str to classifier or None
        With ``fit(X, y, class_embeddings)`` and ``predict_proba``; None takes :data:`METHODS`.
    shots : sequence of int
        Samples a class; of smaller classes all are taken.
    n_seeds : int
        Draws 0 to ``n_seeds - 1``; where nothing is left to draw, the first alone.
    oracle : bool
        Whether peers with settings to choose are also fitted with settings chosen on *test* data.
        Such rows bear an asterisk, ``"GDA-CLIP*"``: bounds of what the peer could reach, not
        results.
    n_jobs : int or None
        Processes at once, as for joblib, whose backend can be set around this call.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    list of dict
        The rows: ``set``, ``n_shots``, ``seed``, ``method``, ``n_samples``, what
        :func:`~flowalign.benchmark.metrics.evaluate` returns, ``fit_seconds`` and
        ``predict_seconds``, ``choices``; or, if the fit failed, ``error``.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names = [Path(path).stem for path in paths]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"paths must name feature sets, each by another name; got {names}.")
    tasks = {task.key: task for task in _tasks(paths, methods or METHODS, shots, n_seeds, oracle)}
    done = {row["key"]: row for row in read_rows(out) if row["key"] in tasks}
    left = [(key, task) for key, task in tasks.items() if key not in done]
    results = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(
        delayed(_fit)(key, task) for key, task in left
    )
    with (out / ROWS).open("a", encoding="utf-8") as file:
        for row in tqdm(
            results, total=len(tasks), initial=len(done), unit="fit", disable=not verbose
        ):
            file.write(json.dumps(row, default=float) + "\n")
            file.flush()
            done[row["key"]] = row
    return [done[key] for key in tasks]


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Read the rows in a folder. What an interruption left of a last line is cut off."""
    path = out / ROWS
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def _tasks(
    paths: Iterable[str | os.PathLike[str]],
    methods: dict[str, BaseEstimator],
    shots: Sequence[int],
    n_seeds: int,
    oracle: bool,
) -> Iterable[Task]:
    for path in map(Path, paths):
        for n_shots in shots:
            data = load_feature_set(path)
            all_drawn = np.bincount(data.y_train).max() <= n_shots
            for seed in range(1 if all_drawn else n_seeds):
                for name, estimator in methods.items():
                    yield Task(path, n_shots, seed, name, estimator, oracle=False)
                    if oracle and isinstance(estimator, Peer) and estimator.candidates:
                        yield Task(path, n_shots, seed, f"{name}*", estimator, oracle=True)


def _fit(key: str, task: Task) -> dict[str, Any]:
    """Fit, predict and judge; never raises an Exception."""
    row: dict[str, Any] = {"key": key, "set": task.path.stem, "n_shots": task.n_shots}
    row |= {"seed": task.seed, "method": task.method}
    try:
        return row | _judge(task, load_feature_set(task.path))
    except Exception as error:
        return row | {"error": f"{type(error).__name__}: {error}"}


def _judge(task: Task, data: FeatureSet) -> dict[str, Any]:
    rows = data.draw(task.n_shots, task.seed)
    model = clone(task.estimator)
    if "random_state" in model.get_params():
        model.set_params(random_state=task.seed)
    extra = {"X_val": data.X_test, "y_val": data.y_test} if task.oracle else {}
    start = time.perf_counter()
    model.fit(data.X_train[rows], data.y_train[rows], data.class_embeddings, **extra)
    fitted = time.perf_counter()
    proba = model.predict_proba(data.X_test)
    predicted = time.perf_counter()
    return {
        "n_samples": len(rows),
        **evaluate(proba, data.y_test),
        "fit_seconds": fitted - start,
        "predict_seconds": predicted - fitted,
        "choices": _choices(model),
    }


def _choices(model: BaseEstimator) -> dict[str, Any]:
    """Return what a fitted model has chosen: a peer its settings, the aligner its stop."""
    if isinstance(model, Peer):
        return {**model.settings_, "chosen on": model.chosen_on_}
    names = ("n_steps_", "logit_scale_", "joint_", "stop_source_")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}
