"""Predicting: stages, stops, dtypes, blocks, and rows that do not know of one another."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from flowalign import ClassEmbeddings, FlowMatchingAligner, blocks
from flowalign.datasets import make_cross_modal
from flowalign.ode import SOLVERS
from flowalign.row_blocks import RowBlocks


def sizes_of_blocks(monkeypatch):
    """Collect how many rows are normalised at a time from now on."""
    sizes, prepared = [], RowBlocks._prepared

    def watched(parts, x):
        sizes.append(len(x))
        return prepared(parts, x)

    monkeypatch.setattr(RowBlocks, "_prepared", watched)
    return sizes


# ------------------------------------------------------------------ steps and stages


def test_no_steps_return_the_normalised_input(model, X):
    model.set_params(n_steps=0)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(model.transform(3 * X), unit, rtol=1e-12)


def test_no_steps_are_zero_shot(model, data, X):
    model.set_params(n_steps=0, logit_scale=100)
    E = np.stack(list(data.class_embeddings.to_dict().values()))
    expected = cosine_similarity(X, E)
    np.testing.assert_allclose(model.decision_function(X), 100 * expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.predict(X), model.classes_[expected.argmax(axis=1)])


@pytest.mark.parametrize("solver", ["euler", "midpoint", "explicit_adams", "dopri5"])
def test_stages_are_the_stops(solver, model, X):
    model.set_params(solver=solver)
    transformed, predicted, proba = (
        list(stages(X))
        for stages in (model.staged_transform, model.staged_predict, model.staged_predict_proba)
    )
    assert len(transformed) == len(predicted) == len(proba) == 11
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if solver == "dopri5" else {"rtol": 0, "atol": 0}
    proba_tolerance = {"rtol": 1e-2, "atol": 1e-4} if solver == "dopri5" else {"rtol": 1e-6}
    for k in (0, 1, 4, 10):
        model.set_params(n_steps=k)
        np.testing.assert_allclose(transformed[k], model.transform(X), **tolerance)
        np.testing.assert_allclose(transformed[k], model.trajectory(X)[-1], **tolerance)
        np.testing.assert_array_equal(predicted[k], model.predict(X))
        # Also the temperature is that of the step.
        np.testing.assert_allclose(proba[k], model.predict_proba(X), **proba_tolerance)


def test_trajectory_follows_the_field(model, X):
    model.set_params(n_steps=4, step_size=0.2)
    states = model.trajectory(X)
    assert states.shape == (5, *X.shape)
    field = model.velocity_field_
    for k in range(4):
        with torch.no_grad():
            t, x = (
                torch.tensor(v, dtype=torch.float32, device=model.device_)
                for v in (0.2 * k, states[k])
            )
            velocity = field(t, x).cpu().numpy()
        np.testing.assert_allclose(states[k + 1], states[k] + 0.2 * velocity, atol=1e-5)


@pytest.mark.parametrize(
    ("step_size", "n_stages"), [(0.1, 11), (1 / 3, 4), (0.3, 4), (1.0, 2), (1 / 49, 50)]
)
def test_stages_fill_the_flow(step_size, n_stages, model, X):
    model.set_params(step_size=step_size, n_steps=0)
    assert len(list(model.staged_predict(X))) == n_stages


def test_the_stop_acts_without_a_refit(model, X):
    model.set_params(n_steps=2)
    assert (model.n_steps_, model.stop_time_) == (2, 0.2)
    early = model.transform(X)
    model.set_params(n_steps=5, step_size=0.2)
    assert (model.n_steps_, model.stop_time_) == (5, 1.0)
    assert not np.allclose(model.transform(X), early)
    model.set_params(n_steps=6)
    with pytest.raises(ValueError, match="n_steps=6.*at most 5"):
        model.predict(X)


def test_the_flow_approaches_the_classes_of_the_support_set(data, velocity_field):
    model = FlowMatchingAligner(
        velocity_field=velocity_field, n_steps=10, noise=0, n_blocks=2, max_iter=150, random_state=0
    )
    model.fit(data.X_train, data.y_train, data.class_embeddings)
    own = model.class_embeddings_[np.searchsorted(model.classes_, data.y_train)]
    distances = np.linalg.norm(model.trajectory(data.X_train) - own, axis=2).mean(axis=1)
    assert (np.diff(distances) < 0).all()
    assert distances[-1] < 0.2 * distances[0]


# ------------------------------------------------------------------ rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["transform", "decision_function", "predict_proba"])
def test_a_row_does_not_depend_on_batch_order_or_block(dtype, method, model, X, monkeypatch):
    X = X.astype(dtype)
    call = getattr(model, method)
    whole = call(X)
    # Products of other shapes round differently; nothing else may differ.
    tolerance = (
        {"rtol": 1e-4, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-11}
    )
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(call(X[order]), whole[order], **tolerance)
    np.testing.assert_allclose(np.concatenate([call(x[None]) for x in X]), whole, **tolerance)
    monkeypatch.setitem(blocks.STATE_BYTES, "cpu", 7 * 32 * np.dtype(dtype).itemsize)
    np.testing.assert_allclose(call(X), whole, **tolerance)


@pytest.mark.parametrize("scale", [1e-20, 3.0, 1e20])
def test_normalised_rows_have_no_scale(scale, model, X):
    np.testing.assert_allclose(model.transform(scale * X), model.transform(X), rtol=1e-9)


def test_normalisation_is_settled_by_the_fit(model, X):
    expected = model.transform(3 * X)
    np.testing.assert_array_equal(model.set_params(normalize=False).transform(3 * X), expected)


def test_without_normalisation_length_means_something(data, velocity_field):
    model = FlowMatchingAligner(
        velocity_field=velocity_field, normalize=False, max_iter=5, n_blocks=1, random_state=0
    )
    X = 5 * data.X_train
    X[0] = 0  # the origin is a point like any other
    model.fit(X, data.y_train, data.class_embeddings)
    np.testing.assert_array_equal(model.set_params(n_steps=0).transform(X), X)
    # The origin is like no class and so like all of them; the flow carries it away.
    np.testing.assert_allclose(model.predict_proba(X[:1]), 1 / 6, rtol=1e-6)
    model.set_params(n_steps=1)
    with torch.no_grad():
        start = torch.zeros(1, 32, device=model.device_)
        velocity = model.velocity_field_(torch.zeros((), device=model.device_), start).cpu()
    assert velocity.norm() > 1e-3
    np.testing.assert_allclose(model.transform(X[:1]), 0.1 * velocity, atol=1e-5)
    model.set_params(n_steps=3)
    assert not np.allclose(model.transform(X), 5 * model.transform(X / 5), rtol=1e-2)


def test_predicting_changes_nothing(fitted, X):
    before = {key: id(value) for key, value in vars(fitted).items()}
    weights = {name: w.clone() for name, w in fitted.velocity_field_.state_dict().items()}
    for method in ("predict", "predict_proba", "decision_function", "transform", "trajectory"):
        getattr(fitted, method)(X)
    assert {key: id(value) for key, value in vars(fitted).items()} == before
    for name, weight in fitted.velocity_field_.state_dict().items():
        assert torch.equal(weight, weights[name])


# ------------------------------------------------------------------ scores


def test_scores_agree_with_one_another(model, X):
    scores, proba = model.decision_function(X), model.predict_proba(X)
    exponent = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(proba, exponent / exponent.sum(axis=1, keepdims=True), rtol=1e-9)
    np.testing.assert_array_equal(model.predict(X), model.classes_[scores.argmax(axis=1)])


def test_length_is_no_similarity(data, velocity_field):
    """Without normalisation too the flow is read by cosines; the best score is the prediction."""
    lengths = np.array([1.0, 50, 1, 1, 0.02, 1])
    E = {
        k: v * s for (k, v), s in zip(data.class_embeddings.to_dict().items(), lengths, strict=True)
    }
    model = FlowMatchingAligner(
        velocity_field=velocity_field, normalize=False, joint=True, max_iter=5, n_blocks=1,
        random_state=0, n_steps=2, logit_scale=7,
    )  # fmt: skip
    model.fit(data.X_train, data.y_train, E)
    np.testing.assert_allclose(np.linalg.norm(model.class_embeddings_, axis=1), lengths, rtol=1e-5)
    cosines = cosine_similarity(model.transform(data.X_test), model.class_embeddings_)
    rows = torch.tensor(data.X_test, device=model.device_)
    expected = cosines + model._classifier.log_proba(rows).cpu().numpy()
    scores = model.decision_function(data.X_test)
    np.testing.assert_allclose(scores, 7 * expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(
        model.predict(data.X_test), model.classes_[expected.argmax(axis=1)]
    )


def test_temperature_changes_probabilities_only(model, X):
    before, sharp = model.predict(X), model.predict_proba(X)
    model.set_params(logit_scale=1e-4)
    assert model.logit_scale_ == 1e-4
    np.testing.assert_array_equal(model.predict(X), before)
    assert model.predict_proba(X).max(axis=1).mean() < sharp.max(axis=1).mean()


def test_the_model_is_heard_from_the_first_step_on(model, X):
    """What it says does not depend on the steps; none of it is in zero steps."""
    cosines = [
        cosine_similarity(state, model.class_embeddings_) for state in model.staged_transform(X)
    ]
    scale = 7
    model.set_params(logit_scale=scale)
    heard = []
    for n_steps in (0, 1, 5):
        model.set_params(n_steps=n_steps)
        heard.append(model.decision_function(X) / scale - cosines[n_steps])
    np.testing.assert_allclose(heard[0], 0, atol=1e-6)
    assert np.ptp(heard[1], axis=1).min() > 1
    np.testing.assert_allclose(heard[1], heard[2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.exp(heard[1]).sum(axis=1), 1, rtol=1e-4)


def test_two_classes_have_one_score_and_ties_go_to_the_first(data, velocity_field):
    X, y = data.X_train[:8], data.y_train[:8]
    table = data.class_embeddings.subset(np.unique(y))
    model = FlowMatchingAligner(
        velocity_field=velocity_field, max_iter=2, n_blocks=1, random_state=0
    ).fit(X, y, table)
    scores = model.decision_function(data.X_test)
    assert scores.shape == (60,)
    np.testing.assert_array_equal(model.predict(data.X_test), model.classes_[(scores > 0) * 1])
    same = {label: np.ones(32) for label in np.unique(y)}
    tied = FlowMatchingAligner(
        velocity_field=velocity_field, max_iter=2, n_blocks=1, joint=True, random_state=0
    ).fit(X, y, same)
    assert tied.score(X, y) == 1  # the samples tell them apart
    tied.set_params(n_steps=0)  # the names do not
    assert (tied.decision_function(data.X_test) == 0).all()
    assert (tied.predict(data.X_test) == tied.classes_[0]).all()
    np.testing.assert_allclose(tied.predict_proba(data.X_test), 0.5)


@pytest.mark.parametrize("noise", [0, 0.1, 0.3, 1])
def test_noise_within_the_recommended_range_does_not_lead_astray(noise, velocity_field):
    """Classes far apart stay apart, all along the flow, and samples come near their own."""
    easy = make_cross_modal(6, n_train=4, n_test=10, n_features=32, difficulty=0.3, random_state=0)
    model = FlowMatchingAligner(
        velocity_field=velocity_field, noise=noise, n_blocks=2, max_iter=150, random_state=0,
        n_steps=10, logit_scale=100,
    )  # fmt: skip
    model.fit(easy.X_train, easy.y_train, easy.class_embeddings)
    for labels in model.staged_predict(easy.X_test):
        assert (labels == easy.y_test).all()
    own = model.class_embeddings_[np.searchsorted(model.classes_, easy.y_test)]
    distances = np.linalg.norm(model.trajectory(easy.X_test) - own, axis=2).mean(axis=1)
    assert distances[-1] < distances[0] / 2.5


def test_the_memory_of_a_prediction_does_not_grow_with_its_rows(
    fitted, data, monkeypatch, tmp_path
):
    rows = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (500, 32))
    rows[:] = np.resize(data.X_test, rows.shape)
    rows[321] = 0
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    monkeypatch.setitem(blocks.STATE_BYTES, "cpu", 64 * 4 * fitted.velocity_field_.row_size)
    sizes = sizes_of_blocks(monkeypatch)
    with pytest.raises(ValueError, match="rows of zeros.*: 321"):
        fitted.predict(mapped)
    assert max(sizes) == 64
    np.testing.assert_array_equal(
        fitted.predict(mapped[:300]), fitted.predict(np.array(rows[:300]))
    )


def test_many_classes_make_blocks_small(small, monkeypatch):
    """Scores, and the classes of the closed form, are wider than narrow features."""
    rng = np.random.default_rng(0)
    E = rng.normal(size=(300, 4))
    model = small(max_iter=1).fit(E, np.arange(300), ClassEmbeddings(range(300), E))
    monkeypatch.setitem(blocks.STATE_BYTES, "cpu", 16 * 8 * 300)
    sizes = sizes_of_blocks(monkeypatch)
    model.predict(rng.normal(size=(50, 4)))
    assert sizes == [16, 16, 16, 2]


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_follows_the_closed_form_to_its_end(solver, data):
    """Where the velocity has no bound: the samples come where many small steps bring them."""
    model = FlowMatchingAligner(n_steps=400, step_size=1 / 400, logit_scale=30)
    model.fit(data.X_train, data.y_train, data.class_embeddings)
    X = data.X_test.astype(np.float64)
    expected = model.transform(X)
    model.set_params(n_steps=10, step_size=0.1, solver=solver)
    assert np.linalg.norm(model.transform(X) - expected, axis=1).mean() < 0.1
