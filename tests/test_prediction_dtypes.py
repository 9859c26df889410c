"""Features of any dtype, in any container, are the same features."""

import numpy as np
import pandas as pd
import pytest
import torch

from flowalign import FlowMatchingAligner


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_results_have_the_dtype_of_the_features(dtype, fitted):
    X = (10 * np.random.default_rng(0).normal(size=(20, 32))).astype(dtype)
    expected = {np.float16: np.float32, np.int32: np.float64}.get(dtype, dtype)
    assert fitted.transform(X).dtype == expected
    assert fitted.decision_function(X).dtype == expected
    assert fitted.predict_proba(X).dtype == expected
    assert fitted.trajectory(X).dtype == expected
    assert next(iter(fitted.staged_predict_proba(X))).dtype == expected


def test_float64_is_not_float32_in_disguise(model, X):
    near = X.copy()
    near[:, 0] += 1e-12
    difference = model.transform(near) - model.transform(X)
    assert 0 < np.abs(difference).max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors(dtype, fitted, data):
    X = torch.tensor(data.X_test).to(dtype)
    expected = fitted.transform(X.float().numpy())
    assert fitted.transform(X).dtype == np.float32
    np.testing.assert_array_equal(fitted.transform(X), expected)
    requires_grad = X.clone().requires_grad_()
    np.testing.assert_array_equal(fitted.transform(requires_grad), expected)


def test_frames(data, velocity_field):
    columns = [f"f{i}" for i in range(32)]
    frame = pd.DataFrame(data.X_train, columns=columns)
    model = FlowMatchingAligner(
        velocity_field=velocity_field, max_iter=2, n_blocks=1, random_state=0
    )
    model.fit(frame, pd.Series(data.y_train), data.class_embeddings)
    assert model.feature_names_in_.tolist() == columns
    assert model.transform(frame.astype(np.float16)).dtype == np.float32
    model.set_output(transform="pandas")
    assert isinstance(model.transform(frame), pd.DataFrame)
    # predict does not go through the public, wrapped transform
    assert isinstance(model.predict(frame), np.ndarray)
    assert model.get_feature_names_out()[0] == "flowmatchingaligner0"


@pytest.mark.parametrize("dtype", ["Float64", "Float32", "Int64"])
def test_frames_of_nullable_numbers(dtype, data, small):
    numbers = (10 * data.X_train).round()
    frame = pd.DataFrame(numbers).astype(dtype)
    model = small().fit(frame, data.y_train)
    plain = small().fit(numbers.astype(dtype.lower()), data.y_train)
    np.testing.assert_allclose(
        model.predict_proba(frame), plain.predict_proba(numbers), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_features_in_the_other_order_of_bytes_are_the_same(dtype, fitted, data):
    X = data.X_test.astype(dtype)
    for order in "<>":
        found = fitted.transform(X.astype(f"{order}{dtype}"))
        assert found.dtype == X.dtype
        np.testing.assert_array_equal(found, fitted.transform(X))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_empty_rows_of_integers_are_pixels_and_of_floats_failures(dtype, small):
    """A row without direction is like no class and so like all of them."""
    X = (np.arange(40).reshape(10, 4) % 5).astype(dtype)
    X[3] = 0
    y = np.arange(10) % 2
    model = small(n_steps=0).fit(X, y)
    np.testing.assert_array_equal(model.transform(X[3:4]), 0)
    np.testing.assert_array_equal(model.predict_proba(X[3:4]), 0.5)
    assert model.predict(X[3:4]) == [0]
    for call in (model.predict, lambda X: small().fit(X, y)):
        with pytest.raises(ValueError, match=r"X has rows of zeros.*: 3\."):
            call(X.astype(float))
