"""What the estimator chooses in fit: the stop and the temperature."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import make_cross_modal

AUTO = {"n_steps": "auto", "logit_scale": "auto"}


@pytest.fixture(scope="module")
def hard():
    """Classes that overlap, in one space: something to choose, and something to doubt."""
    return make_cross_modal(
        n_classes=8, n_train=6, n_test=40, n_features=24, difficulty=3, random_state=0
    )


def choice(model):
    return model.n_steps_, model.logit_scale_, model.stop_scores_


# ------------------------------------------------------------------ the choice


def test_the_choice_does_not_depend_on_row_order_or_label_names(hard, small):
    X, y, table = hard.X_train, hard.y_train, hard.class_embeddings
    one = small(**AUTO).fit(X, y, table)
    rows = np.random.default_rng(0).permutation(len(X))
    names = dict(zip(table.classes, np.random.default_rng(1).permutation(8), strict=True))
    renamed = ClassEmbeddings([names[label] for label in table.labels], table.vectors)
    other = small(**AUTO).fit(X[rows], [names[label] for label in y[rows]], renamed)
    assert other.n_steps_ == one.n_steps_
    assert other.logit_scale_ == pytest.approx(one.logit_scale_, rel=1e-3)
    for name in ("accuracy", "n_better", "n_worse"):
        np.testing.assert_array_equal(other.stop_scores_[name], one.stop_scores_[name])
    np.testing.assert_allclose(
        other.stop_scores_["log_loss"], one.stop_scores_["log_loss"], rtol=1e-4
    )


def test_the_same_seed_makes_the_same_choice(hard, small):
    one, other = (
        small(**AUTO, random_state=3).fit(hard.X_train, hard.y_train, hard.class_embeddings)
        for _ in range(2)
    )
    assert choice(one)[:2] == choice(other)[:2]
    for name, values in one.stop_scores_.items():
        np.testing.assert_array_equal(values, other.stop_scores_[name])


def test_validation_data_that_contradict_the_support_set_change_the_choice(hard, small):
    """Trained on labels moved by one class; the validation data have them right."""
    table = hard.class_embeddings
    classes = table.classes
    moved = classes[(np.searchsorted(classes, hard.y_train) + 1) % len(classes)]
    model = small(**AUTO, max_iter=100, joint=True)
    model.fit(hard.X_train, moved, table)
    assert model.stop_time_ == 0.5
    assert model.stop_source_ in ("leave-one-out", "cross-fitting")
    with_them = small(**AUTO, max_iter=100, joint=True)
    with_them.fit(hard.X_train, moved, table, X_val=hard.X_test, y_val=hard.y_test)
    assert with_them.stop_source_ == "validation data"
    assert with_them.stop_time_ < 0.5
    assert with_them.score(hard.X_test, hard.y_test) > model.score(hard.X_test, hard.y_test) + 0.1
    # What is fitted is the same.
    for model_ in (model, with_them):
        model_.set_params(n_steps=5)
    np.testing.assert_array_equal(with_them.transform(hard.X_test), model.transform(hard.X_test))


def test_the_table_is_what_the_validation_data_say(hard, small):
    model = small(**AUTO)
    model.fit(hard.X_train, hard.y_train, hard.class_embeddings, hard.X_test, hard.y_test)
    scores = pd.DataFrame(model.stop_scores_)
    assert scores.n_steps.tolist() == list(range(11))
    stages = [labels == hard.y_test for labels in model.staged_predict(hard.X_test)]
    np.testing.assert_allclose(scores.accuracy, np.mean(stages, axis=1))
    np.testing.assert_array_equal(scores.n_better, [(s & ~stages[5]).sum() for s in stages])
    rows, columns = np.arange(len(hard.y_test)), np.searchsorted(model.classes_, hard.y_test)
    losses = [-np.log(P[rows, columns]).mean() for P in model.staged_predict_proba(hard.X_test)]
    np.testing.assert_allclose(scores.log_loss, losses, rtol=1e-4)


def test_probabilities_are_calibrated(hard, small):
    model = small(**AUTO, max_iter=50)
    model.fit(hard.X_train, hard.y_train, hard.class_embeddings)

    def gap():
        P = model.predict_proba(hard.X_test)
        return abs(P.max(axis=1).mean() - model.score(hard.X_test, hard.y_test))

    calibrated = gap()
    model.set_params(logit_scale=100)
    assert calibrated < 0.1
    assert gap() > 2 * calibrated


# ------------------------------------------------------------------ after fit


def test_numbers_and_auto_after_fit(hard, small):
    data = hard.X_train, hard.y_train, hard.class_embeddings
    model = small(**AUTO).fit(*data)
    assert model.stop_time_ == 0.5
    scale = model.logit_scale_
    model.set_params(n_steps=2)
    assert (model.n_steps_, model.stop_time_) == (2, 0.2)
    assert model.logit_scale_ == pytest.approx(model.stop_scores_["logit_scale"][2], rel=1e-12)
    assert model.logit_scale_ == scale == 1  # the model is calibrated
    assert model.set_params(n_steps=0).logit_scale_ != scale  # cosines need a scale
    model.set_params(n_steps="auto", step_size=0.25)  # the stop is a time
    assert (model.n_steps_, model.stop_time_) == (2, 0.5)
    assert model.logit_scale_ == pytest.approx(scale)
    model.set_params(step_size=0.3)
    assert (model.n_steps_, model.stop_time_) == (2, 0.6)
    assert model.predict(hard.X_test).shape == hard.y_test.shape
    model.set_params(logit_scale=7)
    assert model.logit_scale_ == 7


@pytest.mark.parametrize("name", ["n_steps", "logit_scale"])
def test_auto_after_a_fit_with_a_number_is_refused(name, hard, small):
    model = small(**AUTO | {name: 5})
    model.fit(hard.X_train, hard.y_train, hard.class_embeddings)
    other = "logit_scale" if name == "n_steps" else "n_steps"
    model.set_params(**{other: 5}).fit(hard.X_train, hard.y_train, hard.class_embeddings)
    assert model.stop_scores_ is model.stop_source_ is None
    model.set_params(**{name: "auto"})
    assert "FlowMatchingAligner" in model._repr_html_()
    if name == "logit_scale":  # only zero steps need one that was chosen
        model.predict_proba(hard.X_test)
        model.set_params(n_steps=0).predict(hard.X_test)
    with pytest.raises(ValueError, match=f"{name}='auto' was set after a fit with a number"):
        model.predict_proba(hard.X_test)


def test_an_estimator_with_bad_parameters_can_be_shown(hard, small):
    model = small(**AUTO).fit(hard.X_train, hard.y_train, hard.class_embeddings)
    for params in ({"step_size": 0}, {"n_steps": -3}, {"n_steps": 11}, {"step_size": "x"}):
        before = model.get_params()
        model.set_params(**params)
        assert "FlowMatchingAligner" in model._repr_html_()
        assert not hasattr(model, "n_steps_")
        with pytest.raises((TypeError, ValueError), match=next(iter(params))):
            model.predict(hard.X_test)
        model.set_params(**before)


def test_repeating_rows_does_not_make_certain(hard, small):
    """A copy that stays behind gives away the class of the one that is held out."""
    X, y = np.repeat(hard.X_train, 2, axis=0), np.repeat(hard.y_train, 2)
    once = small(**AUTO).fit(hard.X_train, hard.y_train, hard.class_embeddings)
    twice = small(**AUTO).fit(X, y, hard.class_embeddings)
    evidence = [model.gaussian_model_.evidence for model in (once, twice)]
    np.testing.assert_allclose(*evidence, rtol=1e-6)
    log_loss = [model.stop_scores_["log_loss"] for model in (once, twice)]
    assert log_loss[1][5] > log_loss[0][5] / 2
    scale = [model.stop_scores_["logit_scale"][0] for model in (once, twice)]
    assert scale[1] < 2 * scale[0]


def test_a_given_number_of_steps_has_its_own_temperature(hard, small):
    chosen = small(**AUTO).fit(hard.X_train, hard.y_train, hard.class_embeddings)
    given = small(n_steps=3, logit_scale="auto")
    given.fit(hard.X_train, hard.y_train, hard.class_embeddings)
    assert given.logit_scale_ == pytest.approx(chosen.stop_scores_["logit_scale"][3], rel=1e-12)
    with pytest.raises(ValueError, match="n_steps='auto'"):
        given.set_params(n_steps="auto").predict(hard.X_test)


def test_one_shot(one_shot, small):
    """Stated: the closed form stops at 0.5, the network at 0.2."""
    model = small(**AUTO).fit(one_shot.X_train, one_shot.y_train, one_shot.class_embeddings)
    stop = 0.5 if model.velocity_field == "gaussian" else 0.2
    assert (model.stop_source_, model.stop_time_) == ("held-out classes", stop)
    assert (model.logit_scale_, model.posterior_weight_) == (1, 1)
    without_text = small(**AUTO).fit(one_shot.X_train, one_shot.y_train)
    assert (without_text.stop_source_, without_text.stop_time_) == ("nothing", stop)
    assert without_text.stop_scores_ is None
    assert (without_text.logit_scale_, without_text.posterior_weight_) == (1, 1)
    assert without_text.set_params(n_steps=0).logit_scale_ == 30
    without_text.predict_proba(one_shot.X_test)


@pytest.mark.parametrize("solver", ["rk4", "explicit_adams", "dopri5"])
def test_any_solver_can_be_chosen_for(solver, hard, small):
    """Where validation data speak against the default of time 0.5, by the states of the solver."""
    classes = hard.class_embeddings.classes
    moved = classes[(np.searchsorted(classes, hard.y_train) + 1) % len(classes)]
    model = small(**AUTO, solver=solver, step_size=0.125, max_iter=100, joint=True)
    model.fit(hard.X_train, moved, hard.class_embeddings, X_val=hard.X_test, y_val=hard.y_test)
    scores = model.stop_scores_
    assert scores["n_steps"].tolist() == list(range(9))
    stages = np.array([labels == hard.y_test for labels in model.staged_predict(hard.X_test)])
    np.testing.assert_allclose(scores["accuracy"], stages.mean(axis=1), atol=1 / len(hard.y_test))
    assert model.n_steps_ == scores["accuracy"].argmax() < 4
    assert model.score(hard.X_test, hard.y_test) == stages[model.n_steps_].mean()


# ------------------------------------------------------------------ routes and caches


def test_validation_data_go_through_a_pipeline(hard):
    """transform_input sends X_val through the steps before the aligner."""
    X_val, y_val = hard.X_test[::2], hard.y_test[::2]
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = make_pipeline(
            StandardScaler(), Normalizer(), FlowMatchingAligner(hard.class_embeddings),
            transform_input=["X_val"],
        )  # fmt: skip
        pipe.fit(hard.X_train, hard.y_train, X_val=X_val, y_val=y_val)
    before = make_pipeline(StandardScaler(), Normalizer()).fit(hard.X_train)
    alone = FlowMatchingAligner(hard.class_embeddings).fit(
        before.transform(hard.X_train), hard.y_train, X_val=before.transform(X_val), y_val=y_val
    )
    assert pipe[-1].stop_source_ == "validation data"
    for name, values in alone.stop_scores_.items():
        np.testing.assert_allclose(pipe[-1].stop_scores_[name], values)


def test_validation_data_go_through_a_search(hard):
    model = FlowMatchingAligner(hard.class_embeddings)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(model, {"n_steps": ["auto", 0]}, cv=2)
        search.fit(hard.X_train, hard.y_train, X_val=hard.X_test, y_val=hard.y_test)
    assert search.best_estimator_.stop_source_ == "validation data"


@pytest.mark.filterwarnings("ignore:Persisting input arguments")
def test_a_search_trains_the_folds_once(hard, small, tmp_path):
    def fits():
        return len(list(tmp_path.rglob("output.pkl")))

    grid = {"n_steps": ["auto", 0, 3], "solver": ["euler", "midpoint"], "logit_scale": ["auto", 9]}
    model = small(hard.class_embeddings, memory=str(tmp_path))
    GridSearchCV(model, grid, cv=2, refit=False).fit(hard.X_train, hard.y_train)
    # In each of two folds the field itself; with a network also those of two folds within.
    assert fits() == (2 if model.velocity_field == "gaussian" else 2 * 3)


# ------------------------------------------------------------------ errors

X_VAL = np.ones((4, 24))


@pytest.mark.parametrize(
    ("X_val", "y_val", "message"),
    [
        (X_VAL, None, "X_val was given without y_val"),
        (None, ["a"] * 4, "y_val was given without X_val"),
        (X_VAL[:, :5], "known", "X_val is 5 wide and X is 24 wide.*transform_input"),
        (X_VAL, "three", "X_val and y_val must pair up, got 4 rows and 3 labels"),
        (X_VAL, "unknown", "y_val has labels that are no class: 'nobody'"),
        (np.full((4, 24), np.nan), "known", "X_val must be features like X: Input contains NaN"),
        (0 * X_VAL, "known", "X_val has rows of zeros"),
        (X_VAL[0], "known", "X_val must be features like X: Expected 2D"),
        (np.full((4, 24), "x"), "known", "X_val must be features like X: could not convert"),
        (X_VAL[:0], [], "y_val must be a non-empty"),
        (X_VAL[:0], "known", "X_val and y_val must pair up, got 0 rows"),
    ],
)
def test_bad_validation_data(X_val, y_val, message, hard):
    labels = hard.y_train[:4].tolist()
    y_val = {"known": labels, "three": labels[:3], "unknown": [*labels[:3], "nobody"]}.get(
        y_val if isinstance(y_val, str) else None, y_val
    )
    model = FlowMatchingAligner(hard.class_embeddings)
    with pytest.raises(ValueError, match=message):
        model.fit(hard.X_train, hard.y_train, X_val=X_val, y_val=y_val)
    assert not hasattr(model, "classes_")


def test_columns_of_validation_frames_must_match(hard):
    X, X_val = (pd.DataFrame(A).add_prefix("f") for A in (hard.X_train, hard.X_test))
    model = FlowMatchingAligner(hard.class_embeddings)
    model.fit(X, hard.y_train, X_val=X_val, y_val=hard.y_test)
    with pytest.raises(ValueError, match="X_val has columns 'f23'.*where X has 'f0'"):
        model.fit(X, hard.y_train, X_val=X_val[X_val.columns[::-1]], y_val=hard.y_test)


def test_validation_data_of_any_dtype(hard):
    model = FlowMatchingAligner(hard.class_embeddings)
    scores = []
    for convert in (np.asarray, np.float32, np.ndarray.tolist, pd.DataFrame):
        model.fit(hard.X_train, hard.y_train, X_val=convert(hard.X_test), y_val=hard.y_test)
        scores.append(model.stop_scores_["accuracy"])
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1 / len(hard.X_test))
