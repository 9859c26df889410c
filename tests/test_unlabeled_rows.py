"""Unlabelled rows on their way into a fit: their forms, their marks, and what they leave behind."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

from flowalign import FlowMatchingAligner, blocks
from flowalign.datasets import make_cross_modal
from flowalign.gaussian.unlabeled import log_proba_without_each
from flowalign.unlabeled_rows import UnlabeledRows


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(10, n_train=22, n_test=40, n_features=48, difficulty=3, random_state=1)


@pytest.fixture(scope="module")
def labelled(data):
    return np.arange(len(data.y_train)) % 22 < 2


@pytest.fixture
def parts(data, labelled):
    return data.X_train[labelled], data.y_train[labelled], data.X_train[~labelled]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("normalize", [True, False])
def test_rows_that_cannot_be_written(normalize, data, parts, tmp_path):
    X, y, pool = parts
    np.save(tmp_path / "pool.npy", pool.astype(np.float32))
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    torch.set_warn_always(True)  # it would warn once a process
    try:
        aligner = FlowMatchingAligner(data.class_embeddings, normalize=normalize)
        one = aligner.fit(X, y, X_unlabeled=mapped).transduction_proba_
    finally:
        torch.set_warn_always(False)
    np.testing.assert_array_equal(one, aligner.fit(X, y, X_unlabeled=pool).transduction_proba_)
    np.testing.assert_array_equal(mapped, pool.astype(np.float32))


@pytest.mark.parametrize("scale", [1e-50, 1e50, 1e200])
def test_rows_beyond_the_range_of_float32(scale, data, parts):
    """Scaled to length 1 they are like any others."""
    X, y, pool = (part.astype(float) if part.dtype.kind == "f" else part for part in parts)
    aligner = FlowMatchingAligner(data.class_embeddings)
    expected = aligner.fit(X, y, X_unlabeled=pool).transduction_proba_
    found = aligner.fit(X * scale, y, X_unlabeled=pool * scale).transduction_proba_
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_lists_and_columns_of_rows(data, parts):
    X, y, pool = parts
    aligner = FlowMatchingAligner(data.class_embeddings)
    expected = aligner.fit(X, y, X_unlabeled=pool).transduction_proba_
    for rows in (
        [torch.tensor(row) for row in pool],
        pd.Series(list(pool)),
        pd.DataFrame({"feature": list(pool)}),
        pd.DataFrame(pool).convert_dtypes(),
        pool.astype(">f4"),
    ):
        found = aligner.fit(X, y, X_unlabeled=rows).transduction_proba_
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["unlabeled_label", "unknown_label"])
@pytest.mark.parametrize(
    "label",
    [pd.NA, float("nan"), np.array([1, 2]), [-1], 0.5],
    ids=["NA", "NaN", "array", "list", "half"],
)
def test_what_is_no_label(name, label, data):
    codes = np.searchsorted(data.class_names, data.y_train)
    with pytest.raises(TypeError, match=f"{name} must be a string, a whole number or None"):
        FlowMatchingAligner(**{name: label}).fit(data.X_train, codes)


@pytest.mark.parametrize("name", ["unlabeled_label", "unknown_label"])
@pytest.mark.parametrize("label", [False, True])
def test_a_switch_is_no_label(name, label, data):
    """False would be class 0, whose rows would be gone."""
    codes = np.searchsorted(data.class_names, data.y_train)
    with pytest.raises(TypeError, match=f"{name}={label} is no label.*None switches it off"):
        FlowMatchingAligner(**{name: label}).fit(data.X_train, codes)


def test_marks_in_nullable_columns(data, labelled):
    codes = np.where(labelled, np.searchsorted(data.class_names, data.y_train), -1)
    expected = FlowMatchingAligner(unlabeled_label=-1).fit(data.X_train, codes).transduction_
    for dtype in ("Int64", "Float64"):
        column = pd.Series(codes, dtype=dtype)
        found = FlowMatchingAligner(unlabeled_label=-1).fit(data.X_train, column)
        np.testing.assert_array_equal(found.classes_, np.arange(10))
        np.testing.assert_array_equal(found.transduction_, expected)


def test_marked_rows_are_named_in_messages(data, labelled):
    X, y = data.X_train.copy(), np.where(labelled, data.y_train, "to do")
    X[5] = 0
    with pytest.raises(ValueError, match="rows of X marked unlabeled_label.* rows of zeros.*: 3"):
        FlowMatchingAligner(data.class_embeddings, unlabeled_label="to do").fit(X, y)


@pytest.mark.parametrize("named", [True, False])
def test_all_rows_without_a_label(named, data):
    aligner = FlowMatchingAligner(data.class_embeddings if named else None, unlabeled_label="to do")
    message = "marked unlabeled_label, but no labelled one" if named else "Give labelled samples"
    with pytest.raises(ValueError, match=message):
        aligner.fit(data.X_train, np.full(len(data.X_train), "to do"))


def test_marks_beside_unknown_rows_and_validation_data(data, labelled):
    y = np.where(labelled, data.y_train, "to do")
    y[3:6] = "none"
    y_val = np.concatenate([data.y_test[:-2], ["to do", "none"]])
    aligner = FlowMatchingAligner(
        data.class_embeddings, unlabeled_label="to do", unknown_label="none"
    ).fit(data.X_train, y, X_val=data.X_test, y_val=y_val)
    assert len(aligner.transduction_) == np.sum(y == "to do")
    np.testing.assert_array_equal(aligner.classes_, data.class_names)


def test_a_warning_that_is_an_error_leaves_the_old_state(data, parts):
    X, y, pool = parts
    aligner = FlowMatchingAligner(data.class_embeddings, normalize=False)
    before = dict(vars(aligner.fit(X, y, X_unlabeled=pool)))
    elsewhere = pool + 3 * np.random.default_rng(0).normal(size=48)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="lie elsewhere"):
            aligner.fit(X, y, X_unlabeled=elsewhere)
    assert vars(aligner).keys() == before.keys()
    assert all(vars(aligner)[name] is value for name, value in before.items())


def test_a_fit_without_rows_forgets_those_of_the_fit_before(data, parts):
    X, y, pool = parts
    aligner = FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=pool).fit(X, y)
    assert not hasattr(aligner, "transduction_")
    assert not hasattr(aligner, "transduction_proba_")
    assert aligner.unlabeled_weight_ is aligner.class_agreement_ is None
    assert aligner.n_iter_ == 1
    alone = FlowMatchingAligner(data.class_embeddings).fit(X, y)
    np.testing.assert_array_equal(
        aligner.predict_proba(data.X_test), alone.predict_proba(data.X_test)
    )


@pytest.mark.parametrize("n_unlabeled", [200, 15])
def test_copies_of_labelled_rows_do_not_raise_the_threshold(n_unlabeled, data, parts):
    """One of two equal rows gives the other away, and would seem to look very much like it."""
    X, y, pool = parts
    once, twice = (
        FlowMatchingAligner(data.class_embeddings, unknown_label="none").fit(
            np.tile(X, (n, 1)), np.tile(y, n), X_unlabeled=pool[:n_unlabeled]
        )
        for n in (1, 2)
    )
    assert twice.unknown_threshold_ < 1.5 * once.unknown_threshold_
    if n_unlabeled == 200:
        assert np.mean(twice.transduction_ == "none") < 0.1
        assert np.mean(twice.predict(data.X_test) == "none") < 0.2


def test_evidence_stays_where_labelled_rows_have_copies(data, parts):
    X, y, pool = parts
    for n, same in ((1, False), (2, True)):
        aligner = FlowMatchingAligner(data.class_embeddings)
        aligner.fit(np.tile(X, (n, 1)), np.tile(y, n), X_unlabeled=pool)
        evidence, alone = aligner.gaussian_model_.evidence, aligner._inductive_model.evidence
        assert (evidence == alone) is same


def test_a_row_is_judged_without_itself(data, parts, monkeypatch):
    X, y, pool = parts
    aligner = FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=pool)
    x = torch.from_numpy(next(iter(aligner._pool.blocks(1)))[1]).to(aligner.device_)
    both, model = aligner._classifier, aligner.gaussian_model_
    _, honest = log_proba_without_each(both.with_rows, model, x, aligner._assigned)
    expected = (honest.exp() + both.without.log_proba(x).exp()) / 2
    monkeypatch.setitem(blocks.STATE_BYTES, "cpu", 7 * 4 * 48)
    monkeypatch.setitem(blocks.STATE_BYTES, "cuda", 7 * 4 * 48)
    np.testing.assert_allclose(aligner.transduction_proba_, expected.cpu(), atol=1e-5)
    assert (expected - both.log_proba(x).exp()).abs().max() > 1e-2


def test_blocks_are_cut_for_the_widest_array_of_a_row(data, parts, monkeypatch):
    X, y, pool = parts
    widths, cut = [], UnlabeledRows.blocks

    def blocks_of(rows, width):
        widths.append(width)
        return cut(rows, width)

    monkeypatch.setattr(UnlabeledRows, "blocks", blocks_of)
    aligner = FlowMatchingAligner(data.class_embeddings).fit(X, y, X_unlabeled=pool)
    assert len(aligner.transduction_) == len(pool)
    assert len(widths) == 2 * aligner.n_iter_ + 2
    assert min(widths) >= 48


@pytest.mark.parametrize(("value", "message"), [(0, "rows of zeros.*: 150"), (np.nan, "row 150")])
def test_wrong_rows_are_counted_over_all_blocks(value, message, data, parts, monkeypatch):
    X, y, pool = parts
    monkeypatch.setitem(blocks.STATE_BYTES, "cpu", 7 * 4 * 48)
    pool = pool.copy()
    pool[150] = value
    with pytest.raises(ValueError, match=message):
        FlowMatchingAligner(data.class_embeddings, device="cpu").fit(X, y, X_unlabeled=pool)


def test_rows_of_zeros_beside_counts(data, parts):
    X, y, pool = (np.round(40 * p).astype(int) if p.dtype.kind == "f" else p for p in parts)
    pool[3] = 0
    aligner = FlowMatchingAligner()
    for rows in (pool, pool.astype(float)):
        assert len(aligner.fit(X, y, X_unlabeled=rows).transduction_) == len(pool)
    with pytest.raises(ValueError, match="rows of zeros"):
        aligner.fit(X.astype(float), y, X_unlabeled=pool.astype(float))


def test_the_warning_names_the_classes_that_disagree_most(data, parts):
    X, y, pool = parts
    aligner = FlowMatchingAligner(data.class_embeddings, normalize=False)
    elsewhere = pool + 3 * np.random.default_rng(0).normal(size=48)
    with pytest.warns(UserWarning, match="lie elsewhere") as caught:
        aligner.fit(X, y, X_unlabeled=elsewhere)
    worst = aligner.classes_[aligner.class_agreement_.argmin()]
    assert f"least in '{worst}'" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_before_a_fit_there_is_none():
    with pytest.raises(NotFittedError, match="not fitted yet"):
        FlowMatchingAligner(unknown_label="none").transduction_  # noqa: B018
