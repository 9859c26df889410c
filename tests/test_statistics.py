"""Statistics of parts add up to those of the whole, and say all that a model needs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.statistics import ClassStatistics

C = 5


def samples(n, d, seed, dtype=np.float64):
    """Features far from the origin, some classes with one sample or none, and class embeddings."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(C, size=n, p=[0.4, 0.3, 0.2, 0.1, 0.0])
    X = 7 + rng.normal(size=(C, d))[codes] + rng.normal(size=(n, d))
    return torch.from_numpy(X.astype(dtype)), torch.from_numpy(codes), rng.normal(size=(C, 3))


def test_they_are_counts_sums_and_the_scatter_within_classes():
    for n, d in ((40, 6), (9, 20)):
        X, codes, _ = samples(n, d, 0)
        found = ClassStatistics.of(X, codes, C)
        x, y = X.numpy(), codes.numpy()
        groups = [x[y == c] for c in range(C)]
        np.testing.assert_array_equal(found.counts, [len(rows) for rows in groups])
        np.testing.assert_allclose(found.sums, [rows.sum(axis=0) for rows in groups])
        deviations = np.concatenate([rows - rows.mean(axis=0) for rows in groups if len(rows)])
        np.testing.assert_allclose(found.products, deviations.T @ deviations, atol=1e-10)
        sampled = [c for c in range(C) if len(groups[c])]
        assert found.sampled.tolist() == sampled
        assert found.n == n
        np.testing.assert_allclose(found.means[sampled], [groups[c].mean(axis=0) for c in sampled])
        assert found.means[C - 1].abs().max() == 0  # nobody
        assert found.within == pytest.approx(np.square(deviations).sum() / (n - len(sampled)))
        assert found.mean_square == pytest.approx(x.var(axis=0).mean())


def test_of_few_samples_rows_are_kept_and_of_many_their_products():
    X, codes, _ = samples(9, 20, 0)
    assert len(ClassStatistics.of(X, codes, C).scatter) < 9
    X, codes, _ = samples(20, 20, 0)
    assert ClassStatistics.of(X, codes, C).scatter.shape == (20, 20)


def test_what_does_not_vary_is_measured_by_its_size():
    still = ClassStatistics.of(torch.full((4, 3), 2.0), torch.tensor([0, 0, 1, 1]), 2)
    assert still.within == 0
    assert still.mean_square == 4
    assert ClassStatistics.of(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]), 2).mean_square == 1


def test_without_two_samples_of_a_class_nothing_is_known_within():
    assert ClassStatistics.of(torch.eye(3), torch.arange(3), 3).within is None


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 40),
    d=st.sampled_from([3, 12, 60]),
    n_parts=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_split_in_any_order_gives_the_same_model(n, d, n_parts, seed, dtype):
    X, codes, E = samples(n, d, seed, dtype)
    rng = np.random.default_rng(seed)
    part_of = torch.from_numpy(rng.integers(n_parts, size=n))
    parts = [
        ClassStatistics.of(X[part_of == k], codes[part_of == k], C)
        for k in rng.permutation(n_parts)
    ]
    merged = sum(parts[1:], start=parts[0])
    whole = ClassStatistics.of(X, codes, C)
    np.testing.assert_array_equal(merged.counts, whole.counts)
    np.testing.assert_allclose(merged.sums, whole.sums, rtol=1e-9)
    np.testing.assert_allclose(merged.products, whole.products, atol=1e-8)
    one, other = (GaussianModel.of(part, torch.from_numpy(E)) for part in (merged, whole))
    np.testing.assert_allclose(one.class_means.means, other.class_means.means, atol=1e-6)
    np.testing.assert_allclose(one.class_means.covariance, other.class_means.covariance, atol=1e-6)
    # Eigenvectors are free in their sign, the covariance is not.
    covariances = [m.within.basis * m.within.variances @ m.within.basis.T for m in (one, other)]
    np.testing.assert_allclose(*covariances, atol=1e-6 * float(covariances[1].trace()) / d)


@pytest.mark.parametrize("n", [6, 7, 8, 9, 10])
@pytest.mark.parametrize("n_first", [2, 4])
def test_around_as_many_samples_as_features_nothing_is_special(n, n_first):
    """Where rows give way to their products, of one set and of two that are added."""
    d = 8
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(n, d)))
    codes = torch.arange(n) % 2
    deviations = torch.cat([X[codes == c] - X[codes == c].mean(dim=0) for c in range(2)])
    parts = [
        ClassStatistics.of(X[rows], codes[rows], 2) for rows in (slice(n_first), slice(n_first, n))
    ]
    for found in (ClassStatistics.of(X, codes, 2), parts[0] + parts[1]):
        torch.testing.assert_close(found.products, deviations.T @ deviations)
        assert found.within == pytest.approx(float(deviations.square().sum()) / (n - 2))


def test_only_statistics_of_the_same_classes_and_features_add_up():
    X, codes = torch.ones(4, 3), torch.tensor([0, 0, 1, 1])
    statistics = ClassStatistics.of(X, codes, 2)
    for other in (ClassStatistics.of(X, codes, 3), ClassStatistics.of(X[:, :1], codes, 2)):
        with pytest.raises(ValueError, match="same classes and features"):
            statistics + other
    with pytest.raises(TypeError):
        statistics + 1
