"""A run keeps a row of each fit, whatever happens to it."""

import itertools
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from feature_files import write_feature_set
from sklearn.base import BaseEstimator
from sklearn.neighbors import KNeighborsClassifier

import flowalign
from flowalign import ClassEmbeddings
from flowalign.benchmark import load_feature_set, run
from flowalign.benchmark.adapters import CLIPAdapter
from flowalign.benchmark.feature_sets import encode_split
from flowalign.benchmark.peers import GDA, NearestClassMean, TipAdapter, ZeroShot
from flowalign.benchmark.store import ROWS, read_rows
from flowalign.datasets import make_cross_modal

METHODS = {"zero-shot": ZeroShot(), "GDA-CLIP": GDA()}


def write(path, seed=0, **changes):
    data = make_cross_modal(
        4, n_train=5, n_test=8, n_features=16, difficulty=2, misalignment=1, random_state=seed
    )
    changes = {"X_train": data.X_train.astype(np.float16)} | changes
    return write_feature_set(path, data, **changes)


@pytest.fixture
def sets(tmp_path):
    return [write(tmp_path / "one.npz"), write(tmp_path / "two.npz", seed=1)]


def small_run(sets, out, **params):
    return run(
        sets, out, **{"methods": METHODS, "shots": (1, 2), "n_jobs": 1, "verbose": 0} | params
    )


class Failing(BaseEstimator):
    """Cannot be fitted."""

    def fit(self, X, y, class_embeddings):
        raise RuntimeError("no luck")


class Counting(ZeroShot):
    """Counts its fits."""

    n_fits = 0

    def fit(self, *args, **kwargs):
        Counting.n_fits += 1
        return super().fit(*args, **kwargs)


def test_a_row_for_each_fit(sets, tmp_path):
    rows = small_run(sets, tmp_path / "out")
    assert len(rows) == 2 * 2 * 3 * 2
    assert len({(r["set"], r["n_shots"], r["seed"], r["method"]) for r in rows}) == len(rows)
    data = load_feature_set(sets[0])
    found = [r for r in rows if r["set"] == "one" and r["method"] == "GDA-CLIP"]
    for row in found:
        drawn = data.draw(row["n_shots"], row["seed"])
        model = GDA().fit(data.X_train[drawn], data.y_train[drawn], data.class_embeddings)
        assert row["n_samples"] == 4 * row["n_shots"]
        assert row["accuracy"] == model.score(data.X_test, data.y_test)
        chosen_on = "cross-validation" if row["n_shots"] == 2 else "nothing"
        assert row["choices"] == {**model.settings_, "chosen on": chosen_on}
    assert len({row["log_loss"] for row in found}) == 6  # of six draws
    assert row["fit_seconds"] > 0
    assert sorted(r["key"] for r in read_rows(tmp_path / "out")) == sorted(r["key"] for r in rows)


def test_the_aligner_is_among_the_methods(sets, tmp_path):
    rows = run(sets[:1], tmp_path / "out", shots=[2], n_seeds=1, n_jobs=1, verbose=0)
    assert not [row for row in rows if "error" in row]
    assert len(rows) == 13
    ours = next(row for row in rows if row["method"] == "flowalign")
    assert ours["choices"]["stop_source_"] == "leave-one-out"
    assert ours["choices"]["n_steps_"] in range(11)
    assert 0 <= ours["choices"]["stop_time_"] <= 1


def test_processes_give_the_same_rows(sets, tmp_path):
    alone = small_run(sets, tmp_path / "a", shots=[2], n_seeds=2)
    together = small_run(sets, tmp_path / "b", shots=[2], n_seeds=2, n_jobs=2)
    for a, b in zip(alone, together, strict=True):
        assert a["key"] == b["key"]
        assert a["accuracy"] == b["accuracy"]
        assert a["log_loss"] == pytest.approx(b["log_loss"], rel=1e-4)


def test_what_is_there_is_not_run_again(sets, tmp_path):
    methods = {"counted": Counting()}
    Counting.n_fits = 0
    first = small_run(sets, tmp_path / "out", methods=methods, shots=[1])
    assert Counting.n_fits == len(first) == 6
    more = small_run(sets, tmp_path / "out", methods=methods, shots=[1, 2], n_seeds=2)
    assert Counting.n_fits == 6 + 4
    assert len(more) == 8
    write(sets[0], seed=5)  # other features are other fits
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


class Seeded(ZeroShot):
    """Remembers what its fits were seeded with."""

    seeds = ()

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, *args, **kwargs):
        Seeded.seeds += (self.random_state,)
        return super().fit(*args, **kwargs)


def test_a_draw_seeds_the_model_too(sets, tmp_path):
    Seeded.seeds = ()
    model = Seeded(random_state=7)
    rows = small_run(sets[:1], tmp_path / "out", methods={"m": model}, shots=[1], n_seeds=4)
    assert Seeded.seeds == tuple(row["seed"] for row in rows) == (0, 1, 2, 3)
    assert model.random_state == 7  # the method that was handed in is left as it was


def test_files_that_change_between_runs(sets, tmp_path):
    """Processes of an earlier run do not answer with what they have read then."""
    small_run(sets[:1], tmp_path / "out", shots=[2], n_jobs=2)
    write(sets[0], seed=5)
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


class Slow(ZeroShot):
    def fit(self, *args, **kwargs):
        time.sleep(0.2)
        return super().fit(*args, **kwargs)


def test_a_fit_and_a_prediction_are_timed_apart(sets, tmp_path):
    methods = {"slow": Slow()}
    (row,) = small_run(sets[:1], tmp_path / "out", methods=methods, shots=[1], n_seeds=1)
    assert row["fit_seconds"] >= 0.2 > row["predict_seconds"] > 0


class FewClasses(KNeighborsClassifier):
    """Knows the classes of its samples alone, as scikit-learn's classifiers do."""

    def fit(self, X, y, class_embeddings):
        return super().fit(X[y != 1], y[y != 1])


class NotFinite(ZeroShot):
    def predict_proba(self, X):
        return np.full((len(X), 4), np.nan)


class WrongShape(ZeroShot):
    def predict_proba(self, X):
        return super().predict_proba(X)[:-1]


def test_probabilities_of_too_few_rows_are_an_error(sets, tmp_path):
    methods = {"short": WrongShape()}
    (row,) = small_run(sets[:1], tmp_path, methods=methods, shots=[1], n_seeds=1)
    assert row["error"] == (
        "ValueError: predict_proba gave (31, 4) values, or some that are not finite"
    )


def test_columns_are_those_of_the_classes(sets, tmp_path):
    methods = {"few": FewClasses(1), "nan": NotFinite()}
    few, nan = small_run(sets[:1], tmp_path / "out", methods=methods, shots=[3], n_seeds=1)
    data = load_feature_set(sets[0])
    rows = data.draw(3, 0)
    model = FewClasses(1).fit(data.X_train[rows], data.y_train[rows], None)
    assert few["accuracy"] == model.score(data.X_test, data.y_test) > 0.25
    assert "not finite" in nan["error"]


def test_training_is_part_of_a_fit(sets):
    """Nothing is left to be trained when the first prediction is asked for."""
    data = load_feature_set(sets[0])
    rows = data.draw(1, 0)
    model = CLIPAdapter().fit(data.X_train[rows], data.y_train[rows], data.class_embeddings)
    assert list(model._scores.learned) == [(0.2,)]


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


def test_a_failing_fit_is_a_row(sets, tmp_path):
    rows = small_run(sets[:1], tmp_path / "out", methods={"bad": Failing(), **METHODS}, shots=[1])
    errors = [row for row in rows if "error" in row]
    assert {row["method"] for row in errors} == {"bad"}
    assert errors[0]["error"] == "RuntimeError: no luck"
    assert len(rows) == 9


def test_oracles_bear_an_asterisk_and_see_test_data(sets, tmp_path):
    methods = {**METHODS, "Tip-Adapter": TipAdapter()}
    rows = small_run(sets, tmp_path / "out", methods=methods, shots=[2], oracle=True)
    names = {row["method"] for row in rows}
    assert names == {"zero-shot", "GDA-CLIP", "GDA-CLIP*", "Tip-Adapter", "Tip-Adapter*"}
    accuracy = {(r["method"], r["set"], r["seed"]): r["accuracy"] for r in rows}
    for (method, *cell), value in accuracy.items():
        if method.endswith("*"):
            assert value >= accuracy[method[:-1], *cell]
    starred = next(row for row in rows if row["method"] == "GDA-CLIP*")
    assert starred["choices"]["chosen on"] == "validation data"


def test_draws(sets):
    data = load_feature_set(sets[0])
    for seed in range(3):
        rng = np.random.default_rng(seed)
        expected = [rng.permutation(np.where(data.y_train == c)[0])[:3] for c in range(4)]
        np.testing.assert_array_equal(data.draw(3, seed), np.concatenate(expected))
        assert set(data.draw(1, seed)) < set(data.draw(3, seed))
    assert len(data.draw(99, 0)) == 20


def test_where_nothing_is_left_to_draw_there_is_one_draw(sets, tmp_path):
    rows = small_run(sets[:1], tmp_path / "out", shots=[4, 5, 6])
    seeds = {k: {r["seed"] for r in rows if r["n_shots"] == k} for k in (4, 5, 6)}
    assert seeds == {4: {0, 1, 2}, 5: {0}, 6: {0}}


@pytest.mark.parametrize("paths", [[], ["a/x.npz", "b/x.npz"]])
def test_sets_need_names_of_their_own(paths, tmp_path):
    with pytest.raises(ValueError, match="each by another name"):
        run(paths, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"X_test": np.ones((32, 3))}, "X_train is 16 wide and X_test 3"),
        ({"X_test": np.full((32, 16), np.nan)}, "X_test should be a matrix of finite numbers"),
        ({"X_test": np.ones((32, 16), complex)}, "X_test should be a matrix of finite numbers"),
        ({"y_test": np.zeros(3, int)}, "y_test should have an integer code for each of 32 rows"),
        ({"y_train": np.repeat(["a", "b"], 10)}, "y_train should have an integer code"),
        (
            {"y_train": np.repeat([0, 4], 10)},
            r"shape \(4, 16\).*codes in y, up to 4",
        ),
        ({"X_train": np.zeros((0, 16)), "y_train": np.zeros(0, int)}, "X_train should be a matrix"),
        ({"y_train": np.repeat([None, 1], 10)}, "not an .npz file of plain arrays"),
    ],
)
def test_files_of_another_form_are_refused(changes, message, tmp_path):
    path = write(tmp_path / "set.npz", **changes)
    with pytest.raises(ValueError, match=message):
        load_feature_set(path)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match=r"set\.npz is not an \.npz file"):
        load_feature_set(path)


class Letters(BaseEstimator):
    """An encoder that reads the last letter of a path."""

    def __init__(self, model="a", cache=None):
        self.model = model
        self.cache = cache

    def fit(self):
        return self

    def transform(self, X):
        Letters.calls += 1
        return np.array([[ord(str(path)[-5]), len(str(path))] for path in X], dtype=np.float32)

    def class_embeddings(self, class_names, templates):
        assert templates == "a photo of a {}."
        return ClassEmbeddings(list(class_names), [[1.0, len(w)] for w in class_names.values()])


def test_a_benchmark_data_set_is_encoded_once(tmp_path):
    rows = {
        "train": [["b/1.jpg", 1, "bee"], ["a/2.jpg", 0, "ant"]],
        "val": [["a/4.jpg", 0, "ant"]],
        "test": [["b/3.jpg", 1, "bee"]],
    }
    pictures = tmp_path / "caltech-101" / "101_ObjectCategories"
    for path, *_ in itertools.chain(*rows.values()):
        (pictures / path).parent.mkdir(parents=True, exist_ok=True)
        (pictures / path).touch()
    listing = tmp_path / "caltech-101" / "split_zhou_Caltech101.json"
    listing.write_text(json.dumps(rows))
    Letters.calls = 0
    path = tmp_path / "out" / "features" / "Caltech101.npz"
    for _ in range(2):
        assert encode_split(tmp_path, "Caltech101", Letters(), path) == path
    encode_split(tmp_path, "Caltech101", Letters(cache="elsewhere"), path)
    assert Letters.calls == 2  # training and test pictures, once each
    with pytest.raises(ValueError, match=r"made by .*'a'.*not .*'b'"):
        encode_split(tmp_path, "Caltech101", Letters("b"), path)
    data = load_feature_set(path)
    assert data.y_train.tolist() == [1, 0]
    assert data.X_train[:, 0].tolist() == [ord("1"), ord("2")]
    assert data.y_test.tolist() == [1]
    np.testing.assert_allclose(data.class_embeddings.vectors, [[1, 3], [1, 3]])
    assert [p.name for p in path.parent.iterdir()] == ["Caltech101.npz"]
