"""A row for each fit: what it says, and of which methods and draws there is one."""

import time

import numpy as np
import pytest
from benchmark_sets import METHODS, small_run, write_small_set
from sklearn.neighbors import KNeighborsClassifier

from flowalign.benchmark import load_feature_set, run
from flowalign.benchmark.adapters import CLIPAdapter
from flowalign.benchmark.peers import GDA, TipAdapter, ZeroShot
from flowalign.benchmark.store import read_rows


@pytest.fixture
def sets(tmp_path):
    return [write_small_set(tmp_path / "one.npz"), write_small_set(tmp_path / "two.npz", seed=1)]


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


def test_where_nothing_is_left_to_draw_there_is_one_draw(sets, tmp_path):
    rows = small_run(sets[:1], tmp_path / "out", shots=[4, 5, 6])
    seeds = {k: {r["seed"] for r in rows if r["n_shots"] == k} for k in (4, 5, 6)}
    assert seeds == {4: {0, 1, 2}, 5: {0}, 6: {0}}
