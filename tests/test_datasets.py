"""The synthetic generator and few-shot draws."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array, csr_array
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


def test_few_shot_takes_tensors():
    X, y = np.arange(12.0).reshape(6, 2), [0, 1] * 3
    rows, labels = few_shot(X, y, 2, random_state=0)
    tensor = torch.tensor(X, requires_grad=True)
    for form in (tensor, list(tensor)):
        found, codes = few_shot(form, list(torch.tensor(y)), 2, random_state=0)
        np.testing.assert_array_equal(found, rows)
        np.testing.assert_array_equal(codes, labels)


@pytest.mark.parametrize("kind", [csr_array, coo_array])
def test_few_shot_keeps_sparse_rows(kind):
    X, y = np.arange(12.0).reshape(6, 2), [0, 1] * 3
    rows, labels = few_shot(kind(X), y, 2, random_state=0)
    expected, codes = few_shot(X, y, 2, random_state=0)
    np.testing.assert_array_equal(rows.toarray(), expected)
    np.testing.assert_array_equal(labels, codes)


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
        (1, ["a", "a", None, "b", "b"], "y has 1 missing labels"),
        (1, ["a", "a", np.nan, "b", "b"], "y has 1 missing labels"),
        (1, pd.Series([0, 0, pd.NA, 1, 1], dtype="Int64"), "y has 1 missing labels"),
        (1, [*torch.tensor([0, 0, 1, 1]), None], "y has 1 missing labels"),
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


def vectors(data):
    return data.class_embeddings.vectors


def cosine(A, B):
    A, B = (V / np.linalg.norm(V, axis=-1, keepdims=True) for V in (A, B))
    return (A * B).sum(axis=-1)


PLAIN = {"n_features": 400, "n_train": 2, "n_test": 1, "random_state": 0}


def test_without_spread_misalignment_and_gap_features_are_their_class_embeddings():
    data = make_cross_modal(7, difficulty=0, misalignment=0, modality_gap=0, **PLAIN)
    rows = np.searchsorted(data.class_names, data.y_train)
    np.testing.assert_allclose(data.X_train, vectors(data)[rows], atol=1e-6)


@pytest.mark.parametrize("misalignment", [0.5, 1.0, 3.0])
def test_misalignment_is_the_share_that_the_text_does_not_say(misalignment):
    """z and z + m s, both of unit scale, have a cosine of 1 / sqrt(1 + m^2) in many dimensions."""
    data = make_cross_modal(50, difficulty=0, misalignment=misalignment, modality_gap=0, **PLAIN)
    found = cosine(data.X_train[::2], vectors(data)).mean()
    assert found == pytest.approx(1 / np.sqrt(1 + misalignment**2), abs=0.02)


@pytest.mark.parametrize("gap", [0.5, 1.0, 2.0])
def test_half_of_the_gap_is_on_either_side(gap):
    """z - g / 2 and z + g / 2 times the gap; of features, of text, and between them."""
    data = make_cross_modal(50, difficulty=0, misalignment=0, modality_gap=gap, **PLAIN)
    X, E = data.X_train[::2], vectors(data)
    quarter = gap**2 / 4
    between = (1 - quarter) / (1 + quarter)
    assert cosine(X, E).mean() == pytest.approx(between, abs=0.05)
    for rows in (X, E):
        within = cosine(rows[:-1], rows[1:]).mean()
        assert within == pytest.approx(quarter / (1 + quarter), abs=0.05)


@pytest.mark.parametrize("difficulty", [0.5, 1.0, 2.0])
def test_difficulty_is_the_spread_within_classes(difficulty):
    """Two samples of a class share 1 / (1 + delta^2) of their mean square."""
    data = make_cross_modal(
        200, difficulty=difficulty, misalignment=0, modality_gap=0, **PLAIN | {"n_features": 200}
    )
    found = cosine(data.X_train[::2], data.X_train[1::2]).mean()
    assert found == pytest.approx(1 / (1 + difficulty**2), abs=0.05)


def test_the_scatter_has_eigenvalues_that_decay_and_is_the_same_in_all_classes():
    """One over k, but for the direction that scaling to length 1 takes away."""
    data = make_cross_modal(
        2, difficulty=0.01, n_features=60, n_train=4000, n_test=1, random_state=0
    )
    scatters = [
        np.cov(data.X_train[data.y_train == label].T.astype(float)) for label in data.class_names
    ]
    spectra = [np.sort(np.linalg.eigvalsh(S))[::-1] for S in scatters]
    for spectrum in spectra:
        k = np.arange(1, 31)
        ratio = spectrum[:30] / spectrum[0]
        assert (ratio > 0.8 / (k + 1)).all()
        assert (ratio < 1.2 * 2 / k).all()
    for S, spectrum in zip(scatters, spectra, strict=True):
        assert S.diagonal().max() < spectrum[0] / 2  # along no coordinate more than along others
    axes = [np.linalg.eigh(S)[1][:, -5:] for S in scatters]
    assert np.linalg.norm(axes[0].T @ axes[1]) ** 2 / 5 > 0.7


def test_training_and_test_samples_are_different_ones_of_the_same_classes():
    data = make_cross_modal(5, n_train=3, n_test=3, difficulty=0.1, random_state=0)
    assert data.y_train.tolist() == data.y_test.tolist() == np.repeat(data.class_names, 3).tolist()
    assert not np.isin(data.X_train[:, 0], data.X_test[:, 0]).any()
    assert (cosine(data.X_train, data.X_test) > 0.9).all()


def test_text_in_a_space_of_its_own_is_a_linear_image_of_the_joint_one():
    """The meanings stay: as many directions, mapped by one matrix."""
    params = {"n_features": 30, "misalignment": 0, "difficulty": 0, "random_state": 0}
    mapped = make_cross_modal(20, joint=False, n_text_features=40, **params)
    E = vectors(mapped)
    assert np.linalg.matrix_rank(E) == 20
    assert E.shape == (20, 40)
    np.testing.assert_allclose(np.linalg.norm(E, axis=1), 1)
    many = make_cross_modal(60, joint=False, n_text_features=40, **params)
    assert np.linalg.matrix_rank(vectors(many)) == 30


def test_names_sort_in_the_order_of_the_classes():
    names = make_cross_modal(101, n_train=1, n_test=1, n_features=4, random_state=0).class_names
    assert names == sorted(names)
    assert (names[0], names[-1]) == ("class 000", "class 100")


def test_a_joint_space_has_one_width():
    with pytest.raises(ValueError, match=r"joint=True.*joint=False"):
        make_cross_modal(n_text_features=10)
