"""Settings with unlabelled rows: what methods are given, what is judged, what a report says."""

import itertools
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from benchmark_rows import make
from benchmark_sets import N_CLASSES, numbered, numbers
from feature_files import write_feature_set
from scipy.special import softmax
from sklearn.base import BaseEstimator

from flowalign import FlowMatchingAligner
from flowalign.benchmark import load_feature_set, run, run_unlabeled, unlabeled, write_report
from flowalign.benchmark.__main__ import main
from flowalign.benchmark.open_set import held_out_classes
from flowalign.benchmark.peers import GDA, ZeroShot
from flowalign.benchmark.pools import POOLS, SETTINGS, batches
from flowalign.benchmark.store import read_rows
from flowalign.benchmark.unlabeled import WITHOUT
from flowalign.datasets import make_cross_modal


class Recording(BaseEstimator):
    """Answers each row of its pool by the number that it bears, and keeps what it was given."""

    given: ClassVar[list] = []

    def fit(self, X, y, class_embeddings, X_unlabeled=None):
        self.classes_ = class_embeddings.classes
        self.pool = X_unlabeled
        Recording.given.append((numbers(X), y, self.classes_, X_unlabeled))
        return self

    @property
    def transduction_proba_(self):
        return self._answers(self.pool)

    def _answers(self, X):
        right = (numbers(X) % N_CLASSES)[:, None] == self.classes_
        return softmax(5.0 * right, axis=1)

    def predict_proba(self, X):
        return self._answers(X)


class Transductive(Recording):
    inductive = False

    def predict_proba(self, X):
        raise AssertionError("no answer for new rows")


def written(data, path, **changes):
    arrays = {name: getattr(data, name) for name in ("X_train", "y_train", "X_test", "y_test")}
    np.savez(path, **arrays | {"class_embeddings": data.class_embeddings.vectors} | changes)
    return path


@pytest.fixture
def path(tmp_path):
    return written(numbered(300), tmp_path / "one.npz")


def small_run(paths, out, **params):
    given = {"shots": [2], "n_seeds": 1, "n_jobs": 1, "verbose": 0}
    return run_unlabeled(paths, out, **given | params)


def test_methods_are_given_the_pool_and_judged_on_the_rows_that_count(path, tmp_path):
    Recording.given.clear()
    methods = {
        "flowalign": Recording(),
        WITHOUT: Recording(),
        "t": Transductive(),
        "zero-shot": ZeroShot(),
    }
    rows = small_run([path], tmp_path / "out", methods=methods)
    assert [row for row in rows if "error" in row] == []
    assert [(row["pool"], row["method"]) for row in rows] == [
        (pool, method)
        for pool in POOLS
        for method in methods
        if not (method == "t" and pool == "undrawn training rows")
    ]
    right = {row["accuracy"] for row in rows if row["method"] != "zero-shot"}
    assert right == {1.0}
    pools = [pool for *_, pool in Recording.given]
    assert len(pools[0]) == 30 - 12  # undrawn, for ours
    assert pools[1] is None  # without them
    data = load_feature_set(path)
    for samples, y, classes, pool in Recording.given:
        np.testing.assert_array_equal(data.y_train[samples - 10_000], y)
        assert set(y) == set(classes)
        assert len(classes) in (N_CLASSES, N_CLASSES // 2)
        if pool is not None and len(classes) < N_CLASSES:
            assert len(pool) == 300


def test_the_aligner_gains_by_its_pool_what_a_fit_by_hand_gains(tmp_path):
    made = make_cross_modal(
        4, n_train=6, n_test=40, n_features=16, difficulty=2, misalignment=1, random_state=1
    )
    path = write_feature_set(tmp_path / "set.npz", made)
    rows = small_run([path], tmp_path / "out", settings=["transductive"])
    assert [row for row in rows if "error" in row] == []
    data = load_feature_set(path)
    drawn = data.draw(2, 0)
    X, y = data.X_train[drawn], data.y_train[drawn]
    alone = FlowMatchingAligner(data.class_embeddings).fit(X, y)
    with_them = FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=data.X_test)
    of = {row["method"]: row["accuracy"] for row in rows if row["pool"] == "all test rows"}
    assert of[WITHOUT] == np.mean(alone.predict(data.X_test) == data.y_test)
    assert of["flowalign"] == np.mean(with_them.transduction_ == data.y_test)
    # A batch of all rows is the same rows in another order.
    same = {row["method"]: row["accuracy"] for row in rows if row["pool"] == "test rows in batches"}
    assert same[WITHOUT] == of[WITHOUT]


def test_what_is_the_same_in_all_draws_is_run_once(path, tmp_path):
    methods = {"flowalign": Recording()}
    settings = {"methods": methods, "shots": [5], "n_seeds": 3}
    rows = small_run([path], tmp_path / "out", **settings)
    n_halves = len({tuple(held_out_classes(N_CLASSES, seed)) for seed in range(3)})
    assert n_halves > 1
    counted = {pool: sum(row["pool"] == pool for row in rows) for pool in POOLS}
    assert counted == {
        "undrawn training rows": 0, "all test rows": 1, "test rows in batches": 3,
        "imbalanced": 3, "a third of the classes": 3, "half of the classes foreign": n_halves,
    }  # fmt: skip
    again = small_run([path], tmp_path / "out", **settings)
    assert again == rows
    fits = run([path], tmp_path / "out", methods={"zero-shot": ZeroShot()}, shots=[5], n_seeds=1,
               n_jobs=1, verbose=0)  # fmt: skip
    assert len(read_rows(tmp_path / "out")) == len(rows) + len(fits)


def test_oracles_see_the_labels_of_what_is_judged(path, tmp_path):
    rows = small_run([path], tmp_path, methods={"GDA": GDA()}, settings=["realistic"], oracle=True)
    assert [row["method"] for row in rows] == ["GDA", "GDA*"] * 3
    assert {row["choices"]["chosen on"] for row in rows[1::2]} == {"validation data"}


def test_an_unknown_setting_is_refused(path, tmp_path):
    with pytest.raises(ValueError, match="settings must be some of semi-supervised, transductive"):
        small_run([path], tmp_path, settings=["transductiv"])


def of_pool(pool, rows):
    return [row | {"pool": pool} for row in rows]


def test_every_pool_has_a_section_with_all_numbers_of_shots(tmp_path):
    pytest.importorskip("matplotlib")
    accuracy = {"flowalign": {"a": [0.8, 0.9]}, WITHOUT: {"a": [0.7, 0.7]}}
    rows = of_pool("all test rows", make(accuracy) + make(accuracy, n_shots=1))
    failed = {k: rows[0][k] for k in ("set", "n_shots", "pool")} | {
        "seed": 0,
        "method": "TransCLIP",
    }
    rows += [failed | {"error": "ValueError: <none>"}]
    page = write_report([], tmp_path, unlabeled=rows).read_text()
    text = (tmp_path / "report.md").read_text()
    titles = [line for line in text.splitlines() if line.startswith("## Unlabelled")]
    assert titles == [f"## Unlabelled, all test rows: {n} a class" for n in
                      ("1 labelled sample", "4 labelled samples")]  # fmt: skip
    assert page.count("without labels, all at once") == 1
    assert f"| {WITHOUT} | 70.0 | 0.00 | 2.0 | +15.0 | 1 / 0 / 0 |" in text
    assert "imbalanced" not in text
    assert "TransCLIP on a, 4 shots, draw 0: ValueError: &lt;none&gt;" in page


def test_every_pool_is_explained():
    from flowalign.benchmark.report import UNLABELED as EXPLAINED

    assert list(EXPLAINED) == list(POOLS)
    assert list(POOLS) == [name for pools in SETTINGS.values() for name in pools]


def test_the_command(path, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = str(tmp_path / "report")
    given = ["--features", str(path), "--shots", "1", "--seeds", "1", "--jobs", "1", "--out", out]
    main([*given, "--setting", "semi-supervised", "realistic", "--methods", "zero-shot"])
    assert "4 fits, 0 failed" in capsys.readouterr().out
    main([*given, "--setting", "inductive", "transductive", "--methods", "zero-shot"])
    assert "3 fits, 0 failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*given, "--setting", "transductive", "--methods", "TaskRes"])
    assert "--methods: none of TaskRes is for --setting transductive" in capsys.readouterr().err


def test_samples_of_foreign_classes_do_not_count(path, tmp_path):
    rows = small_run([path], tmp_path / "out", methods={"z": ZeroShot()}, settings=["realistic"])
    n_samples = {row["pool"]: row["n_samples"] for row in rows}
    assert n_samples == {
        "imbalanced": 2 * N_CLASSES,
        "a third of the classes": 2 * N_CLASSES,
        "half of the classes foreign": N_CLASSES,
    }


def halves(y_test, folder):
    """Held-out halves of all draws, and of those that are run where all samples are drawn."""
    folder.mkdir()
    path = written(numbered(len(y_test)), folder / "few.npz", y_test=y_test)
    given = {"methods": {"z": ZeroShot()}, "shots": [5], "settings": ["realistic"], "n_seeds": 30}
    rows = small_run([path], folder, **given)
    every = [tuple(held_out_classes(N_CLASSES, seed)) for seed in range(30)]
    run_of = [row["seed"] for row in rows if row["pool"] == "half of the classes foreign"]
    return set(every), [every[seed] for seed in run_of]


def test_each_half_of_the_classes_is_held_out_once(tmp_path):
    every, found = halves(np.arange(30) % N_CLASSES, tmp_path / "sets")
    assert len(found) == len(every) < 30
    assert set(found) == every


@pytest.mark.parametrize("known_at_first", [True, False])
def test_draws_that_hold_out_others_are_run_though_the_same_rows_are_judged(
    known_at_first, tmp_path
):
    """Test rows of a single class: they are judged wherever it is known, whatever is not."""
    held_out = held_out_classes(N_CLASSES, 0)
    known = np.setdiff1d(np.arange(N_CLASSES), held_out)
    code = (known if known_at_first else held_out)[0]
    every, found = halves(np.full(30, code), tmp_path / "sets")
    expected = {half for half in every if code not in half}
    assert len(found) == len(expected) > 1
    assert set(found) == expected


class Seeded(Recording):
    """Says which of its pools it was fitted to last, and with which seed."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    @property
    def n_steps_(self):
        return numbers(self.pool)[:3].tolist()

    @property
    def stop_time_(self):
        return self.random_state


def test_of_several_batches_seconds_are_means_and_choices_the_last(tmp_path, monkeypatch):
    ticks = itertools.accumulate(itertools.cycle([1, 2, 3]))  # from start to fit 2, to answer 3
    monkeypatch.setattr(unlabeled, "time", SimpleNamespace(perf_counter=ticks.__next__))
    path = written(numbered(600), tmp_path / "set.npz")
    rows = small_run([path], tmp_path, methods={"m": Seeded()}, settings=["transductive"],
                     n_seeds=2)  # fmt: skip
    for row in rows:
        assert (row["fit_seconds"], row["predict_seconds"]) == (2, 3)
        if row["pool"] == "test rows in batches":
            *_, last = batches(load_feature_set(path), 2, row["seed"])
            seen = {"n_steps_": numbers(last.X)[:3].tolist(), "stop_time_": row["seed"]}
            assert row["choices"] == seen
    assert len(rows) == 4


def test_pools_that_lie_elsewhere_are_no_reason_for_a_warning(tmp_path):
    """Few of the classes are asked for on purpose."""
    made = make_cross_modal(4, n_train=6, n_test=40, n_features=16, random_state=1)
    far = np.full_like(made.X_test, 3)
    path = write_feature_set(tmp_path / "set.npz", made, X_test=made.X_test / 10 + far)
    data = load_feature_set(path)
    X, y = data.X_train, data.y_train
    with pytest.warns(UserWarning, match="The unlabelled rows lie elsewhere"):
        FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=data.X_test)
    methods = {"flowalign": FlowMatchingAligner()}
    rows = small_run([path], tmp_path, methods=methods, shots=[5], settings=["transductive"])
    assert [row.get("error") for row in rows] == [None, None]


def test_pools_of_other_rows_are_run_though_their_labels_are_the_same(tmp_path):
    path = written(numbered(30), tmp_path / "set.npz", y_test=np.zeros(30, int))
    rows = small_run(
        [path], tmp_path, methods={"z": ZeroShot()}, shots=[5], settings=["realistic"], n_seeds=3
    )
    assert [row["seed"] for row in rows if row["pool"] == "imbalanced"] == [0, 1, 2]
