"""Runs methods on feature sets, a row per fit; what is there already is not run again."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import joblib
import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from tqdm import tqdm

import flowalign
from flowalign import parameters
from flowalign.aligner import FlowMatchingAligner
from flowalign.atomic_file import expanded
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

if TYPE_CHECKING:
    from numpy.typing import NDArray

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

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
    fingerprint: str

    @property
    def key(self) -> str:
        """Says whether a row is of this very fit: same data, draw, parameters and version."""
        kind = type(self.estimator)
        what = [
            self.path.stem,
            self.fingerprint,
            self.n_shots,
            self.seed,
            self.method,
            f"{kind.__module__}.{kind.__qualname__}",
            joblib.hash(self.estimator.get_params()),
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

    Notes
    -----
    A process that the system kills, for want of memory as a rule, ends the run with joblib's
    ``TerminatedWorkerError``. The rows until then are kept; take fewer processes. On a cluster,
    ``joblib.parallel_config(backend="dask")``, workers read `paths` themselves; fits of one that
    died are run by another.
    """
    parameters.integer("n_seeds", n_seeds, low=1)
    for n_shots in shots:
        parameters.integer("shots", n_shots, low=1)
    out = expanded(out)
    out.mkdir(parents=True, exist_ok=True)
    names = [Path(path).stem for path in paths]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"paths must name feature sets, each by another name; got {names}.")
    tasks = {task.key: task for task in _tasks(paths, methods or METHODS, shots, n_seeds, oracle)}
    with (out / ROWS).open("a", encoding="utf-8") as file:
        _lock(file)
        done = {row["key"]: row for row in read_rows(out) if row["key"] in tasks}
        left = [(key, task) for key, task in tasks.items() if key not in done]
        results = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(
            delayed(_fit)(key, task) for key, task in left
        )
        for row in tqdm(
            results, total=len(tasks), initial=len(done), unit="fit", disable=not verbose
        ):
            line = json.dumps(row, default=float)
            file.write(line + "\n")
            file.flush()
            done[row["key"]] = json.loads(line)  # as it is read another time
    return [done[key] for key in tasks]


def _lock(file: IO[str]) -> None:
    """Let no other run write to this file; the system lifts it when the process ends."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"out: another run is writing to {file.name}.") from error


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Read the rows in a folder. What an interruption left of a last line is cut off."""
    path = out / ROWS
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            warnings.warn(f"{path}, line {number} is damaged; its fit is run again.", stacklevel=3)
    return rows


def _tasks(
    paths: Iterable[str | os.PathLike[str]],
    methods: dict[str, BaseEstimator],
    shots: Sequence[int],
    n_seeds: int,
    oracle: bool,
) -> Iterable[Task]:
    for path in map(expanded, paths):
        path = path.absolute()  # other processes may be in other folders
        for n_shots in shots:
            data = load_feature_set(path)
            all_drawn = np.bincount(data.y_train).max() <= n_shots
            for seed in range(1 if all_drawn else n_seeds):
                for name, estimator in methods.items():
                    what = (path, int(n_shots), seed)
                    yield Task(*what, name, estimator, False, data.fingerprint)
                    if oracle and isinstance(estimator, Peer) and estimator.candidates:
                        yield Task(*what, f"{name}*", estimator, True, data.fingerprint)


def _fit(key: str, task: Task) -> dict[str, Any]:
    """Fit, predict and judge; never raises an Exception."""
    row: dict[str, Any] = {"key": key, "set": task.path.stem, "n_shots": task.n_shots}
    row |= {"seed": task.seed, "method": task.method}
    try:
        data = load_feature_set(task.path)
        if data.fingerprint != task.fingerprint:
            raise RuntimeError(f"{task.path} was changed during the run")
        return row | _judge(task, data)
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
    proba = _all_classes(proba, model.classes_, len(data.X_test), data.class_embeddings.classes)
    return {
        "n_samples": len(rows),
        **evaluate(proba, data.y_test),
        "fit_seconds": fitted - start,
        "predict_seconds": predicted - fitted,
        "choices": _choices(model),
    }


def _all_classes(
    proba: NDArray[Any], found: NDArray[Any], n: int, classes: NDArray[Any]
) -> NDArray[Any]:
    """Give each class a column, (n, C), in which those that a model does not know have zeros."""
    if proba.shape != (n, len(found)) or not np.isfinite(proba).all():
        raise ValueError(f"predict_proba gave {proba.shape} values, or some that are not finite")
    placed = np.zeros((n, len(classes)))
    placed[:, np.searchsorted(classes, found)] = proba
    return placed


def _choices(model: BaseEstimator) -> dict[str, Any]:
    """Return what a fitted model has chosen: a peer its settings, the aligner its stop."""
    if isinstance(model, Peer):
        return {**model.settings_, "chosen on": model.chosen_on_}
    names = ("n_steps_", "logit_scale_", "joint_", "stop_source_")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}
