"""Rows are kept in a folder: what is there is not run again, whatever became of the run before."""

import json
import signal
import subprocess
import sys
import time

import pytest
from benchmark_sets import METHODS, small_run, write_small_set
from sklearn.base import BaseEstimator

import flowalign
from flowalign import FlowMatchingAligner
from flowalign.benchmark import load_feature_set, run
from flowalign.benchmark.peers import GDA, NearestClassMean, ZeroShot
from flowalign.benchmark.store import ROWS, read_rows
from flowalign.datasets import make_cross_modal


@pytest.fixture
def sets(tmp_path):
    return [write_small_set(tmp_path / "one.npz"), write_small_set(tmp_path / "two.npz", seed=1)]


class Counting(ZeroShot):
    """Counts its fits."""

    n_fits = 0

    def fit(self, *args, **kwargs):
        Counting.n_fits += 1
        return super().fit(*args, **kwargs)


def test_what_is_there_is_not_run_again(sets, tmp_path):
    methods = {"counted": Counting()}
    Counting.n_fits = 0
    first = small_run(sets, tmp_path / "out", methods=methods, shots=[1])
    assert Counting.n_fits == len(first) == 6
    more = small_run(sets, tmp_path / "out", methods=methods, shots=[1, 2], n_seeds=2)
    assert Counting.n_fits == 6 + 4
    assert len(more) == 8
    write_small_set(sets[0], seed=5)  # other features are other fits
    small_run(sets, tmp_path / "out", methods=methods, shots=[1, 2], n_seeds=2)
    assert Counting.n_fits == 10 + 4


def test_another_version_runs_again(sets, tmp_path, monkeypatch):
    """What a row says holds for the version that made it."""
    methods, out = {"counted": Counting()}, tmp_path / "out"
    Counting.n_fits = 0
    small_run(sets[:1], out, methods=methods, shots=[1])
    monkeypatch.setattr(flowalign, "__version__", "99.0")
    small_run(sets[:1], out, methods=methods, shots=[1])
    assert Counting.n_fits == 6
    monkeypatch.undo()
    small_run(sets[:1], out, methods=methods, shots=[1])
    assert Counting.n_fits == 6


def test_files_that_change_between_runs(sets, tmp_path):
    """Processes of an earlier run do not answer with what they have read then."""
    small_run(sets[:1], tmp_path / "out", shots=[2], n_jobs=2)
    write_small_set(sets[0], seed=5)
    again = small_run(sets[:1], tmp_path / "out", shots=[2], n_jobs=2)
    fresh = small_run(sets[:1], tmp_path / "new", shots=[2], n_jobs=1)
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in fresh]


def test_fits_differ_by_method_and_name_of_the_set(sets, tmp_path):
    out = tmp_path / "out"
    first = small_run(sets[:1], out, methods={"m": ZeroShot()}, shots=[2])
    second = small_run(sets[:1], out, methods={"m": NearestClassMean()}, shots=[2])
    assert [r["accuracy"] for r in first] != [r["accuracy"] for r in second]
    copy = tmp_path / "copy.npz"
    copy.write_bytes(sets[0].read_bytes())
    both = small_run([sets[0], copy], out, methods={"m": ZeroShot()}, shots=[2])
    assert [row["set"] for row in both] == ["one"] * 3 + ["copy"] * 3


def test_one_method_under_two_names_has_two_rows(sets, tmp_path):
    methods = {"one": ZeroShot(), "two": ZeroShot()}
    rows = small_run(sets[:1], tmp_path / "out", methods=methods, shots=[1], n_seeds=1)
    assert [row["method"] for row in rows] == ["one", "two"]
    assert rows[0]["accuracy"] == rows[1]["accuracy"]
    assert rows[0]["key"] != rows[1]["key"]


def test_a_damaged_line_is_run_again(sets, tmp_path):
    rows = small_run(sets[:1], tmp_path / "out", shots=[1])
    path = tmp_path / "out" / ROWS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * 20 + b"\n" + b"".join(lines[2:]))
    with pytest.warns(UserWarning, match="line 2 is damaged"):
        again = small_run(sets[:1], tmp_path / "out", shots=[1])
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in rows]


def test_two_runs_do_not_write_to_one_folder(sets, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    small_run(sets[:1], tmp_path, shots=[1])
    with (tmp_path / ROWS).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is writing"):
            small_run(sets[:1], tmp_path, shots=[1])
    assert len(small_run(sets[:1], tmp_path, shots=[1])) == 6


def test_other_parameters_are_other_fits(sets, tmp_path):
    rows = [
        small_run(sets[:1], tmp_path / "out", methods={"GDA": GDA(alpha)}, shots=[2], n_seeds=1)
        for alpha in (0.1, 10.0, 0.1)
    ]
    assert rows[0] == rows[2] != rows[1]
    assert len(read_rows(tmp_path / "out")) == 2


def test_half_a_line_is_run_again(sets, tmp_path):
    rows = small_run(sets, tmp_path / "out")
    path = tmp_path / "out" / ROWS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]) + lines[-3][:20])
    again = small_run(sets, tmp_path / "out")
    assert [r["key"] for r in again] == [r["key"] for r in rows]
    assert [r["accuracy"] for r in again] == [r["accuracy"] for r in rows]
    kept = path.read_bytes().splitlines(keepends=True)
    assert kept[: len(lines) - 3] == lines[:-3]
    assert len(kept) == len(lines)


def test_a_killed_run_goes_on(sets, tmp_path):
    out, few = tmp_path / "out", list(METHODS)
    code = (
        "from flowalign.benchmark import METHODS, run\n"
        f"run({[str(path) for path in sets]!r}, {str(out)!r}, shots=(1, 2, 4), n_jobs=2, "
        f"n_seeds=40, methods={{name: METHODS[name] for name in {few!r}}})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    path = out / ROWS
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= 5):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = path.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    rows = small_run(sets, out, shots=(1, 2, 4), n_seeds=40)
    after = path.read_bytes()
    assert 5 <= before.count(b"\n") < len(rows) == 2 * 3 * 40 * 2
    assert after.startswith(before)
    keys = [json.loads(line)["key"] for line in after.splitlines()]
    assert len(keys) == len(set(keys)) == len(rows)


class Failing(BaseEstimator):
    """Cannot be fitted."""

    def fit(self, X, y, class_embeddings):
        raise RuntimeError("no luck")


def test_a_failing_fit_is_a_row(sets, tmp_path):
    rows = small_run(sets[:1], tmp_path / "out", methods={"bad": Failing(), **METHODS}, shots=[1])
    errors = [row for row in rows if "error" in row]
    assert {row["method"] for row in errors} == {"bad"}
    assert errors[0]["error"] == "RuntimeError: no luck"
    assert len(rows) == 9


@pytest.mark.parametrize("paths", [[], ["a/x.npz", "b/x.npz"]])
def test_sets_need_names_of_their_own(paths, tmp_path):
    with pytest.raises(ValueError, match="each by another name"):
        run(paths, tmp_path)


@pytest.mark.parametrize("line", ["12", "null", "[]", '{"set": "one"}'])
def test_a_line_that_is_no_row_is_run_again(line, sets, tmp_path):
    rows = small_run(sets[:1], tmp_path, shots=[1])
    path = tmp_path / ROWS
    path.write_text(line + "\n" + path.read_text())
    with pytest.warns(UserWarning, match="line 1 is damaged"):
        assert small_run(sets[:1], tmp_path, shots=[1]) == rows


def test_names_without_samples_are_nothing_to_be_warned_about(tmp_path):
    """Codes are the labels of the table, so that none has been taken for another."""
    vectors = make_cross_modal(6, n_features=16, random_state=0).class_embeddings.vectors
    path = write_small_set(tmp_path / "set.npz", class_embeddings=vectors)
    data = load_feature_set(path)
    rows = data.draw(2, 0)
    with pytest.warns(UserWarning, match="y holds exactly the integers 0 to 3"):
        FlowMatchingAligner().fit(data.X_train[rows], data.y_train[rows], data.class_embeddings)
    methods = {"flowalign": FlowMatchingAligner()}
    (row,) = small_run([path], tmp_path / "out", methods=methods, shots=[2], n_seeds=1)
    assert row["accuracy"] > 0.25
