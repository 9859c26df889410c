"""Classes with equal embeddings are told apart by samples, or it is said that they are not."""

import numpy as np
import pytest

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import make_cross_modal
from flowalign.equal_embeddings import equal_groups, shadowed_names

NEARLY = 1e-12


def toy(n_train):
    return make_cross_modal(6, n_train=n_train, n_test=50, random_state=0)


def recalls(aligner, data):
    predicted = aligner.predict(data.X_test)
    return np.array(
        [np.mean(predicted[data.y_test == label] == label) for label in data.class_names]
    )


# ------------------------------------------------------------------ groups


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_groups_are_equal_but_for_rounding(dtype, scale):
    E = np.random.default_rng(0).normal(size=(300, 16))
    E[[7, 200]] = E[3]
    E[299] = E[0] * (1 + 1e-7)
    E[1] = E[2] * (1 + 1e-4)  # that is no rounding
    groups = equal_groups((scale * E).astype(dtype))
    assert sorted(group.tolist() for group in groups) == [[0, 299], [3, 7, 200]]


def test_one_entry_tells_classes_apart():
    E = np.random.default_rng(0).normal(size=(3, 500))
    E[1:] = E[0]
    E[2, 7] += 5e-6 * np.abs(E).max()  # of the others there is nothing to tell
    assert [group.tolist() for group in equal_groups(E)] == [[0, 1]]


def test_zeros_are_equal_and_one_class_is_no_group():
    assert [group.tolist() for group in equal_groups(np.zeros((3, 2)))] == [[0, 1, 2]]
    assert equal_groups(np.ones((1, 2))) == []


def test_a_name_is_in_the_shadow_of_a_twin_with_samples():
    E = np.eye(6)[[0, 0, 2, 3, 3, 3]]
    counts = np.array([0, 2, 0, 0, 0, 0])
    assert shadowed_names(E, counts).tolist() == [True, False, False, False, False, False]
    assert not shadowed_names(None, counts).any()


# ------------------------------------------------------------------ through the estimator


@pytest.mark.parametrize("n_train", [4, 16])
@pytest.mark.parametrize("joint", [True, False])
def test_twins_are_told_apart_as_well_as_nearly_equal_ones(n_train, joint, velocity_field):
    data = toy(n_train)
    E = data.class_embeddings.vectors.copy()
    E[4] = E[2]
    nudge = np.random.default_rng(0).normal(size=E.shape[1])
    near = E.copy()
    near[4] += np.sqrt(2 * NEARLY) * np.linalg.norm(E[4]) * nudge / np.linalg.norm(nudge)
    settings = {"velocity_field": velocity_field, "max_iter": 20, "n_blocks": 1, "random_state": 0}
    found = []
    for vectors in (E, near):
        table = ClassEmbeddings(data.class_embeddings.labels, vectors)
        aligner = FlowMatchingAligner(table, joint=joint, **settings)
        found.append(recalls(aligner.fit(data.X_train, data.y_train), data)[[2, 4]])
    np.testing.assert_allclose(*found, atol=0.03)
    assert found[0].min() > 0.6
    if not joint or n_train == 16:  # not misled by the text of another class
        assert found[0].min() == 1


@pytest.mark.parametrize(
    "vectors",
    [np.eye(5)[np.arange(6) // 2], np.arange(1.0, 7)[:, None], np.ones((6, 4))],
    ids=["super-classes", "width 1", "all equal"],
)
@pytest.mark.parametrize("n_train", [4, 16])
def test_text_that_says_little_costs_nothing(vectors, n_train, velocity_field):
    data = toy(n_train)
    table = ClassEmbeddings(data.class_names, vectors)
    aligner = FlowMatchingAligner(
        table, velocity_field=velocity_field, max_iter=5, n_blocks=1, random_state=0
    )
    assert recalls(aligner.fit(data.X_train, data.y_train), data).min() >= 0.97


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("n_steps", ["auto", 1, 10])
def test_a_name_without_samples_takes_no_row_of_its_twin(joint, n_steps, velocity_field):
    """The name that sorts first too."""
    data = toy(4)
    table = data.class_embeddings.to_dict() | {"a twin": data.class_embeddings.vectors[2]}
    aligner = FlowMatchingAligner(
        table, joint=joint, n_steps=n_steps, velocity_field=velocity_field, max_iter=5, n_blocks=1,
        random_state=0,
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"equal for \['a twin', 'class 2'\].* other words"):
        aligner.fit(data.X_train, data.y_train)
    assert "a twin" not in aligner.predict(data.X_test)
    assert recalls(aligner, data)[2] > 0.95
    proba = aligner.predict_proba(data.X_test)
    assert np.isfinite(aligner.decision_function(data.X_test)).all()
    assert proba[:, aligner.classes_.tolist().index("a twin")].max() < 1e-6
    assert aligner.class_prior_[0] < 1e-100


def test_twins_with_samples_are_not_warned_of(recwarn):
    data = toy(4)
    E = data.class_embeddings.vectors.copy()
    E[4] = E[2]
    FlowMatchingAligner(joint=False).fit(
        data.X_train, data.y_train, ClassEmbeddings(data.class_names, E)
    )
    assert not recwarn


def test_names_alone_that_are_equal_are_warned_of():
    E = {"cat": [1.0, 0], "Cat": [1.0, 0], "dog": [0, 1.0]}
    with pytest.warns(UserWarning, match=r"equal for \['Cat', 'cat'\]"):
        FlowMatchingAligner().fit(np.empty((0, 2)), [], E)


def test_validation_rows_of_a_name_that_is_never_predicted_are_not_heard(velocity_field):
    """They would silence the model, which must be wrong about them."""
    data = toy(8)
    names, E = data.class_names, data.class_embeddings.vectors.copy()
    E[4] = E[2]
    sampled, twin = data.y_train != names[4], data.y_test == names[4]
    settings = {"velocity_field": velocity_field, "max_iter": 2, "n_blocks": 1, "random_state": 0}
    found = []
    for rows in (np.full(len(twin), True), ~twin, twin):
        aligner = FlowMatchingAligner(ClassEmbeddings(names, E), **settings)
        with pytest.warns(UserWarning, match="class_embeddings are equal"):
            aligner.fit(
                data.X_train[sampled], data.y_train[sampled],
                X_val=data.X_test[rows], y_val=data.y_test[rows],
            )  # fmt: skip
        found.append(aligner)
    every, others, nobody = found
    for name, values in others.stop_scores_.items():
        np.testing.assert_array_equal(every.stop_scores_[name], values)
    assert every.stop_source_ == "validation data"
    assert nobody.stop_source_ in ("leave-one-out", "cross-fitting")
