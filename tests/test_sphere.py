"""Rows of length 1, and the cosines between them."""

import numpy as np
import pytest
import torch

from flowalign import FlowMatchingAligner, blocks, sphere


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_unit_rows_at_any_scale(scale, rng):
    X = rng.standard_normal((5, 4))
    np.testing.assert_allclose(
        sphere.unit_rows(scale * X, "X"), X / np.linalg.norm(X, axis=1, keepdims=True)
    )


def test_zero_rows_are_named():
    X = np.array([[1.0], [0], [2], [0]])
    with pytest.raises(ValueError, match=r"X has rows of zeros.*: 1, 3\."):
        sphere.unit_rows(X, "X")
    with pytest.raises(ValueError, match=r"X has rows of zeros.*: 41, 43\."):
        sphere.unit_rows(X, "X", first=40)
    allowed = sphere.unit_rows(X, "X", zeros_allowed=True)
    np.testing.assert_array_equal(allowed, [[1], [0], [1], [0]])


def test_rows_are_scaled_block_by_block(monkeypatch, rng):
    monkeypatch.setattr("flowalign.blocks.ROWS", 4)
    X = rng.standard_normal((11, 3))
    kept = X.copy()
    expected = X / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(sphere.unit_rows(X, "X"), expected, rtol=1e-12)
    np.testing.assert_array_equal(X, kept)
    X[[2, 5, 10]] = 0
    with pytest.raises(ValueError, match=r": 2, 5, 10\."):
        sphere.unit_rows(X, "X")


@pytest.mark.parametrize("row", [0, 3, 4, 10])
def test_a_row_of_zeros_is_named_in_whichever_block_it_is(row, monkeypatch, rng):
    X, y = rng.standard_normal((6, 4)), np.arange(6) % 3
    model = FlowMatchingAligner(n_steps=2, logit_scale=10).fit(X, y)
    monkeypatch.setitem(blocks.STATE_BYTES, "cpu", 4 * 4 * 8)
    new = rng.standard_normal((11, 4))
    new[row] = 0
    with pytest.raises(ValueError, match=rf"X has rows of zeros.*: {row}\."):
        model.predict(new)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_cosine_similarities(scale, rng):
    x, targets = rng.standard_normal((4, 6)), rng.standard_normal((3, 6))
    cosines = sphere.cosine_similarities(
        torch.tensor(scale * x).float(), torch.tensor(targets / scale).float()
    )
    norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(targets, axis=1)
    np.testing.assert_allclose(cosines.numpy(), x @ targets.T / norms, rtol=1e-4, atol=1e-6)


def test_cosine_with_nothing_is_zero():
    zero, row = torch.zeros(1, 3), torch.ones(1, 3)
    assert sphere.cosine_similarities(zero, row) == 0
    assert sphere.cosine_similarities(row, zero) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contrasts_are_cosines_less_their_mean(dtype, rng):
    x, targets = torch.tensor(rng.standard_normal((2, 7, 6)), dtype=dtype)
    cosines = sphere.cosine_similarities(x, targets)
    contrasts = sphere.contrasts(x, targets)
    assert contrasts.dtype == dtype
    torch.testing.assert_close(contrasts, cosines - cosines.mean(dim=1, keepdim=True))


def test_contrasts_have_digits_where_cosines_have_none(rng):
    near = 1 + rng.standard_normal((9, 64)) / 10_000
    x = torch.tensor(near[:5]).float()
    targets = torch.tensor(near[4:]).float()
    exact = sphere.cosine_similarities(x.double(), targets.double())
    exact -= exact.mean(dim=1, keepdim=True)
    rounded = sphere.cosine_similarities(x, targets)
    contrasts = sphere.contrasts(x, targets)
    contrasts -= contrasts.mean(dim=1, keepdim=True)
    size = exact.abs().max()
    assert (contrasts - exact).abs().max() < 0.01 * size
    assert (rounded - rounded.mean(dim=1, keepdim=True) - exact).abs().max() > size


def test_a_target_of_zeros_has_the_contrast_of_similarity_0(rng):
    targets = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    expected = torch.tensor([[-1 / 3, 2 / 3, -1 / 3]])
    contrasts = sphere.contrasts(torch.tensor([[1.0, 0.0]]), targets)
    torch.testing.assert_close(contrasts, expected)
