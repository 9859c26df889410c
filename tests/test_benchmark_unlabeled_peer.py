"""Peers that learn from unlabelled rows share one way to be fitted, asked and chosen for."""

import pickle
from typing import ClassVar

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone

from flowalign.benchmark.dirichlet_peer import EMDirichlet
from flowalign.benchmark.gaussian_peers import TransCLIP
from flowalign.benchmark.peers import ZeroShot
from flowalign.benchmark.unlabeled_peer import TransductivePeer
from flowalign.benchmark.unlabeled_peers import UNLABELED, SelfTraining
from flowalign.datasets import make_cross_modal

every = pytest.mark.parametrize("name", UNLABELED)
transductive = [name for name, peer in UNLABELED.items() if not peer.inductive]
inductive = [name for name, peer in UNLABELED.items() if peer.inductive]


@pytest.fixture(scope="module")
def data():
    """Six classes whose text is half a step off."""
    return make_cross_modal(
        6, n_train=4, n_test=40, n_features=24, misalignment=1, difficulty=1.5, random_state=3
    )


def fitted(peer, data, pool=None, **more):
    pool = data.X_test if pool is None else pool
    return clone(peer).fit(
        data.X_train, data.y_train, data.class_embeddings, X_unlabeled=pool, **more
    )


@every
def test_the_pool_is_classified_in_its_order(name, data):
    model = fitted(UNLABELED[name], data)
    assert model.classes_.tolist() == data.class_names
    proba = model.transduction_proba_
    assert proba.shape == (len(data.X_test), 6)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.classes_[proba.argmax(axis=1)], model.transduction_)
    order = np.random.default_rng(0).permutation(len(data.X_test))
    other = fitted(UNLABELED[name], data, data.X_test[order])
    np.testing.assert_allclose(other.transduction_proba_, proba[order], atol=1e-3)
    assert other.settings_ == model.settings_
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(model)).transduction_proba_, model.transduction_proba_
    )
    longer = fitted(UNLABELED[name], data, 3 * data.X_test)
    np.testing.assert_allclose(longer.transduction_proba_, proba, atol=1e-3)


@every
def test_easy_classes_are_told_apart_better_than_by_text(name, data):
    model = fitted(UNLABELED[name], data)
    alone = ZeroShot().fit(data.X_train, data.y_train, data.class_embeddings)
    assert (model.transduction_ == data.y_test).mean() > alone.score(data.X_test, data.y_test)


@every
def test_a_pool_of_one_row_and_one_sample_a_class(name, one_shot):
    model = fitted(UNLABELED[name], one_shot, one_shot.X_test[:1])
    assert model.chosen_on_ == "nothing"
    assert model.settings_ == UNLABELED[name].usual
    assert model.transduction_proba_.shape == (1, len(model.classes_))
    assert np.isfinite(model.transduction_proba_).all()


@pytest.mark.parametrize("name", transductive)
def test_rows_outside_the_pool_are_refused(name, data):
    model = fitted(UNLABELED[name], data)
    for ask in (model.predict, model.predict_proba):
        with pytest.raises(NotImplementedError, match="answers for the rows of X_unlabeled, by"):
            ask(data.X_test)


@pytest.mark.parametrize("name", inductive)
def test_rows_outside_the_pool_have_an_answer(name, data):
    model = fitted(UNLABELED[name], data, data.X_test[::2])
    proba = model.predict_proba(data.X_test[1::2])
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert model.score(data.X_test[1::2], data.y_test[1::2]) > 0.6


@every
@pytest.mark.parametrize("pool", [None, [], np.empty((0, 24))])
def test_no_pool_is_refused(name, pool, data):
    with pytest.raises(ValueError, match="learns from unlabelled rows and X_unlabeled has none"):
        UNLABELED[name].fit(data.X_train, data.y_train, data.class_embeddings, X_unlabeled=pool)


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (np.ones((3, 5)), "X_unlabeled is 5 wide and X is 24 wide"),
        (np.full((3, 24), np.nan), "Input X_unlabeled contains NaN"),
        (np.zeros((3, 24)), "X_unlabeled"),
        ([["a"] * 24], "X_unlabeled"),
    ],
)
def test_a_pool_that_is_no_features_is_refused(pool, said, data):
    with pytest.raises(ValueError, match=said):
        fitted(SelfTraining(), data, pool)


def test_held_out_rows_join_the_pool_while_settings_are_chosen(data, monkeypatch):
    seen = []
    original = TransCLIP._solve

    def watch(self, rows, known, *rest, **setting):
        seen.append((len(rows), (known >= 0).sum(), setting["gamma"]))
        return original(self, rows, known, *rest, **setting)

    monkeypatch.setattr(TransCLIP, "_solve", watch)
    model = fitted(TransCLIP(), data)
    assert model.chosen_on_ == "cross-validation"
    *choice, last = seen
    grid = TransCLIP.candidates["gamma"]
    assert choice == [(264, 12, gamma) for gamma in grid for _ in range(2)]
    assert last == (264, 24, model.settings_["gamma"])
    seen.clear()
    pool = data.X_test[20:]  # 20 rows of 50 are new
    model = fitted(TransCLIP(), data, pool, X_val=data.X_test[:50], y_val=data.y_test[:50])
    assert model.chosen_on_ == "validation data"
    *choice, last = seen
    assert choice == [(264, 24, gamma) for gamma in grid]
    assert last == (244, 24, model.settings_["gamma"])


class Echo(TransductivePeer):
    """Says the cosines of a row to the text."""

    candidates: ClassVar = {"factor": (-1.0, 1.0)}

    def __init__(self, factor="auto"):
        self.factor = factor

    def _solve(self, rows, known, text, shared, **setting):
        return setting["factor"] * (rows @ text.T)[known < 0]


def test_rows_that_join_the_pool_get_their_own_answers(data):
    model = fitted(Echo(), data)
    assert model.settings_ == {"factor": 1.0}
    text = model.class_embeddings_
    np.testing.assert_allclose(
        model.transduction_proba_, softmax(data.X_test @ text.T, axis=1), atol=1e-6
    )
    codes = np.searchsorted(model.classes_, data.y_train)
    E = np.stack([data.class_embeddings.to_dict()[name] for name in model.classes_])
    folds = model._cross_fit(data.X_train, codes, E)
    assert len(folds) == 4
    new = np.random.default_rng(0).standard_normal((2, 24)).astype(np.float32)
    new = np.concatenate([data.X_test[7:3:-1], new, data.X_test[:2]])  # some are in the pool
    for score, rows, _ in [*folds, (model._scores, new, None)]:
        np.testing.assert_allclose(score(rows, factor=1.0), rows @ text.T, atol=1e-6)


@pytest.mark.parametrize("peer", [EMDirichlet(), SelfTraining()])
def test_an_oracle_chooses_the_best_on_test(peer, data):
    rows = np.random.default_rng(0).permutation(len(data.X_test))
    pool, X_val, y_val = data.X_test[rows[:60]], data.X_test[rows[60:]], data.y_test[rows[60:]]
    oracle = fitted(peer, data, pool, X_val=X_val, y_val=y_val)
    ((parameter, grid),) = peer.candidates.items()
    hits = {}
    for value in grid:
        given = clone(peer).set_params(**{parameter: value})
        if peer.inductive:
            labels = fitted(given, data, pool).predict(X_val)
        else:
            labels = fitted(given, data, np.concatenate([pool, X_val])).transduction_[len(pool) :]
        hits[value] = (labels == y_val).sum()
    assert hits[oracle.settings_[parameter]] == max(hits.values())
    assert len(set(hits.values())) > 1


@pytest.mark.parametrize("peer", [EMDirichlet(), TransCLIP()])
def test_an_oracle_about_the_pool_is_the_best_that_there_is(peer, data):
    """Rows of the pool are judged where they are, not beside a copy of them."""
    rng = np.random.default_rng(1)
    noisy = data.X_test + rng.normal(0, 0.5, data.X_test.shape).astype(np.float32)
    oracle = fitted(peer, data, noisy, X_val=noisy, y_val=data.y_test)
    ((parameter, grid),) = peer.candidates.items()
    every = [fitted(clone(peer).set_params(**{parameter: value}), data, noisy) for value in grid]
    hits = [(model.transduction_ == data.y_test).sum() for model in every]
    assert len(set(hits)) > 1
    assert (oracle.transduction_ == data.y_test).sum() == max(hits)
