"""Unlabelled rows through the estimator."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

import flowalign
from flowalign import FlowMatchingAligner
from flowalign.datasets import make_cross_modal
from flowalign.persistence.file_format import pack, read


@pytest.fixture(scope="module")
def data():
    """Two labelled rows a class, and 200 of which the labels are not told."""
    return make_cross_modal(10, n_train=22, n_test=40, n_features=48, difficulty=3, random_state=1)


@pytest.fixture(scope="module")
def labelled(data):
    rank = np.concatenate([np.arange(np.sum(data.y_train == c)) for c in data.class_names])
    return rank < 2


@pytest.fixture
def small(velocity_field):
    def make(*args, **params):
        settings = {"max_iter": 3, "n_blocks": 1, "random_state": 0}
        return FlowMatchingAligner(*args, velocity_field=velocity_field, **settings | params)

    return make


def test_they_help(data, labelled, small):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    alone = small(data.class_embeddings).fit(X, y)
    found = small(data.class_embeddings).fit(X, y, X_unlabeled=pool)
    assert found.score(data.X_test, data.y_test) > alone.score(data.X_test, data.y_test) + 0.02
    truth = data.y_train[~labelled]
    assert np.mean(found.transduction_ == truth) > np.mean(alone.predict(pool) == truth) + 0.02
    proba = found.transduction_proba_
    assert proba.shape == (len(pool), 10)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.classes_[proba.argmax(axis=1)], found.transduction_)
    assert found.unlabeled_weight_.shape == found.class_agreement_.shape == (10,)
    assert (found.unlabeled_weight_ > 0).all()
    assert ((found.class_agreement_ > 0) & (found.class_agreement_ <= 1)).all()
    if found.velocity_field == "gaussian":
        assert 1 <= found.n_iter_ <= 5


def test_no_rows_are_as_none_given(data, labelled, small):
    X, y = data.X_train[labelled], data.y_train[labelled]
    alone, empty = (
        small(data.class_embeddings).fit(X, y, X_unlabeled=pool) for pool in (None, X[:0])
    )
    np.testing.assert_array_equal(
        empty.predict_proba(data.X_test), alone.predict_proba(data.X_test)
    )
    assert empty.unlabeled_weight_ is empty.class_agreement_ is None
    with pytest.raises(NotFittedError, match="There are no unlabelled rows"):
        empty.transduction_  # noqa: B018


def test_too_few_rows_change_nothing(data, labelled):
    """Fewer than two for each labelled class."""
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    alone = FlowMatchingAligner(data.class_embeddings).fit(X, y)
    few, enough = (
        FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=pool[::10][:n])
        for n in (19, 20)
    )
    np.testing.assert_allclose(
        few.predict_proba(data.X_test), alone.predict_proba(data.X_test), atol=1e-6
    )
    np.testing.assert_allclose(
        few.transduction_proba_, alone.predict_proba(pool[::10][:19]), atol=0.35
    )
    np.testing.assert_array_equal(few.transduction_, alone.predict(pool[::10][:19]))
    assert (few.unlabeled_weight_ == 0).all()
    assert (enough.unlabeled_weight_ > 0).any()


def test_an_answer_is_the_mean_of_two(data, labelled):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    alone = FlowMatchingAligner(data.class_embeddings).fit(X, y)
    found = FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=pool)
    rows = torch.tensor(data.X_test / np.linalg.norm(data.X_test, axis=1, keepdims=True)).float()
    rows = rows.to(alone.device_)
    both, without = (a._classifier.log_proba(rows).exp() for a in (found, alone))
    torch.testing.assert_close(found._classifier.without.log_proba(rows).exp(), without)
    told = found._classifier.with_rows.log_proba(rows).exp()
    torch.testing.assert_close(both, (told + without) / 2)
    assert told.amax(dim=1).mean() > without.amax(dim=1).mean()  # surer of itself


def test_rows_of_y_without_a_label_join_them(data, labelled, small):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    given = small(data.class_embeddings).fit(X, y, X_unlabeled=pool)
    marked = np.where(labelled, data.y_train, "to do")
    joined = small(data.class_embeddings, unlabeled_label="to do").fit(data.X_train, marked)
    np.testing.assert_allclose(
        joined.predict_proba(data.X_test), given.predict_proba(data.X_test), atol=1e-5
    )
    np.testing.assert_array_equal(joined.transduction_, given.transduction_)
    half = small(data.class_embeddings, unlabeled_label="to do").fit(
        np.concatenate([X, pool[100:]]),
        np.concatenate([y, np.full(len(pool) - 100, "to do")]),
        X_unlabeled=pool[:100],
    )
    np.testing.assert_array_equal(half.transduction_, given.transduction_)


def test_numbers_as_labels(data, labelled):
    codes = np.searchsorted(data.class_names, data.y_train)
    aligner = FlowMatchingAligner(unlabeled_label=-1, unknown_label=-2)
    aligner.fit(data.X_train, np.where(labelled, codes, -1))
    np.testing.assert_array_equal(aligner.classes_, np.arange(10))
    assert len(aligner.transduction_) == np.sum(~labelled)
    assert np.mean(aligner.transduction_ == -2) < 0.3


def test_unlike_rows_are_unknown(data, labelled, small):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled].copy()
    pool[:20] = np.random.default_rng(0).normal(size=(20, 48))
    aligner = small(data.class_embeddings, unknown_label="none").fit(X, y, X_unlabeled=pool)
    refused = aligner.transduction_ == "none"
    np.testing.assert_array_equal(refused, aligner.score_samples(pool) < aligner.unknown_threshold_)
    assert refused[:20].mean() > 2 * refused[20:].mean() > 0
    assert aligner.transduction_proba_.shape == (len(pool), 10)


def test_rows_of_elsewhere_are_warned_of(data, labelled):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    elsewhere = pool + 3 * np.random.default_rng(0).normal(size=48)
    aligner = FlowMatchingAligner(data.class_embeddings, normalize=False)
    with pytest.warns(UserWarning, match="unlabelled rows lie elsewhere .* least in"):
        aligner.fit(X, y, X_unlabeled=elsewhere)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aligner.fit(X, y, X_unlabeled=pool)


def test_files_and_pickles_keep_the_model_and_not_the_rows(data, labelled, small, tmp_path):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    aligner = small(data.class_embeddings).fit(X, y, X_unlabeled=pool)
    flowalign.save(aligner, tmp_path / "model")
    size = len(pickle.dumps(aligner))
    assert size == len(pickle.dumps(small(data.class_embeddings).fit(X, y, X_unlabeled=pool[:150])))
    for kept in (flowalign.load(tmp_path / "model"), pickle.loads(pickle.dumps(aligner))):
        np.testing.assert_array_equal(
            kept.predict_proba(data.X_test), aligner.predict_proba(data.X_test)
        )
        np.testing.assert_array_equal(kept.class_agreement_, aligner.class_agreement_)
        np.testing.assert_array_equal(kept.unlabeled_weight_, aligner.unlabeled_weight_)
        with pytest.raises(NotFittedError, match="loaded, unpickled or copied"):
            kept.transduction_  # noqa: B018


def test_files_without_parts_of_it_are_refused(data, labelled, tmp_path):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    path = tmp_path / "model"
    flowalign.save(FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=pool), path)
    header, arrays, _ = read(path)
    beginnings = ("inductive", "held.", "class_agreement")
    names = [name for name in arrays if name.startswith(beginnings)]
    assert len(names) > 8
    for name in names:
        if name.endswith("scatter"):  # of fewer rows is a scatter too
            continue
        for changed in (
            {k: v for k, v in arrays.items() if k != name},
            arrays | {name: -np.ones_like(arrays[name])[:-1]},
        ):
            path.write_bytes(pack(header, changed))
            with pytest.raises(ValueError, match="no aligner that can be restored"):
                flowalign.load(path)
    for name in ("held.counts", "class_agreement"):
        path.write_bytes(pack(header, arrays | {name: -arrays[name]}))
        with pytest.raises(ValueError, match="are negative"):
            flowalign.load(path)


def test_a_memory_mapped_file(data, labelled, tmp_path):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    np.save(tmp_path / "pool.npy", pool.astype(np.float16))
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    one, other = (
        FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=rows)
        for rows in (mapped, pool.astype(np.float16).astype(np.float32))
    )
    assert np.shares_memory(one._pool.X, mapped)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize(
    "form", [pd.DataFrame, torch.tensor, list], ids=["frame", "tensor", "list"]
)
def test_forms_of_rows(form, data, labelled):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    one, other = (
        FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=rows)
        for rows in (form(pool), pool)
    )
    np.testing.assert_allclose(one.transduction_proba_, other.transduction_proba_, atol=1e-5)


# ------------------------------------------------------------------ in the company of others


def test_they_go_through_a_pipeline_and_a_search(data, labelled):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = make_pipeline(
            StandardScaler(), Normalizer(), FlowMatchingAligner(data.class_embeddings),
            transform_input=["X_unlabeled"],
        )  # fmt: skip
        pipe.fit(X, y, X_unlabeled=pool)
        search = GridSearchCV(FlowMatchingAligner(data.class_embeddings), {"n_steps": [0, 5]}, cv=2)
        search.fit(X, y, X_unlabeled=pool)
    before = make_pipeline(StandardScaler(), Normalizer()).fit(X)
    expected = FlowMatchingAligner(data.class_embeddings).fit(
        before.transform(X), y, X_unlabeled=before.transform(pool)
    )
    np.testing.assert_array_equal(pipe[-1].transduction_, expected.transduction_)
    assert len(search.best_estimator_.transduction_) == len(pool)


def test_cross_validation_splits_rows_marked_in_y(data, labelled):
    y = np.where(labelled, data.y_train, "to do")
    aligner = FlowMatchingAligner(data.class_embeddings, unlabeled_label="to do")
    scores = cross_val_score(aligner, data.X_train, y, cv=2, error_score="raise")
    assert (scores < 0.2).all()  # rows without a label cannot be right


def test_a_cached_fit(data, labelled, tmp_path):
    X, y, pool = data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]
    aligner = FlowMatchingAligner(data.class_embeddings, memory=str(tmp_path))
    first, again, other = (
        aligner.fit(X, y, X_unlabeled=rows).predict_proba(data.X_test)
        for rows in (pool, pool, pool[:50])
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((4, 5)), "X_unlabeled is 5 wide and X is 48 wide.*transform_input"),
        (np.full((4, 48), np.nan), "X_unlabeled contains NaN or infinity, first in row 0"),
        (np.zeros((4, 48)), "X_unlabeled has rows of zeros"),
        (np.full((4, 48), "x"), "X_unlabeled must be features like X"),
        (np.ones(48), "X_unlabeled must be features like X"),
        ([], "X_unlabeled must be features like X: there are 0 of them, without a width"),
    ],
)
def test_wrong_rows(rows, message, data, labelled):
    aligner = FlowMatchingAligner(data.class_embeddings)
    with pytest.raises(ValueError, match=message):
        aligner.fit(data.X_train[labelled], data.y_train[labelled], X_unlabeled=rows)
    assert not hasattr(aligner, "classes_")


def test_columns_in_another_order(data, labelled):
    X, pool = (
        pd.DataFrame(rows).add_prefix("f")
        for rows in (data.X_train[labelled], data.X_train[~labelled])
    )
    with pytest.raises(ValueError, match="X_unlabeled has columns 'f47'"):
        FlowMatchingAligner().fit(
            X, data.y_train[labelled], X_unlabeled=pool[pool.columns[::-1]]
        )  # fmt: skip


def test_rows_need_a_labelled_one(data):
    with pytest.raises(ValueError, match="no labelled one to begin with"):
        FlowMatchingAligner(data.class_embeddings).fit(
            data.X_train[:0], [], X_unlabeled=data.X_train
        )


def test_labels_that_cannot_be(data):
    with pytest.raises(ValueError, match="unlabeled_label and unknown_label are both 'none'"):
        FlowMatchingAligner(unlabeled_label="none", unknown_label="none").fit(
            data.X_train, data.y_train
        )
    with pytest.raises(TypeError, match="unlabeled_label=-1 must be a string"):
        FlowMatchingAligner(unlabeled_label=-1).fit(data.X_train, data.y_train)
