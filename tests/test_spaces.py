"""Maps between spaces, and the rule that says whether one is needed."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from flowalign import spaces


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def place(E, X, codes, joint="auto"):
    """Place the classes of samples."""
    return spaces.place_targets(E, spaces.class_means(X, codes), np.unique(codes), joint)


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


def test_what_two_names_share_is_no_direction_of_the_map(rng):
    """Equal embeddings, of classes that are apart: one direction of the features is not known."""
    E, M = rng.standard_normal((6, 30)), rng.standard_normal((6, 20))
    E[5] = E[4]
    singular_values = np.linalg.svd(spaces.ProcrustesMap.fit(E, M).rotation, compute_uv=False)
    np.testing.assert_allclose(singular_values[:4], 1)
    np.testing.assert_allclose(singular_values[4:], 0, atol=1e-10)


def test_without_spread_there_is_no_map(rng):
    row = rng.standard_normal((1, 4))
    assert spaces.ProcrustesMap.fit(row, row) is None
    assert spaces.ProcrustesMap.fit(np.tile(row, (3, 1)), rng.standard_normal((3, 5))) is None


def test_targets_without_a_map_are_the_class_means(rng):
    X = rng.standard_normal((4, 5))
    E = rng.standard_normal((3, 2))
    targets, joint, embedding_map = place(E, X, np.array([1, 1, 1, 1]))
    assert not joint
    assert embedding_map is None
    np.testing.assert_allclose(targets, np.tile(X.mean(axis=0), (3, 1)))
    same = np.ones((2, 2))
    targets, _, _ = place(same, X, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(targets, [X[:2].mean(axis=0), X[2:].mean(axis=0)])


def test_without_a_map_classes_count_alike_however_many_samples_they_have(rng):
    """A class without samples lies in the middle of the others."""
    X, codes = rng.standard_normal((9, 5)), np.array([0, 2, 2, 2, 2, 2, 2, 2, 2])
    targets, _, embedding_map = place(np.ones((3, 2)), X, codes)
    assert embedding_map is None
    np.testing.assert_allclose(targets[[0, 2]], [X[0], X[1:].mean(axis=0)])
    np.testing.assert_allclose(targets[1], (targets[0] + targets[2]) / 2)


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
    assert not spaces.place_targets(E, X[:, :64], codes, "auto")[1]
    assert spaces.place_targets(rotated, X, codes, True)[1]
    assert not spaces.place_targets(E, X, codes, False)[1]


@pytest.mark.parametrize("d", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("C", [2, 3, 8])
def test_identical_spaces_are_joint_however_narrow(d, C, rng):
    E = rng.standard_normal((C, d))
    assert spaces.place_targets(E, E + 1.0, np.arange(C), "auto")[1]


def unrelated(n, C, d, seed=0):
    """Embeddings that point anywhere, and class means: n pairs of spaces, with their scores."""
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((C, d))
    embeddings = rng.standard_normal((n, C, d))
    return M, embeddings, np.array([spaces.alignment_score(E, M) for E in embeddings])


def test_unrelated_spaces_are_hardly_ever_taken_for_one():
    """In about 1 of 700 cases."""
    n, C = 10_000, 5
    M, embeddings, scores = unrelated(n, C, 64)
    likely = embeddings[scores > 2]
    joint = sum(spaces.place_targets(E, M, np.arange(C), "auto")[1] for E in likely)
    assert n / 1400 < joint < n / 350


@pytest.mark.parametrize(("d", "least"), [(64, 3.0), (37, 3.0), (36, 3.0), (16, 2.0), (4, 1.0)])
def test_the_score_that_joins_two_spaces(d, least):
    """3, and half the root of the width where that is less."""
    M, embeddings, scores = unrelated(4000, 3, d)
    near = np.abs(scores - least) < 0.3
    assert near.sum() > 3
    for E, score in zip(embeddings[near], scores[near], strict=True):
        assert spaces.place_targets(E, M, np.arange(3), "auto")[1] == (score > least)


@pytest.mark.parametrize("d", [4, 40])
def test_one_sampled_class_leaves_no_score(d, rng):
    """Two spaces of one width are then taken for one."""
    X, codes = rng.standard_normal((3, d)), np.array([1, 1, 1])
    for width in (d, d - 1):
        E = rng.standard_normal((4, width))
        assert place(E, X, codes)[1] == (width == d)
    assert spaces.alignment_score(E[:1], E[:1]) == 0
    assert spaces.alignment_score(np.ones((3, d)), X) == 0


def test_embeddings_of_another_width_are_not_joint_by_decree(rng):
    E, X = rng.standard_normal((3, 5)), rng.standard_normal((3, 8))
    with pytest.raises(ValueError, match=r"joint=True .* 5 wide and X is 8 wide.*joint='auto'"):
        spaces.place_targets(E, X, np.arange(3), True)


def test_where_the_origin_is_does_not_matter_to_score_and_map(rng):
    """Both look at differences between classes; the common part of a modality says nothing."""
    E, M = rng.standard_normal((2, 6, 12))
    offset = 100 * rng.standard_normal((2, 12))
    score = spaces.alignment_score(E, M)
    assert spaces.alignment_score(E + offset[0], M + offset[1]) == pytest.approx(score, rel=1e-6)
    for scale in (1e-3, 1e3):
        assert spaces.alignment_score(scale * E, M / scale) == pytest.approx(score, rel=1e-9)
    large = spaces.alignment_score(*(1e12 * np.float32([E, M])))
    assert large == pytest.approx(score, rel=1e-5)
    found = spaces.ProcrustesMap.fit(E + offset[0], M + offset[1])(E + offset[0])
    np.testing.assert_allclose(found - offset[1], spaces.ProcrustesMap.fit(E, M)(E), atol=1e-9)


@pytest.mark.parametrize("sampled", [[0, 1, 2, 3], [1, 2, 4, 5]])
def test_only_classes_with_samples_place_the_map(sampled, rng):
    """Wherever the embeddings of the others are, and whichever classes these are."""
    E, X, codes = rng.standard_normal((6, 4)), rng.standard_normal((8, 7)), np.tile(sampled, 2)
    targets, _, embedding_map = place(E, X, codes)
    moved = 10 * rng.standard_normal((6, 4))
    moved[sampled] = E[sampled]
    other = place(moved, X, codes)[0]
    np.testing.assert_allclose(other[sampled], targets[sampled])
    M = (X[:4] + X[4:]) / 2
    np.testing.assert_allclose(
        targets[sampled], spaces.ProcrustesMap.fit(E[sampled], M)(E[sampled])
    )
    np.testing.assert_allclose(embedding_map.source_mean, E[sampled].mean(axis=0))
    np.testing.assert_allclose(embedding_map.target_mean, X.mean(axis=0))


def test_only_classes_with_samples_tell_whether_spaces_are_one(rng):
    E = rng.standard_normal((20, 64))
    X, codes = E[3:] + 0.1 * rng.standard_normal((17, 64)), np.arange(3, 20)
    E[:3] = 100 * rng.standard_normal((3, 64))
    assert spaces.place_targets(E, X, codes, "auto")[1]
    assert not spaces.place_targets(np.roll(E, 1, axis=0), X, codes, "auto")[1]


def test_float32_is_mapped_as_precisely_as_float64(rng):
    """Features of one common part and little else."""
    E, X = rng.standard_normal((6, 4)), 1000 + rng.standard_normal((6, 5))
    E, X = E.astype(np.float32), X.astype(np.float32)
    single = spaces.place_targets(E, X, np.arange(6), False)[0]
    double = spaces.place_targets(*(a.astype(np.float64) for a in (E, X)), np.arange(6), False)[0]
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-4)
    rows = np.full((20_000, 2), 0.1, dtype=np.float32)
    np.testing.assert_array_equal(spaces.class_means(rows, np.zeros(20_000, int)), rows[:1])
    assert spaces.class_means(rows, np.zeros(20_000, int)).dtype == np.float32


def test_score_is_standard_normal_between_unrelated_spaces(rng):
    E, M = rng.standard_normal((2, 10, 32))
    scores = [
        spaces.alignment_score(E @ rotation, M)
        for rotation in ortho_group.rvs(32, size=2000, random_state=2)
    ]
    assert abs(np.mean(scores)) < 0.1
    assert np.std(scores) == pytest.approx(1, abs=0.06)


def test_class_means_do_not_depend_on_row_order(rng):
    X, codes = rng.standard_normal((30, 4)), np.repeat([0, 2, 3], 10)
    order = rng.permutation(30)
    expected = np.stack([X[codes == c].mean(axis=0) for c in (0, 2, 3)])
    np.testing.assert_allclose(spaces.class_means(X, codes), expected)
    np.testing.assert_allclose(spaces.class_means(X[order], codes[order]), expected)
