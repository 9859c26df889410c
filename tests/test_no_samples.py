"""A fit without samples is zero-shot classification."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from flowalign import ClassEmbeddings, FlowMatchingAligner, SavedAligner, load, save
from flowalign.datasets import make_cross_modal

FIELDS = ["gaussian", "mlp"]


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(7, n_test=20, n_features=24, difficulty=3, random_state=0)


@pytest.fixture(scope="module")
def cosines(data):
    return cosine_similarity(data.X_test.astype(float), data.class_embeddings.vectors)


@pytest.fixture(params=FIELDS)
def model(data, request):
    aligner = FlowMatchingAligner(data.class_embeddings, velocity_field=request.param)
    return aligner.fit(np.empty((0, 24)), [])


def test_each_row_gets_the_class_of_the_most_similar_embedding(model, data, cosines):
    expected = data.class_embeddings.classes[cosines.argmax(axis=1)]
    assert 0.3 < (expected == data.y_test).mean() < 1  # neither hopeless nor trivial
    np.testing.assert_array_equal(model.predict(data.X_test), expected)
    np.testing.assert_allclose(
        model.predict_proba(data.X_test), softmax(100 * cosines, axis=1), rtol=1e-3, atol=1e-6
    )
    assert model.score(data.X_test, data.y_test) == (expected == data.y_test).mean()
    assert model.classes_.tolist() == data.class_names
    assert (model.n_steps_, model.logit_scale_, model.stop_source_) == (0, 100, "no samples")
    assert model.stop_scores_ is None
    assert model.joint_


@pytest.mark.parametrize("solver", ["euler", "rk4", "explicit_adams", "dopri5"])
def test_every_step_says_the_same(solver, model, data):
    unit = model.transform(data.X_test)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    labels, proba = model.predict(data.X_test), model.predict_proba(data.X_test)
    model.set_params(solver=solver)
    # An adaptive solver interpolates between its own steps.
    rounding = {"rtol": 1e-4, "atol": 1e-6} if solver == "dopri5" else {"rtol": 0, "atol": 0}
    for stage, p in zip(
        model.staged_predict(data.X_test), model.staged_predict_proba(data.X_test), strict=True
    ):
        np.testing.assert_array_equal(stage, labels)
        np.testing.assert_allclose(p, proba, **rounding)
    model.set_params(n_steps=7)
    np.testing.assert_allclose(model.transform(data.X_test), unit, **rounding)
    np.testing.assert_allclose(model.predict_proba(data.X_test), proba, **rounding)


@pytest.mark.parametrize(
    "y",
    [
        [], (), np.empty(0), np.empty(0, int), np.empty(0, "U3"), np.empty(0, object),
        torch.empty(0), pd.Series([], dtype="Int64"), pd.Series([], dtype="string"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("labels", [["b", "a", "c"], [3, 1, 2], [True, False]], ids=str)
def test_no_labels_are_of_every_dtype(y, labels):
    X, E = np.empty((0, 4)), np.eye(4)[: len(labels)]
    for given in (
        ClassEmbeddings(labels, E), dict(zip(labels, E, strict=True)), pd.DataFrame(E, labels),
    ):  # fmt: skip
        model = FlowMatchingAligner().fit(X, y, given)
        assert model.predict(E).tolist() == labels
    assert FlowMatchingAligner(given).fit(torch.empty(0, 4), y).predict(E).tolist() == labels


def test_it_is_an_estimator_like_any_other(model, data, tmp_path):
    expected = model.predict_proba(data.X_test)
    save(model, tmp_path / "model")
    for copy in (
        load(tmp_path / "model"),
        SavedAligner(tmp_path / "model"),
        pickle.loads(pickle.dumps(model)),
        clone(model).fit(np.empty((0, 24)), []),
        make_pipeline(FunctionTransformer(), clone(model)).fit(np.empty((0, 24)), []),
    ):
        np.testing.assert_array_equal(copy.predict_proba(data.X_test), expected)
    assert load(tmp_path / "model").logit_scale_ == 100


def test_names_of_features_are_kept(data):
    frame = pd.DataFrame(data.X_test).add_prefix("f")
    model = FlowMatchingAligner(data.class_embeddings).fit(frame[:0], [])
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[frame.columns[::-1]])


@pytest.mark.parametrize("velocity_field", FIELDS)
def test_validation_data_calibrate_it(velocity_field, data, cosines):
    model = FlowMatchingAligner(data.class_embeddings, velocity_field=velocity_field)
    model.fit(np.empty((0, 24)), [], X_val=data.X_test, y_val=data.y_test)
    assert (model.stop_source_, model.n_steps_) == ("validation data", 0)
    codes = np.searchsorted(data.class_embeddings.classes, data.y_test)
    losses = {
        scale: -log_softmax(scale * cosines, axis=1)[np.arange(len(codes)), codes].mean()
        for scale in (model.logit_scale_ / 2, model.logit_scale_, model.logit_scale_ * 2, 100)
    }
    assert min(losses, key=losses.get) == model.logit_scale_


def test_numbers_are_taken_as_they_are(data):
    model = FlowMatchingAligner(data.class_embeddings, n_steps=3, logit_scale=5.0)
    model.fit(np.empty((0, 24)), [])
    assert (model.n_steps_, model.logit_scale_, model.stop_source_) == (3, 5, None)


@pytest.mark.parametrize(
    ("X", "class_embeddings", "params", "message"),
    [
        ((0, 4), None, {}, "0 sample.*no class_embeddings.*zero-shot"),
        ((0,), {"a": np.ones(4)}, {}, r"X has 0 sample\(s\) and no width.*shape \(0, d\)"),
        ((0, 0), {"a": np.ones(4)}, {}, r"0 feature\(s\)"),
        ((0, 4), np.eye(4), {}, "4 rows without labels.*ClassEmbeddings"),
        ((0, 5), {"a": np.ones(4)}, {}, "X has no samples.*4 wide where X is 5 wide"),
        ((0, 5), {"a": np.ones(4)}, {"joint": True}, "X has no samples.*4 wide where X is 5 wide"),
        ((0, 4), {"a": np.ones(4)}, {"joint": False}, "X has no samples to map.*joint='auto'"),
    ],
)
@pytest.mark.parametrize("velocity_field", FIELDS)
def test_what_cannot_be_done_without_samples(X, class_embeddings, params, message, velocity_field):
    model = FlowMatchingAligner(velocity_field=velocity_field, **params)
    with pytest.raises(ValueError, match=message):
        model.fit(np.empty(X), [], class_embeddings)


@pytest.mark.parametrize(("n_rows", "n_labels"), [(0, 2), (2, 0)])
def test_samples_and_labels_pair_up(n_rows, n_labels):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        FlowMatchingAligner().fit(np.eye(4)[:n_rows], ["a"] * n_labels, {"a": np.ones(4)})
