"""Fitting: labels and class embeddings in all their forms, folds, routes, seeds and state."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, Normalizer

from flowalign import ClassEmbeddings, FlowMatchingAligner

GRID = {
    "flowmatchingaligner__n_steps": [0, 2, 5],
    "flowmatchingaligner__noise": [0.0, 0.3],
}


# ------------------------------------------------------------------ forms of class embeddings


def test_every_form_gives_the_same_classifier(data, small):
    table = data.class_embeddings
    rows = np.stack(list(table.to_dict().values()))
    frame = pd.DataFrame(rows[::-1], index=table.classes[::-1])
    reference = small().fit(data.X_train, data.y_train, table).predict_proba(data.X_test)
    for form in (table.to_dict(), frame, rows, rows.tolist(), torch.tensor(rows)):
        by_argument = small().fit(data.X_train, data.y_train, form)
        by_constructor = small(form).fit(data.X_train, data.y_train)
        np.testing.assert_array_equal(by_argument.predict_proba(data.X_test), reference)
        np.testing.assert_array_equal(by_constructor.predict_proba(data.X_test), reference)


def test_the_fit_argument_wins(data, small):
    wrong = ClassEmbeddings(data.class_names, np.random.default_rng(0).normal(size=(6, 32)))
    both = small(wrong).fit(data.X_train, data.y_train, data.class_embeddings)
    right = small().fit(data.X_train, data.y_train, data.class_embeddings)
    np.testing.assert_array_equal(both.class_embeddings_, right.class_embeddings_)


def test_without_class_embeddings_classes_travel_to_their_means(data, small):
    model = small().fit(data.X_train, data.y_train)
    for label, mean in zip(model.classes_, model.class_embeddings_, strict=True):
        rows = data.X_train[data.y_train == label]
        np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-6)
    assert model.score(data.X_test, data.y_test) > 0.5


def test_several_rows_per_label_are_averaged_after_normalisation(data, small):
    labels = ["a", "b"]
    X, y = data.X_train[:8], np.repeat(labels, 4)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 32))
    table = ClassEmbeddings(["a", "a", "b", "b", "b"], rows * rng.uniform(0.1, 9, (5, 1)))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.stack([unit[:2].mean(axis=0), unit[2:].mean(axis=0)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    model = small(joint=True).fit(X, y, table)
    np.testing.assert_allclose(model.class_embeddings_, expected, atol=1e-6)


def test_lexicographic_order_of_unlabelled_rows(small):
    labels = np.array([str(i) for i in range(12)])
    X = np.eye(12)
    in_table_order = np.eye(12)[np.argsort(labels)]  # rows for '0', '1', '10', '11', '2', ...
    model = small(in_table_order, joint=True).fit(X, labels)
    assert model.classes_[:4].tolist() == ["0", "1", "10", "11"]
    assert (model.set_params(n_steps=0).predict(X) == labels).all()


# ------------------------------------------------------------------ spaces


def test_joint_and_mapped_spaces_show_on_the_estimator(data, small):
    joint = small().fit(data.X_train, data.y_train, data.class_embeddings)
    assert joint.joint_
    assert joint.embedding_map_ is None
    narrow = ClassEmbeddings(data.class_embeddings.labels, data.class_embeddings.vectors[:, :10])
    mapped = small().fit(data.X_train, data.y_train, narrow)
    assert not mapped.joint_
    assert mapped.embedding_map_.rotation.shape == (10, 32)
    unit = narrow.vectors / np.linalg.norm(narrow.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(mapped.class_embeddings_, mapped.embedding_map_(unit), atol=1e-6)


def test_a_class_without_samples_is_predicted(data, small):
    seen = data.y_train != data.class_names[2]
    model = small().fit(data.X_train[seen], data.y_train[seen], data.class_embeddings)
    assert model.classes_.tolist() == data.class_names
    assert model.predict_proba(data.X_test).shape == (60, 6)
    of_that_class = data.y_test == data.class_names[2]
    assert (model.predict(data.X_test[of_that_class]) == data.class_names[2]).mean() > 0.5


# ------------------------------------------------------------------ cross-validation


@pytest.mark.parametrize("form", ["array", "list", "tensor"])
def test_unlabelled_rows_as_long_as_the_data_are_refused(one_shot, form, small):
    rows = np.stack(list(one_shot.class_embeddings.to_dict().values()))
    rows = {"array": rows, "list": rows.tolist(), "tensor": torch.tensor(rows)}[form]
    with pytest.raises(ValueError, match=r"class_embeddings.*ClassEmbeddings\(.*constructor"):
        small().fit(one_shot.X_train, one_shot.y_train, rows)


def test_a_sliced_fit_argument_never_goes_unnoticed(one_shot, small):
    rows = np.stack(list(one_shot.class_embeddings.to_dict().values()))
    with pytest.raises(ValueError, match="class_embeddings"):
        cross_val_score(
            small(), one_shot.X_train, one_shot.y_train, cv=KFold(3), error_score="raise",
            params={"class_embeddings": rows},
        )  # fmt: skip


@pytest.mark.parametrize("form", ["table", "dict", "frame"])
def test_labelled_forms_fit_a_one_shot_set(one_shot, form, small):
    vectors = one_shot.class_embeddings.to_dict()
    given = {
        "table": one_shot.class_embeddings,
        "dict": vectors,
        "frame": pd.DataFrame.from_dict(vectors, orient="index"),
    }[form]
    model = small().fit(one_shot.X_train, one_shot.y_train, given)
    assert model.score(one_shot.X_test, one_shot.y_test) > 0.5


@pytest.mark.parametrize("shots", ["one_shot", "data"])
def test_grid_search_gives_the_same_by_all_three_routes(shots, request, small):
    bunch = request.getfixturevalue(shots)
    X, y, table = bunch.X_train, bunch.y_train, bunch.class_embeddings
    cv = KFold(3, shuffle=True, random_state=0) if shots == "one_shot" else StratifiedKFold(2)

    def search(model):
        return GridSearchCV(make_pipeline(Normalizer(), model), GRID, cv=cv, error_score="raise")

    by_constructor = search(small(table)).fit(X, y)
    by_argument = search(small()).fit(X, y, flowmatchingaligner__class_embeddings=table)
    with sklearn.config_context(enable_metadata_routing=True):
        by_routing = search(small()).fit(X, y, class_embeddings=table)
    scores = by_constructor.cv_results_["mean_test_score"]
    # A fold of a one-shot set tests classes that have no sample in training.
    assert scores.max() > 0.5
    for other in (by_argument, by_routing):
        np.testing.assert_array_equal(other.cv_results_["mean_test_score"], scores)
        assert other.best_score_ == by_constructor.best_score_


@pytest.mark.filterwarnings("ignore:y holds exactly the integers")  # where the last ones lack
def test_columns_are_stable_across_folds_that_lack_a_class(one_shot, small):
    proba = cross_val_predict(
        small(), one_shot.X_train, LabelEncoder().fit_transform(one_shot.y_train), cv=KFold(4),
        method="predict_proba",
        params={
            "class_embeddings": one_shot.class_embeddings.relabel(
                LabelEncoder().fit(one_shot.y_train)
            )
        },
    )  # fmt: skip
    assert proba.shape == (12, 12)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)


def test_labels_without_embedding_are_named(data, small):
    table = data.class_embeddings.subset(data.class_names[:-1])
    with pytest.raises(ValueError, match=r"y has labels that class_embeddings lacks: 'class 5'"):
        small().fit(data.X_train, data.y_train, table)


def test_reencoded_labels_are_explained_and_relabel_is_the_way_out(data, small):
    X, y, table = data.X_train, data.y_train, data.class_embeddings
    with pytest.raises(ValueError, match="integer codes.*relabel"):
        cross_val_predict(small(table), X, y, cv=2, method="predict_proba")
    codes = table.relabel(LabelEncoder().fit(y))
    assert cross_val_predict(small(codes), X, y, cv=2, method="predict_proba").shape == (24, 6)
    stack = StackingClassifier([("flow", small(codes))], LogisticRegression(), cv=2)
    assert stack.fit(X, y).score(data.X_test, data.y_test) > 0.3


# ------------------------------------------------------------------ invariances


def test_shuffled_classes_permute_the_columns_and_nothing_else(data, small):
    names = np.array(data.class_names)
    renamed = names[[3, 0, 5, 1, 4, 2]]
    new_name = dict(zip(names.tolist(), renamed.tolist(), strict=True))
    vectors = {new_name[k]: v for k, v in data.class_embeddings.to_dict().items()}
    before = small().fit(data.X_train, data.y_train, data.class_embeddings)
    after = small().fit(data.X_train, [new_name[k] for k in data.y_train], vectors)
    columns = [after.classes_.tolist().index(new_name[k]) for k in names.tolist()]
    np.testing.assert_allclose(
        after.predict_proba(data.X_test)[:, columns], before.predict_proba(data.X_test), rtol=1e-4,
        atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["str", "object", "int", "float", "bool"])
def test_labels_keep_their_type(kind, data, small):
    X = data.X_train[:8]
    labels = {
        "str": np.array(["b", "a"]), "object": np.array(["b", "a"], dtype=object),
        "int": np.array([7, -3]), "float": np.array([2.0, 1.0]), "bool": np.array([True, False]),
    }[kind]  # fmt: skip
    y = np.repeat(labels, 4)
    table = ClassEmbeddings(labels, data.X_test[[0, 10]])
    model = small().fit(X, y, table)
    assert model.classes_.dtype == y.dtype
    assert set(model.predict(X).tolist()) <= set(labels.tolist())


def test_what_is_trained_does_not_depend_on_the_solver(data, small):
    def weights(**params):
        model = small(data.class_embeddings, **params).fit(data.X_train, data.y_train)
        return model.velocity_field_.state_dict()

    reference = weights()
    changed = weights(n_steps=7, step_size=0.05, solver="rk4", logit_scale=5.0)
    assert all(torch.equal(reference[name], changed[name]) for name in reference)


# ------------------------------------------------------------------ seeds, threads, workers


def fit_and_predict(data, velocity_field, seed):
    model = FlowMatchingAligner(
        velocity_field=velocity_field, max_iter=5, n_blocks=1, random_state=seed
    )
    return model.fit(data.X_train, data.y_train, data.class_embeddings).predict_proba(data.X_test)


def test_seeds(data):
    first = fit_and_predict(data, "mlp", 0)
    np.testing.assert_array_equal(fit_and_predict(data, "mlp", 0), first)
    assert not np.array_equal(fit_and_predict(data, "mlp", 1), first)
    instance = np.random.RandomState(0)
    first, second = (fit_and_predict(data, "mlp", instance) for _ in range(2))
    assert not np.array_equal(first, second)


def test_the_closed_form_has_no_seed(data):
    first, second = (fit_and_predict(data, "gaussian", seed) for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("velocity_field", ["gaussian", "mlp"])
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_same_seed_same_result_in_threads_and_workers(backend, velocity_field, data):
    alone = fit_and_predict(data, velocity_field, 0)
    runs = joblib.Parallel(n_jobs=2, backend=backend)(
        joblib.delayed(fit_and_predict)(data, velocity_field, 0) for _ in range(4)
    )
    for run in runs:  # the last digit of a product may depend on where its factors lie in memory
        np.testing.assert_allclose(run, alone, rtol=1e-5)


def test_global_state_is_left_alone(data, small):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()  # noqa: NPY002
    small(noise=0.3).fit(data.X_train, data.y_train, data.class_embeddings).predict(data.X_test)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.get_num_threads() == before[2]


# ------------------------------------------------------------------ state


def test_constructor_stores_and_does_not_look():
    params = {"n_steps": -5, "solver": 3, "device": "nowhere"}
    assert clone(FlowMatchingAligner(**params)).get_params()["device"] == "nowhere"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_predict_the_same(copied, fitted, data):
    np.testing.assert_array_equal(
        copied(fitted).transform(data.X_test), fitted.transform(data.X_test)
    )


def test_a_model_from_another_device_opens_on_the_cpu(fitted, data):
    foreign = copy.copy(fitted)
    foreign.device_ = "cuda:99"  # as if fitted on a machine that has it
    model = pickle.loads(pickle.dumps(foreign))
    assert model.device_ == "cpu"
    np.testing.assert_array_equal(model.predict(data.X_test), fitted.predict(data.X_test))


def test_a_failed_fit_leaves_the_model_as_it_was(data, small_mlp):
    model = small_mlp(data.class_embeddings).fit(data.X_train, data.y_train)
    before = model.predict_proba(data.X_test)
    with pytest.raises(ValueError, match="learning_rate_init"):
        model.set_params(learning_rate_init=1e30).fit(data.X_train, data.y_train)
    other_width_and_names = pd.DataFrame(data.X_train[:, :5]).add_prefix("f")
    with pytest.raises(ValueError, match="learning_rate_init"):
        model.fit(other_width_and_names, data.y_train)
    np.testing.assert_array_equal(model.predict_proba(data.X_test), before)


def test_loss_curve(data, small_mlp):
    """It begins with the loss of standing still, since a new field moves nothing, and falls."""
    model = small_mlp(max_iter=100, noise=0).fit(data.X_train, data.y_train, data.class_embeddings)
    assert model.n_iter_ == len(model.loss_curve_) == 100
    own = model.class_embeddings_[np.searchsorted(model.classes_, data.y_train)]
    still = np.square(own - data.X_train).sum(axis=1).mean()
    assert model.loss_curve_[0] == pytest.approx(still, rel=1e-4)
    assert model.loss_curve_[-1] < still / 4


def test_the_closed_form_is_not_trained(data):
    model = FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)
    assert (model.n_iter_, model.loss_curve_) == (1, [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_the_cpu(data, small):
    cpu, cuda = (
        small(device=device).fit(data.X_train, data.y_train, data.class_embeddings)
        for device in ("cpu", "cuda")
    )
    assert all(w.is_cuda for w in cuda.velocity_field_.state_dict().values())
    moved = pickle.loads(pickle.dumps(cuda))
    np.testing.assert_allclose(
        moved.predict_proba(data.X_test), cuda.predict_proba(data.X_test), atol=1e-3
    )
    assert (cpu.predict(data.X_test) == cuda.predict(data.X_test)).mean() > 0.9
