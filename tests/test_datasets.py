"""The synthetic generator and few-shot draws."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from flowalign.datasets import few_shot, make_cross_modal


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 100))
def test_few_shot_draws_k_different_rows_of_each_class(n_shots, n_classes, seed):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(n_classes), rng.integers(5, 9, n_classes)))
    X = np.arange(len(y))[:, None]
    rows, labels = few_shot(X, y, n_shots, random_state=seed)
    assert labels.tolist() == np.repeat(np.arange(n_classes), n_shots).tolist()
    assert len(np.unique(rows)) == len(rows)
    np.testing.assert_array_equal(y[rows[:, 0]], labels)


def test_few_shot_is_seeded_and_nested():
    X, y = np.arange(40)[:, None], np.repeat(["a", "b"], 20)
    one, four = (few_shot(X, y, k, random_state=3)[0].ravel() for k in (1, 4))
    assert one.tolist() == [four[0], four[4]]  # the beginning of each class
    np.testing.assert_array_equal(four, few_shot(X, y, 4, random_state=3)[0].ravel())
    assert set(four) != set(few_shot(X, y, 4, random_state=4)[0].ravel())


def test_few_shot_keeps_frames():
    frame = pd.DataFrame({"f": range(6)}, index=list("uvwxyz"))
    rows, labels = few_shot(frame, pd.Series([0, 1] * 3), 2, random_state=0)
    assert isinstance(rows, pd.DataFrame)
    assert (rows["f"] % 2 == labels).all()


@pytest.mark.parametrize(
    ("n_shots", "y", "message"),
    [
        (3, ["a", "a", "a", "b", "b"], "class b has only 2 samples"),
        (0, ["a", "b"], "n_shots must be"),
        (1.5, ["a", "b"], "n_shots must be"),
        (1, ["a", "b"], "inconsistent numbers of samples"),
    ],
)
def test_few_shot_refuses(n_shots, y, message):
    with pytest.raises(ValueError, match=message):
        few_shot(np.ones((5, 2)), y, n_shots)


def zero_shot_accuracy(data):
    E = np.stack(list(data.class_embeddings.to_dict().values()))
    labels = np.array(data.class_names)[cosine_similarity(data.X_test, E).argmax(axis=1)]
    return np.mean(labels == data.y_test)


def test_shapes_and_types():
    data = make_cross_modal(
        12, n_train=3, n_test=5, n_features=20, n_text_features=8, joint=False, random_state=0
    )
    assert data.X_train.shape == (36, 20)
    assert data.X_test.shape == (60, 20)
    assert data.X_train.dtype == np.float32
    assert data.class_embeddings.vectors.shape == (12, 8)
    assert (
        data.class_names
        == data.class_embeddings.classes.tolist()
        == np.unique(data.y_test).tolist()
    )
    np.testing.assert_allclose(np.linalg.norm(data.X_test, axis=1), 1, rtol=1e-6)
    assert "12 classes in two spaces" in data.DESCR


def test_same_seed_same_data():
    a, b, c = (make_cross_modal(random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.X_train, b.X_train)
    np.testing.assert_array_equal(a.class_embeddings.vectors, b.class_embeddings.vectors)
    assert not np.array_equal(a.X_train, c.X_train)


def test_difficulty_and_misalignment_make_it_harder():
    def accuracy(**params):
        return np.mean(
            [zero_shot_accuracy(make_cross_modal(random_state=s, **params)) for s in range(5)]
        )

    easy = accuracy(difficulty=0.5, misalignment=0.1)
    assert easy > 0.99
    assert accuracy(difficulty=3.0, misalignment=0.1) < easy - 0.1
    assert accuracy(difficulty=0.5, misalignment=3.0) < easy - 0.1


def test_the_gap_separates_the_modalities():
    def distance(gap):
        data = make_cross_modal(modality_gap=gap, random_state=0)
        return np.linalg.norm(
            data.X_train.mean(axis=0) - data.class_embeddings.vectors.mean(axis=0)
        )

    assert distance(0.0) < distance(1.0) < distance(4.0)


def test_a_joint_space_has_one_width():
    with pytest.raises(ValueError, match=r"joint=True.*joint=False"):
        make_cross_modal(n_text_features=10)
