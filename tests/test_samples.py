"""Samples add up and go away again, with their labels, as if others had never been there."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowalign import reserve
from flowalign.samples import Samples

NAMES = np.array(["ant", "bee", "cat", "dog", "emu"])


def drawn(counts, d=6, seed=0, dtype=np.float64):
    """Features of so many samples of each class, shuffled, and their codes."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    X = 3 + rng.normal(size=(len(counts), d))[codes] + rng.normal(size=(len(codes), d))
    return X.astype(dtype), codes


def of_labels(X, y):
    classes, codes = np.unique(y, return_inverse=True)
    return Samples.of(X, codes, classes)


def the_same(found, expected, rtol=1e-9):
    np.testing.assert_array_equal(found.classes, expected.classes)
    one, other = found.statistics, expected.statistics
    np.testing.assert_array_equal(one.counts, other.counts)
    np.testing.assert_allclose(one.sums, other.sums, rtol=rtol, atol=1e3 * rtol)
    size = max(1.0, float(other.products.abs().max()))
    np.testing.assert_allclose(one.products, other.products, atol=1e2 * rtol * size)
    assert found.reserve.X.tobytes() == expected.reserve.X.tobytes()
    np.testing.assert_array_equal(found.reserve.codes, expected.reserve.codes)
    np.testing.assert_array_equal(found.reserve.multiplicity, expected.reserve.multiplicity)


# ------------------------------------------------------------------ sums


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array(["a", "c"]), np.array(["blue whale", "c"])),
        (np.array(["b", "c"]), np.array(["a", "ü"], dtype=object)),
        (np.array([3, 5], dtype=np.int8), np.array([4, 300], dtype=np.int64)),
        (np.array([3, 5], dtype=np.uint8), np.array([-4, 5], dtype=np.int16)),
        (np.array([1, 2]), np.array([1.5, 2.0])),
        (np.array([False, True]), np.array([True, True])),
        (np.array([2**63 + 1, 5], dtype=np.uint64), np.array([6, 7], dtype=np.uint64)),
    ],
    ids=["widths", "objects", "ints", "signs", "numbers", "truth", "large"],
)
def test_parts_of_different_labels_add_up(one, other):
    X, codes = drawn([9, 8])
    half = np.arange(17) < 8
    parts = [
        of_labels(X[rows], names[codes[rows]]) for rows, names in ((half, one), (~half, other))
    ]
    y = np.array([*one[codes[half]].tolist(), *other[codes[~half]].tolist()])
    X = np.concatenate([X[half], X[~half]])
    for total in (parts[0] + parts[1], parts[1] + parts[0]):
        the_same(total, of_labels(X, y))
        assert total.classes.tolist() == sorted({*one.tolist(), *other.tolist()})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["1", "2"], [1, 2]),
        ([True, False], [1, 2]),
        (np.array([True, False], dtype=object), [0, 1]),
        ([True, False], ["True", "False"]),
        (np.array([2**63 + 1, 5], dtype=np.uint64), [-1, 2]),
        ([2**53 + 1, 5], [1.5, 2.0]),
    ],
    ids=["strings", "truth", "objects", "truth and strings", "large", "large and fractions"],
)
def test_labels_of_two_types_do_not_add_up(one, other):
    X = drawn([1, 1])[0]
    parts = [of_labels(X, np.asarray(y)) for y in (one, other)]
    for a, b in (parts, parts[::-1]):
        with pytest.raises(TypeError, match=r"y has labels .* where there are classes .*one type"):
            a + b


def test_samples_add_up_with_samples_only():
    samples = of_labels(*drawn([3, 4]))
    with pytest.raises(TypeError):
        samples + samples.statistics
    with pytest.raises(ValueError, match="X has 5 features, and had 6"):
        samples + of_labels(*drawn([3, 4], d=5))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any),
    d=st.sampled_from([2, 30]),
    n_parts=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    most=st.sampled_from([4, 12, 100]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_parts_add_up_to_the_whole(counts, d, n_parts, seed, most, dtype):
    X, codes = drawn(counts, d, seed, dtype)
    part_of = np.random.default_rng(seed).integers(n_parts, size=len(X))
    with patch.object(reserve, "MOST", most):
        parts = [of_labels(X[part_of == k], NAMES[codes[part_of == k]]) for k in range(n_parts)]
        the_same(sum(parts[1:], start=parts[0]), of_labels(X, NAMES[codes]))


def test_to_the_last_bit_the_order_of_rows_does_not_matter():
    X, codes = drawn([30, 50, 7])
    order = np.random.default_rng(1).permutation(len(X))
    one, other = (Samples.of(X[rows], codes[rows], NAMES[:3]) for rows in (slice(None), order))
    for name, value in vars(one.statistics).items():
        torch.testing.assert_close(getattr(other.statistics, name), value, rtol=0, atol=0)
    the_same(one, other)


def test_what_comes_in_is_not_changed():
    X, codes = drawn([3, 4])
    before = X.copy()
    X.setflags(write=False)
    samples = Samples.of(X, codes, NAMES[:2], ordered=False).without(X[:2], codes[:2])
    assert samples.statistics.n == 5
    np.testing.assert_array_equal(X, before)


# ------------------------------------------------------------------ samples that go


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any),
    d=st.sampled_from([2, 30]),
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.2, 0.5, 1.0]),
    copies=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_without_some_it_is_what_the_others_are(counts, d, seed, share, copies, dtype):
    X, codes = drawn(counts, d, seed, dtype)
    if copies:  # given two times, one of which may go
        X, codes = np.tile(X, (2, 1)), np.tile(codes, 2)
    gone = np.random.default_rng(seed).random(len(X)) < share
    left = Samples.of(X, codes, NAMES).without(X[gone].astype(np.float64), codes[gone])
    the_same(left, Samples.of(X[~gone], codes[~gone], NAMES))


@pytest.mark.parametrize("dropped", [[0], [1, 3], [2, 4], [0, 1, 2, 3]])
def test_without_classes_it_is_what_the_others_are(dropped):
    X, codes = drawn([4, 9, 1, 7, 0])
    X, codes = np.concatenate([X, X[:8]]), np.concatenate([codes, codes[:8]])
    samples = Samples.of(X, codes, NAMES)
    drop = np.isin(np.arange(5), dropped)
    left, whole = samples.without_classes(drop)
    assert whole
    kept = ~drop[codes]
    expected = Samples.of(X[kept], (np.cumsum(~drop) - 1)[codes[kept]], NAMES[~drop])
    the_same(left, expected)


def test_of_a_class_larger_than_the_reserve_the_scatter_per_degree_of_freedom_stays():
    X, codes = drawn([4, 40, 1, 9, 0])
    with patch.object(reserve, "MOST", 20):
        samples = Samples.of(X, codes, NAMES)
    assert samples.reserve.missing(np.array([4, 40, 1, 9, 0])).tolist() == [
        False, True, False, True, False,
    ]  # fmt: skip
    left, whole = samples.without_classes(np.array([True, True, False, False, False]))
    assert not whole
    assert left.classes.tolist() == ["cat", "dog", "emu"]
    np.testing.assert_array_equal(left.statistics.counts, [1, 9, 0])
    # What the class that is known adds is taken away, and of the rest its share.
    rest = Samples.of(X[codes > 0], codes[codes > 0], NAMES).statistics
    expected = rest.products * ((1 - 1 + 9 - 1) / (40 - 1 + 9 - 1))
    torch.testing.assert_close(left.statistics.products, expected)
    assert left.statistics.within == pytest.approx(rest.within)
    assert set(left.reserve.codes) == {0, 1}
    last, whole = left.without_classes(np.array([False, True, False]))  # nobody has two
    assert not whole
    assert float(last.statistics.products.abs().max()) == 0


def test_its_samples_can_go_first():
    X, codes = drawn([4, 40, 1, 9, 0])
    with patch.object(reserve, "MOST", 20):
        samples = Samples.of(X, codes, NAMES).without(X[codes == 1], codes[codes == 1])
    left, whole = samples.without_classes(np.arange(5) == 1)
    assert whole
    rest = ~np.isin(codes, [1])
    expected = Samples.of(X[rest], codes[rest], NAMES).among(NAMES[[0, 2, 3, 4]]).statistics
    torch.testing.assert_close(left.statistics.products, expected.products)
    torch.testing.assert_close(left.statistics.sums, expected.sums)


def test_a_class_may_go_whose_last_sample_is_not_in_the_reserve():
    X, codes = drawn([1, 40])
    with patch.object(reserve, "MOST", 8):
        samples = Samples.of(X, codes, NAMES[:2])
        kept = {row.tobytes() for row in samples.reserve.X}
        elsewhere = next(k for k in range(41) if codes[k] == 1 and X[k].tobytes() not in kept)
        most = np.flatnonzero((codes == 1) & (np.arange(41) != elsewhere))
        samples = samples.without(X[most], codes[most])
    left, whole = samples.without_classes(np.array([False, True]))
    assert not whole
    assert left.statistics.counts.tolist() == [1]
    assert float(left.statistics.products.abs().max()) == 0


def test_samples_that_were_never_given_do_not_go():
    X, codes = drawn([4, 9, 1, 7, 0])
    samples = Samples.of(X, codes, NAMES)
    a, b = np.flatnonzero(codes == 0), np.flatnonzero(codes == 1)
    with pytest.raises(ValueError, match=r"never given as samples of their class: rows 1, 2\."):
        samples.without(X[[a[0], b[0], b[1], a[1]]], np.array([0, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"y has 2 samples of 'cat' to forget, of 1 that were"):
        samples.without(X[[0, 1]], np.array([2, 2]))
    with pytest.raises(ValueError, match=r"1 samples of 'emu' to forget, of 0 that"):
        samples.without(X[[0]], np.array([4]))
    with pytest.raises(ValueError, match=r"never given as samples of their class: rows 0\."):
        samples.without(X[[a[0]]] + 0.01, np.array([0]))
    with pytest.raises(ValueError, match=r"never given as samples of their class: rows 1\."):
        samples.without(X[[a[0], a[0]]], np.array([0, 0]))


def test_of_many_samples_others_do_not_go_as_far_as_can_be_told():
    X, codes = drawn([30, 30, 5])
    with patch.object(reserve, "MOST", 12):
        samples = Samples.of(X, codes, NAMES[:3])
    rows = np.flatnonzero(codes == 1)
    message = "never given: what is left without them is no set of samples"
    with pytest.raises(ValueError, match=message):  # all of a class, of another encoder
        samples.without(X[rows] + 1e-2, codes[rows])
    with pytest.raises(ValueError, match=message):  # some, far from where they were
        samples.without(10 * X[rows[:20]], codes[rows[:20]])
    kept = samples.without(X[rows], codes[rows])
    np.testing.assert_array_equal(kept.statistics.counts, [30, 0, 5])
    assert float(kept.statistics.sums[1].abs().max()) == 0


def test_all_float32_samples_of_a_class_can_go_in_float64_and_in_parts():
    """However many they are: rounding is no sign of others."""
    X, codes = drawn([9000, 200], dtype=np.float32)
    with patch.object(reserve, "MOST", 100):
        samples = Samples.of(X, codes, NAMES[:2])
        size = float(samples.statistics.products.max())
        for rows in np.array_split(np.flatnonzero(codes == 0), 7):
            samples = samples.without(X[rows].astype(np.float64), codes[rows])
    expected = Samples.of(X[codes == 1], codes[codes == 1], NAMES[:2]).statistics
    assert samples.statistics.counts.tolist() == [0, 200]
    torch.testing.assert_close(
        samples.statistics.products, expected.products, rtol=0, atol=1e-6 * size
    )
    assert set(samples.reserve.codes) == {1}


# ------------------------------------------------------------------ classes


def test_among_other_labels():
    X, codes = drawn([4, 9, 1])
    samples = Samples.of(X, codes, NAMES[[0, 2, 3]])
    more = samples.among(NAMES)
    the_same(more, Samples.of(X, np.array([0, 2, 3])[codes], NAMES))
    assert samples.among(samples.classes) is samples
    fewer = samples.among(NAMES[2:])
    np.testing.assert_array_equal(fewer.statistics.counts, [9, 1, 0])
    torch.testing.assert_close(fewer.statistics.products, samples.statistics.products)
    assert set(fewer.reserve.codes) == {0, 1}


def test_no_classes_add_nothing():
    X, codes = drawn([4, 9, 1])
    samples = Samples.of(X, codes, NAMES[:3])
    none = Samples.none(np.empty(0), 6, samples.reserve.of_classes(np.full(3, -1)))
    for total in (samples + none, none + samples):
        the_same(total, samples)


def test_no_samples_add_nothing():
    X, codes = drawn([4, 9, 1])
    samples = Samples.of(X, codes, NAMES[:3])
    empty = samples.reserve.of_classes(np.full(3, -1))
    for total in (samples + Samples.none(NAMES, 6, empty), Samples.none(NAMES, 6, empty) + samples):
        the_same(total, Samples.of(X, codes, NAMES))
