"""Settings with unlabelled rows: what pools are made of, what is judged, and what a report says."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from benchmark_rows import make
from feature_files import write_feature_set
from scipy.special import softmax
from sklearn.base import BaseEstimator

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.benchmark import load_feature_set, run, run_unlabeled, write_report
from flowalign.benchmark.__main__ import main
from flowalign.benchmark.feature_sets import FeatureSet
from flowalign.benchmark.open_set import held_out_classes
from flowalign.benchmark.peers import GDA, ZeroShot
from flowalign.benchmark.pools import (
    BATCH,
    POOLS,
    SETTINGS,
    all_test_rows,
    batches,
    few_classes,
    foreign,
    imbalanced,
    undrawn,
)
from flowalign.benchmark.store import read_rows
from flowalign.benchmark.unlabeled import WITHOUT
from flowalign.datasets import make_cross_modal

N_CLASSES = 6


def numbered(n_test, n_train=5):
    """A set whose rows are known by their first feature."""
    y_train = np.repeat(np.arange(N_CLASSES), n_train)
    y_test = np.arange(n_test) % N_CLASSES

    def features(y, first):
        X = np.zeros((len(y), 3), np.float32)
        X[:, 0], X[:, 1] = first + np.arange(len(y)), 1
        return X

    table = ClassEmbeddings(range(N_CLASSES), np.eye(N_CLASSES, dtype=np.float32))
    train, test = features(y_train, 10_000), features(y_test, 0)
    return FeatureSet("numbered", train, y_train, test, y_test, table, "")


def numbers(X):
    return X[:, 0].astype(int)


@pytest.mark.parametrize("name", POOLS)
def test_judged_rows_have_their_labels_and_places(name):
    data = numbered(1300)
    for seed in range(3):
        cases = POOLS[name](data, 2, seed)
        assert cases
        for case in cases:
            rows = numbers(case.X)
            np.testing.assert_array_equal(data.y_test[rows], case.y)
            assert len(np.unique(rows)) == len(rows) > 0
            if case.rows is not None:
                np.testing.assert_array_equal(case.unlabeled[case.rows], case.X)
                assert (numbers(case.unlabeled) < 10_000).all()


def test_undrawn_rows_are_the_training_rows_that_are_no_support_samples():
    data = numbered(12)
    (case,) = undrawn(data, 2, 0)
    drawn = data.draw(2, 0)
    assert sorted([*numbers(case.unlabeled) - 10_000, *drawn]) == list(range(30))
    assert case.rows is None
    np.testing.assert_array_equal(case.X, data.X_test)
    assert undrawn(data, 5, 0) == []


def test_batches_are_apart_and_at_most_four():
    for n, sizes in [(100, [100]), (BATCH + 5, [BATCH]), (1300, [BATCH] * 4)]:
        found = batches(numbered(n), 1, 0)
        assert [len(case.unlabeled) for case in found] == sizes
        rows = np.concatenate([numbers(case.X) for case in found])
        assert len(np.unique(rows)) == len(rows)
    one, other = (batches(numbered(1300), 1, seed)[0] for seed in (0, 1))
    assert set(numbers(one.X)) != set(numbers(other.X))


def test_some_classes_are_frequent_and_some_rare_in_imbalanced_pools():
    """Even shares are a sixth, and draws without weights stay within .12 and .21."""
    pools = [imbalanced(numbered(1200), 1, seed)[0].y for seed in range(40)]
    shares = np.array([np.bincount(y, minlength=N_CLASSES) / 400 for y in pools])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares.max(axis=1).mean() > 2 / 6
    assert shares.min(axis=1).mean() < 1 / 18
    assert set(shares.argmax(axis=1)) == set(range(N_CLASSES))


def test_of_few_classes_all_rows_are_there_and_no_others():
    found = [few_classes(numbered(60), 1, seed)[0] for seed in range(6)]
    assert all(np.bincount(case.y, minlength=6).tolist().count(10) == 2 for case in found)
    assert all(len(case.y) == 20 for case in found)
    assert len({tuple(np.unique(case.y)) for case in found}) > 1


def test_foreign_rows_are_in_the_pool_and_are_not_judged():
    (case,) = foreign(numbered(60), 1, 3)
    absent = held_out_classes(N_CLASSES, 3)
    np.testing.assert_array_equal(case.absent, absent)
    assert len(case.unlabeled) == 60
    assert len(case.y) == 30
    assert not np.isin(case.y, absent).any()


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


@pytest.fixture
def path(tmp_path):
    data = numbered(300)
    table = data.class_embeddings
    arrays = {name: getattr(data, name) for name in ("X_train", "y_train", "X_test", "y_test")}
    np.savez(tmp_path / "one.npz", **arrays, class_embeddings=table.vectors)
    return tmp_path / "one.npz"


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


def test_a_set_without_known_rows_has_no_foreign_pool():
    data = numbered(30)
    absent = held_out_classes(N_CLASSES, 0)
    assert foreign(replace(data, y_test=np.full(30, absent[0])), 1, 0) == []


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
    assert page.count("all at once and without labels") == 1
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


def test_of_all_test_rows_none_is_left_out():
    (case,) = all_test_rows(numbered(50), 1, 0)
    assert numbers(case.X).tolist() == list(range(50))
