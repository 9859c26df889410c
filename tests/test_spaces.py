"""Maps between spaces, and the rule that says whether one is needed."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from flowalign import spaces


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("e", "d"), [(8, 8), (5, 8)])
def test_map_recovers_a_similarity_transform(e, d, rng):
    E = rng.standard_normal((12, e))
    rotation = ortho_group.rvs(d, random_state=0)[:e]
    M = 3.0 + 0.7 * E @ rotation
    embedding_map = spaces.ProcrustesMap.fit(E, M)
    assert embedding_map.scale == pytest.approx(0.7)
    np.testing.assert_allclose(embedding_map.rotation, rotation, atol=1e-10)
    np.testing.assert_allclose(embedding_map(E), M, atol=1e-10)


def test_equal_widths_agree_with_scipy(rng):
    E, M = rng.standard_normal((20, 6)), rng.standard_normal((20, 6))
    E_c, M_c = E - E.mean(axis=0), M - M.mean(axis=0)
    rotation, total = orthogonal_procrustes(E_c, M_c)
    embedding_map = spaces.ProcrustesMap.fit(E, M)
    np.testing.assert_allclose(embedding_map.rotation, rotation, atol=1e-10)
    assert embedding_map.scale == pytest.approx(total / np.square(E_c).sum())


@pytest.mark.parametrize(("e", "d"), [(4, 9), (9, 4), (6, 6)])
def test_no_other_scale_fits_better(e, d, rng):
    E, M = rng.standard_normal((7, e)), rng.standard_normal((7, d))
    embedding_map = spaces.ProcrustesMap.fit(E, M)
    mapped = (E - E.mean(axis=0)) @ embedding_map.rotation
    errors = [
        np.linalg.norm(M - M.mean(axis=0) - factor * embedding_map.scale * mapped)
        for factor in (0.99, 1, 1.01)
    ]
    assert np.argmin(errors) == 1


@pytest.mark.parametrize("C", [2, 3, 10])
def test_rotation_is_orthonormal_where_it_is_defined(C, rng):
    embedding_map = spaces.ProcrustesMap.fit(
        rng.standard_normal((C, 30)), rng.standard_normal((C, 20))
    )
    singular_values = np.linalg.svd(embedding_map.rotation, compute_uv=False)
    np.testing.assert_allclose(singular_values[: C - 1], 1)
    np.testing.assert_allclose(singular_values[C - 1 :], 0, atol=1e-10)


def test_without_spread_there_is_no_map(rng):
    row = rng.standard_normal((1, 4))
    assert spaces.ProcrustesMap.fit(row, row) is None
    assert spaces.ProcrustesMap.fit(np.tile(row, (3, 1)), rng.standard_normal((3, 5))) is None


def test_targets_without_a_map_are_the_class_means(rng):
    X = rng.standard_normal((4, 5))
    E = rng.standard_normal((3, 2))
    targets, joint, embedding_map = spaces.place_targets(E, X, np.array([1, 1, 1, 1]), "auto")
    assert not joint
    assert embedding_map is None
    np.testing.assert_allclose(targets, np.tile(X.mean(axis=0), (3, 1)))
    same = np.ones((2, 2))
    targets, _, _ = spaces.place_targets(same, X, np.array([0, 0, 1, 1]), "auto")
    np.testing.assert_allclose(targets, [X[:2].mean(axis=0), X[2:].mean(axis=0)])


def test_a_class_without_samples_is_mapped_by_the_others(rng):
    E = rng.standard_normal((9, 4))
    X = 1.5 * E @ ortho_group.rvs(6, random_state=0)[:4]
    targets, _, _ = spaces.place_targets(E, X[:8], np.arange(8), "auto")
    np.testing.assert_allclose(targets[8], X[8], atol=1e-8)


@pytest.mark.parametrize("C", [2, 5, 40])
def test_joint_rule(C, rng):
    d = 128
    E = rng.standard_normal((C, d))
    X = E + rng.standard_normal((C, d))
    rotated = E @ ortho_group.rvs(d, random_state=1)
    codes = np.arange(C)
    assert spaces.place_targets(E, X, codes, "auto")[1]
    assert not spaces.place_targets(rotated, X, codes, "auto")[1]
    assert not spaces.place_targets(E[:, :64], X, codes, "auto")[1]
    assert spaces.place_targets(rotated, X, codes, True)[1]
    assert not spaces.place_targets(E, X, codes, False)[1]


@pytest.mark.parametrize("d", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("C", [2, 3, 8])
def test_identical_spaces_are_joint_however_narrow(d, C, rng):
    E = rng.standard_normal((C, d))
    assert spaces.place_targets(E, E + 1.0, np.arange(C), "auto")[1]


def test_score_is_standard_normal_between_unrelated_spaces(rng):
    E, M = rng.standard_normal((2, 10, 32))
    scores = [
        spaces.alignment_score(E @ rotation, M)
        for rotation in ortho_group.rvs(32, size=2000, random_state=2)
    ]
    assert abs(np.mean(scores)) < 0.1
    assert np.std(scores) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_unit_rows_at_any_scale(scale, rng):
    X = rng.standard_normal((5, 4))
    np.testing.assert_allclose(
        spaces.unit_rows(scale * X, "X"), X / np.linalg.norm(X, axis=1, keepdims=True)
    )


def test_zero_rows_are_named():
    with pytest.raises(ValueError, match=r"X has rows of zeros.*: 1, 3\."):
        spaces.unit_rows(np.array([[1.0], [0], [2], [0]]), "X")


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_cosine_similarities(scale, rng):
    x, targets = rng.standard_normal((4, 6)), rng.standard_normal((3, 6))
    cosines = spaces.cosine_similarities(
        torch.tensor(scale * x).float(), torch.tensor(targets / scale).float()
    )
    norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(targets, axis=1)
    np.testing.assert_allclose(cosines.numpy(), x @ targets.T / norms, rtol=1e-4, atol=1e-6)


def test_cosine_with_nothing_is_zero():
    zero, row = torch.zeros(1, 3), torch.ones(1, 3)
    assert spaces.cosine_similarities(zero, row) == 0
    assert spaces.cosine_similarities(row, zero) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contrasts_are_cosines_less_their_mean(dtype, rng):
    x, targets = torch.tensor(rng.standard_normal((2, 7, 6)), dtype=dtype)
    cosines = spaces.cosine_similarities(x, targets)
    contrasts = spaces.directions(x) @ spaces.contrasts(targets).T
    assert contrasts.dtype == dtype
    torch.testing.assert_close(contrasts, cosines - cosines.mean(dim=1, keepdim=True))


def test_contrasts_have_digits_where_cosines_have_none(rng):
    near = 1 + rng.standard_normal((9, 64)) / 10_000
    x = torch.tensor(near[:5]).float()
    targets = torch.tensor(near[4:]).float()
    exact = spaces.cosine_similarities(x.double(), targets.double())
    exact -= exact.mean(dim=1, keepdim=True)
    rounded = spaces.cosine_similarities(x, targets)
    contrasts = spaces.directions(x) @ spaces.contrasts(targets).T
    contrasts -= contrasts.mean(dim=1, keepdim=True)
    size = exact.abs().max()
    assert (contrasts - exact).abs().max() < 0.01 * size
    assert (rounded - rounded.mean(dim=1, keepdim=True) - exact).abs().max() > size


def test_a_target_of_zeros_has_the_contrast_of_similarity_0(rng):
    targets = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    expected = torch.tensor([[-1 / 3, 2 / 3, -1 / 3]])
    contrasts = torch.tensor([[1.0, 0.0]]) @ spaces.contrasts(targets).T
    torch.testing.assert_close(contrasts, expected)


def test_class_means_do_not_depend_on_row_order(rng):
    X, codes = rng.standard_normal((30, 4)), np.repeat([0, 2, 3], 10)
    order = rng.permutation(30)
    expected = np.stack([X[codes == c].mean(axis=0) for c in (0, 2, 3)])
    np.testing.assert_allclose(spaces.class_means(X, codes), expected)
    np.testing.assert_allclose(spaces.class_means(X[order], codes[order]), expected)
