"""Rows of results in a folder. A result that is there already is not measured again."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any, ClassVar

from joblib import Parallel, delayed
from tqdm import tqdm

import flowalign
from flowalign import parameters
from flowalign.atomic_file import expanded
from flowalign.benchmark.feature_sets import load_feature_set

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Task(ABC):
    """A measurement on one draw of a feature set, which gives one row."""

    path: Path
    n_shots: int
    seed: int
    fingerprint: str
    method: str

    unit: ClassVar[str]
    """The unit that the progress bar counts."""

    @property
    @abstractmethod
    def identity(self) -> list[Any]:
        """Return all else that the result depends on, as JSON types."""

    @property
    def fields(self) -> dict[str, Any]:
        """Return more fields of a row than set, shots, draw and method, also for failed tasks."""
        return {}

    def load(self) -> Any:
        """Read the set at `path`."""
        return load_feature_set(self.path)

    @abstractmethod
    def measure(self, data: Any) -> dict[str, Any]:
        """Measure on the set that `load` returned; return the rest of the row."""

    @property
    def key(self) -> str:
        """Return the key that a task's row has: a hash of data, draw, parameters and version."""
        what = [
            self.path.stem,
            self.fingerprint,
            self.n_shots,
            self.seed,
            self.method,
            *self.identity,
            flowalign.__version__,
        ]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def cells(
    paths: Sequence[str | os.PathLike[str]],
    shots: Sequence[int],
    n_seeds: int,
    load: Callable[[Path], Any] = load_feature_set,
) -> Iterator[tuple[Any, tuple[Path, int, int, str]]]:
    """Yield all draws of feature sets: the set, and the first fields of a :class:`Task`.

    Raises
    ------
    ValueError
        For numbers below 1, no paths, or two sets of one name.
    """
    parameters.integer("n_seeds", n_seeds, low=1)
    for n_shots in shots:
        parameters.integer("shots", n_shots, low=1)
    names = [Path(path).stem for path in paths]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"paths must name feature sets, each by another name; got {names}.")
    for path in map(expanded, paths):
        path = path.absolute()  # other processes may be in other folders
        for n_shots in shots:
            data = load(path)
            for seed in range(n_seeds):
                yield data, (path, int(n_shots), seed, data.fingerprint)


def collect(
    tasks: Iterable[Task], out: str | os.PathLike[str], *, n_jobs: int | None, verbose: int
) -> list[dict[str, Any]]:
    """Measure the tasks that have no row in a folder, and write each row when it is done.

    Parameters
    ----------
    tasks : iterable of Task
        Tasks, all of the same unit.
    out : path
        The folder. It is made if it does not exist.
    n_jobs : int or None
        As for joblib.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    list of dict
        A row of each task.
    """
    by_key = {task.key: task for task in tasks}
    out = expanded(out)
    out.mkdir(parents=True, exist_ok=True)
    with (out / ROWS).open("a", encoding="utf-8") as file:
        _lock(file)
        done = {row["key"]: row for row in read_rows(out) if row["key"] in by_key}
        left = [(key, task) for key, task in by_key.items() if key not in done]
        results = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(
            delayed(_row)(key, task) for key, task in left
        )
        for row in tqdm(
            results,
            total=len(by_key),
            initial=len(done),
            unit=next((task.unit for task in by_key.values()), "row"),
            disable=not verbose,
        ):
            line = json.dumps(row, default=float)
            file.write(line + "\n")
            file.flush()
            done[row["key"]] = json.loads(line)  # equal to the row that a later run reads
    return [done[key] for key in by_key]


def _row(key: str, task: Task) -> dict[str, Any]:
    """Measure a task. An exception becomes the row's error."""
    row: dict[str, Any] = {"key": key, "set": task.path.stem, "n_shots": task.n_shots}
    row |= {"seed": task.seed, "method": task.method, **task.fields}
    try:
        data = task.load()
        if data.fingerprint != task.fingerprint:
            raise RuntimeError(f"{task.path} was changed during the run")
        with warnings.catch_warnings():
            # Codes are the labels of the class embeddings, even if the last classes lack samples.
            warnings.filterwarnings("ignore", ".*y holds exactly the integers", UserWarning)
            return row | task.measure(data)
    except Exception as error:
        return row | {"error": f"{type(error).__name__}: {error}"}


def _lock(file: IO[str]) -> None:
    """Lock the file against other runs. The system lifts the lock when the process ends."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"out: another run is writing to {file.name}.") from error


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Read the rows in a folder. If an interruption cut the last line short, remove it."""
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
            row = json.loads(line)
            rows.append(dict(row, key=row["key"]))
        except (ValueError, TypeError, KeyError):
            warnings.warn(f"{path}, line {number} is damaged; its fit is run again.", stacklevel=4)
    return rows
