"""Statistics of parts add up to those of the whole, and say all that a model needs."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.statistics import MANY, ClassStatistics

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
    parts = [ClassStatistics.of(X[k::2], codes[k::2], C) for k in range(2)]
    assert len((parts[0] + parts[1]).scatter) < 20
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
        with pytest.raises(ValueError, match="same classes and features"):
            statistics - other
    with pytest.raises(TypeError):
        statistics + 1
    with pytest.raises(TypeError):
        statistics - 1


# ------------------------------------------------------------------ taking away


def alike(found, expected, atol=1e-9, size=None):
    """Statistics of the same samples, to rounding of some size."""
    size = size or max(1.0, float(expected.products.abs().max()))
    torch.testing.assert_close(found.counts, expected.counts, rtol=0, atol=0)
    torch.testing.assert_close(found.sums, expected.sums, rtol=1e-9, atol=atol * size)
    torch.testing.assert_close(found.products, expected.products, rtol=1e-9, atol=atol * size)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    d=st.sampled_from([3, 12, 60]),
    n_gone=st.integers(0, 40),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_what_is_taken_away_was_never_there(n, d, n_gone, seed, dtype):
    """Of sums, and of a set of which some go; until classes have one sample, or none."""
    X, codes, _ = samples(n + n_gone, d, seed, dtype)
    rows = n + np.random.default_rng(seed).permutation(n_gone)  # in another order: sums are rounded
    stay = ClassStatistics.of(X[:n], codes[:n], C)
    gone = ClassStatistics.of(X[rows], codes[rows], C)
    together = ClassStatistics.of(X, codes, C)
    for whole in (stay + gone, together):
        left = whole - gone
        alike(left, stay, size=max(1.0, float(whole.products.abs().max())))
        assert (left.sums[left.counts == 0] == 0).all()
        if stay.counts.max() == 1:
            assert float(left.products.abs().max()) == 0
        assert left.within == (None if stay.within is None else pytest.approx(stay.within))
    nothing = together - together
    assert nothing.n == 0
    assert float(nothing.sums.abs().max()) == float(nothing.products.abs().max()) == 0


def test_no_more_than_there_are_can_be_taken_away():
    X, codes, _ = samples(20, 3, 0)
    some = ClassStatistics.of(X[:5], codes[:5], C)
    with pytest.raises(ValueError, match="fewer samples than are to be taken away"):
        some - ClassStatistics.of(X, codes, C)


def test_one_shot_classes_have_no_scatter():
    X, codes = torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % 4
    left = ClassStatistics.of(X, codes, 4) - ClassStatistics.of(X[4:], codes[4:], 4)
    assert left.within is None
    assert left.scatter.shape == (0, 3)
    torch.testing.assert_close(left.sums, X[:4])
    alike(left + ClassStatistics.of(X[4:], codes[4:], 4), ClassStatistics.of(X, codes, 4))


# ------------------------------------------------------------------ weights and places


@pytest.mark.parametrize(("n", "d"), [(40, 6), (9, 30), (MANY, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_numbers_of_times(n, d, dtype):
    X, codes, _ = samples(n, d, 0, dtype)
    times = torch.from_numpy(np.random.default_rng(1).integers(0, 4, size=n))
    repeated = ClassStatistics.of(X.repeat_interleave(times, 0), codes.repeat_interleave(times), C)
    weighed = ClassStatistics.of(X, codes, C, times)
    alike(weighed, repeated, atol=2e-6 if n == MANY and dtype == np.float32 else 1e-9)
    alike(ClassStatistics.of(X, codes, C, torch.ones(n)), ClassStatistics.of(X, codes, C), 0)


def test_classes_move_and_what_they_add_to_the_scatter_stays():
    X, codes, _ = samples(40, 6, 0)
    statistics = ClassStatistics.of(X, codes, C)
    moved = statistics.placed(np.array([6, -1, 0, 2, 3]), 7)
    for array, old in ((moved.counts, statistics.counts), (moved.sums, statistics.sums)):
        torch.testing.assert_close(array[[6, 0, 2, 3]], old[[0, 2, 3, 4]])
        assert float(array[[1, 4, 5]].abs().max()) == 0
    torch.testing.assert_close(moved.products, statistics.products)
    alike(statistics.placed(np.arange(C), C), statistics, 0)


def test_no_samples_are_what_can_be_added():
    X, codes, _ = samples(40, 6, 0)
    statistics = ClassStatistics.of(X, codes, C)
    none = ClassStatistics.none(C, 6)
    assert (none.n, none.within, none.sampled.tolist()) == (0, None, [])
    for total in (statistics + none, none + statistics, statistics - none):
        alike(total, statistics)


# ------------------------------------------------------------------ float32, pickles


@pytest.mark.parametrize("offset", [0, 7, 1000])
@pytest.mark.parametrize("d", [6, 64])
def test_of_many_rows_products_of_float32_do(d, offset):
    """They are off by a few digits of float32; those of fewer rows not at all."""
    X, codes, _ = samples(10_000, d, 0)
    X = (X - 7 + offset).float()
    found, exact = ClassStatistics.of(X, codes, C), ClassStatistics.of(X.double(), codes, C)
    assert found.scatter.dtype == found.sums.dtype == torch.float64
    alike(found, exact, atol=2e-6)
    assert not torch.equal(found.scatter, exact.scatter)
    few = [ClassStatistics.of(x[: MANY - 1], codes[: MANY - 1], C) for x in (X, X.double())]
    alike(*few, atol=0)


def test_means_that_float32_rounds_leave_no_trace():
    """A common part of 1e5, and classes as wide as its last digits."""
    rng = np.random.default_rng(0)
    X, codes = 1e5 + rng.integers(-2, 3, size=(10_000, 4)) / 128, rng.integers(3, size=10_000)
    X, codes = torch.from_numpy(X).float(), torch.from_numpy(codes)
    exact = ClassStatistics.of(X.double(), codes, 3)
    alike(ClassStatistics.of(X, codes, 3), exact, atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (9, 30)])
def test_pickles_hold_arrays(n, d):
    X, codes, _ = samples(n, d, 0)
    statistics = ClassStatistics.of(X, codes, C)
    assert all(isinstance(part, np.ndarray) for part in statistics.__getstate__().values())
    loaded = pickle.loads(pickle.dumps(statistics))
    for name, part in vars(statistics).items():
        torch.testing.assert_close(getattr(loaded, name), part, rtol=0, atol=0)
    loaded.counts.add_(1)  # what was loaded can be worked with
    alike(ClassStatistics.of(X, codes, C), statistics, 0)
