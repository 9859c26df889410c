"""Support sets out of the ordinary have an answer too, and it is the right one."""

import numpy as np
import pytest


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("case", ["one per class", "imbalanced", "duplicates", "no spread"])
def test_unusual_support_sets_are_learned(case, text, small):
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 4)
    X = 3 * np.eye(8)[np.repeat([0, 1, 2], 4)] + 0.3 * rng.normal(size=(12, 8))
    rows = {
        "one per class": [0, 4, 8],
        "imbalanced": range(9),  # one of c
        "duplicates": np.repeat([0, 4, 8], 4),
        "no spread": [0, 0, 0, 4, 4, 8],
    }[case]
    E = {label: rng.normal(size=5) for label in "abc"} if text else None
    model = small().fit(X[rows], y[rows], E)
    assert model.predict(X).tolist() == y.tolist()
    assert (model.predict_proba(X).max(axis=1) > 0.9).all()


@pytest.mark.parametrize("case", ["one class", "one sample"])
def test_samples_of_one_class_tell_nothing_of_text_in_another_space(case, small):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12 if case == "one class" else 1, 8))
    y = np.repeat("a", len(X))
    alone = small().fit(X, y)
    np.testing.assert_array_equal(alone.predict_proba(X), 1)
    assert set(alone.predict(X)) == {"a"}
    # A rotation is found from the differences between classes, and there is none.
    with_text = small().fit(X, y, {label: rng.normal(size=5) for label in "abc"})
    np.testing.assert_allclose(with_text.predict_proba(X), 1 / 3, atol=1e-6)


@pytest.mark.parametrize("text", [False, True])
def test_constant_features_tell_no_class_from_another(text, small):
    E = dict(zip("abc", np.eye(3), strict=True)) if text else None
    model = small().fit(np.ones((12, 8)), np.repeat(["a", "b", "c"], 4), E)
    np.testing.assert_allclose(model.predict_proba(np.ones((2, 8))), 1 / 3, atol=1e-6)


@pytest.mark.parametrize("text", [False, True])
def test_of_a_single_coordinate_the_sign_is_all(text, small):
    """Length 1 leaves nothing else: a is on one side, b and c are together on the other."""
    X = np.array([[3.0], [0.5], [-1.0], [-7.0], [-2.0], [-0.1]])
    # Of the text too the first coordinate is all that can be carried over.
    E = {"a": [1.0, 0.2], "b": [-1.0, 0.1], "c": [-1.0, -0.3]} if text else None
    model = small().fit(X, ["a", "a", "b", "b", "c", "c"], E)
    np.testing.assert_allclose(
        model.predict_proba([[9.0], [-0.2]]), [[1, 0, 0], [0, 0.5, 0.5]], atol=1e-6
    )


def test_a_thousand_classes(small):
    rng = np.random.default_rng(0)
    E = rng.normal(size=(1000, 16))
    y = np.arange(1000)
    model = small(E, max_iter=1).fit(np.repeat(E, 2, axis=0), np.repeat(y, 2))
    assert model.score(E, y) > 0.9
