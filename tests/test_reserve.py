"""A reserve is a fair choice of rows that does not depend on how they came."""

import itertools
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowalign import reserve
from flowalign.reserve import ANY_NUMBER, Reserve, even_share, keys

C = 4


def samples(n, seed, dtype=np.float64, levels=2):
    """Rows many of which are equal, some but for the sign of a zero, of classes of all sizes."""
    rng = np.random.default_rng(seed)
    X = rng.integers(levels + 1, size=(n, 3)) * rng.choice([-1.0, 1.0], size=(n, 3))
    return X.astype(dtype), rng.choice(C, size=n, p=[0.5, 0.3, 0.15, 0.05])


def distinct(X, codes):
    """Number of times of every row of a class: {(class, values): times}."""
    pairs = [(int(c), *row) for c, row in zip(codes, (X + 0).tolist(), strict=True)]
    return {pair: pairs.count(pair) for pair in set(pairs)}


def content(kept):
    assert len(kept) == len(kept.X)
    found = distinct(kept.X, kept.codes)
    assert set(found.values()) <= {1}  # distinct rows
    pairs = zip(kept.codes.tolist(), kept.X.tolist(), kept.multiplicity.tolist(), strict=True)
    return {(c, *row): times for c, row, times in pairs}


def the_same(one, other):
    assert one.X.dtype == other.X.dtype
    assert one.X.tobytes() == other.X.tobytes()
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_array_equal(one.multiplicity, other.multiplicity)
    assert one.share == other.share


sets = {
    "n": st.integers(1, 60),
    "seed": st.integers(0, 10**6),
    "most": st.sampled_from([1, 3, 8, 20, 100]),
}


@settings(max_examples=60, deadline=None)
@given(**sets, n_parts=st.integers(1, 6), dtype=st.sampled_from([np.float32, np.float64]))
def test_any_split_joined_in_any_tree_gives_the_same(n, seed, most, n_parts, dtype):
    X, codes = samples(n, seed, dtype)
    rng = np.random.default_rng(seed)
    order, part_of = rng.permutation(n), rng.integers(n_parts, size=n)
    with patch.object(reserve, "MOST", most):
        whole = Reserve.of(X, codes)
        parts = [Reserve.of(*(a[order][part_of == k] for a in (X, codes))) for k in range(n_parts)]
        while len(parts) > 1:
            one, other = (parts.pop(rng.integers(len(parts))) for _ in range(2))
            parts.append(one.joined(other))
    the_same(parts[0], whole)


@settings(max_examples=60, deadline=None)
@given(**sets, levels=st.sampled_from([1, 2, 1000]))
def test_as_many_of_each_class_as_of_any_other(n, seed, most, levels):
    """As far as there are so many, and one at least, with the number of times of each."""
    X, codes = samples(n, seed, levels=levels)
    kept, all_rows = content(Reserve.of(X, codes, most=most)), distinct(X, codes)
    sizes, of_all = ([sum(pair[0] == c for pair in rows) for c in range(C)]
                     for rows in (kept, all_rows))  # fmt: skip
    shares = range(1, n + 1)
    fitting = [s for s in shares if sum(min(size, s) for size in of_all) <= most]
    share = max(fitting, default=1)
    assert sizes == [min(size, share) for size in of_all]
    assert kept == {pair: all_rows[pair] for pair in kept}


@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=9), most=st.integers(1, 200))
def test_an_even_share_is_the_largest_that_fits(counts, most):
    share = even_share(np.array(counts), most)
    assert share == 1 or np.minimum(counts, share).sum() <= most
    assert share == max(counts) or np.minimum(counts, share + 1).sum() > most


def test_rows_are_in_the_order_of_their_bytes_and_all_of_few_are_kept():
    X, codes = samples(50, 0)
    kept = Reserve.of(X, codes)
    assert content(kept) == distinct(X, codes)
    rows = [row.tobytes() for row in kept.X]
    assert rows == sorted(rows)
    assert kept.share == ANY_NUMBER
    enough = Reserve.of(X, codes, most=len(kept))  # copies of a row need no room
    the_same(enough, kept)
    assert Reserve.of(X[:0], codes[:0]).X.shape == (0, 3)


def test_equal_rows_of_two_classes_are_two():
    X = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    kept = Reserve.of(X, np.array([1, 0, 0, 1]))
    assert content(kept) == {(0, 1, 2): 1, (1, 1, 2): 2, (0, 3, 4): 1}


def test_rows_that_differ_in_the_sign_of_zeros_are_equal():
    X = np.array([[0.0, 5.0], [-0.0, 5.0], [0.0, 7.0], [-0.0, 5.0]])  # bytes of 7 are between them
    for dtype in (np.float32, np.float64):
        kept = Reserve.of(X.astype(dtype), np.zeros(4, int))
        assert kept.multiplicity.tolist() == [3, 1]
        assert not np.signbit(kept.X).any()
        np.testing.assert_array_equal(keys(X.astype(dtype)), keys(np.abs(X)))
    assert np.signbit(X).any()  # what came in is as it was


@pytest.mark.parametrize("width", [1, 2, 3, 8, 33])
def test_keys_are_of_the_values_in_float32(width, monkeypatch):
    X = np.random.default_rng(0).normal(size=(50, width)).astype(np.float32)
    found = keys(X)
    np.testing.assert_array_equal(keys(X.astype(np.float64)), found)
    np.testing.assert_array_equal(keys(np.asfortranarray(X)), found)
    order = np.random.default_rng(1).permutation(50)
    np.testing.assert_array_equal(keys(X[order]), found[order])
    monkeypatch.setattr("flowalign.blocks.ROWS", 7)
    np.testing.assert_array_equal(keys(X), found)
    assert found.dtype == np.uint64
    assert (found >> np.uint64(63)).mean() == pytest.approx(0.5, abs=0.25)  # all bits are used


rng = np.random.default_rng(0)
RUNS = np.arange(1.0, 3001.0)[:, None]
POWERS = 2.0 ** np.arange(-60, 60)


@pytest.mark.parametrize(
    "X",
    [
        rng.normal(size=(5000, 1)),
        rng.normal(size=(5000, 2)),
        rng.normal(size=(5000, 7)),
        np.eye(501),
        -np.eye(16),
        RUNS * np.eye(3)[np.arange(3000) % 3],
        RUNS * np.ones((1, 8)),
        RUNS * np.ones((1, 7)),
        np.array(list(itertools.product([0.0, 1.0], repeat=12))),
        np.array(list(itertools.permutations(range(1, 8))), dtype=float),
        np.array([[a, b] for a in POWERS for b in POWERS]),
        np.tri(700),
    ],
    ids=["values", "pairs", "odd", "one-hot", "one-hot, even", "scaled one-hot", "constant",
         "constant, odd", "bits", "permutations", "powers", "thermometer"],
)  # fmt: skip
def test_distinct_rows_have_distinct_keys(X):
    n_distinct = len(np.unique(X.astype(np.float32), axis=0))
    assert n_distinct > 0.99 * len(X)
    assert len(np.unique(keys(X))) == n_distinct


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.normal(size=(100, 5)),
        lambda rng: rng.normal(size=(100, 1)) * np.ones(8),
        lambda rng: (np.arange(100) + rng.integers(10**4))[:, None] * np.ones(3),
        lambda rng: np.eye(100) * rng.normal(size=(100, 1)),
        lambda rng: np.abs(rng.normal(size=(100, 301))).astype(np.float32),
    ],
    ids=["normal", "constant", "ramp", "one-hot", "wide"],
)
def test_the_choice_is_uniform_within_a_class(make):
    """Neither where a row stands nor how large it is has a say: in 200 sets, 20 rows of 100."""
    found = []
    for seed in range(200):
        X = make(np.random.default_rng(seed))
        kept = Reserve.of(X, np.zeros(100, int), most=20)
        chosen = np.isin(keys(X), keys(kept.X))
        assert chosen.sum() == 20
        for values in (np.arange(100), np.abs(X).sum(axis=1), X.sum(axis=1)):
            found.append((values[chosen].mean() - values.mean()) / values.std(ddof=1))
    scores = np.array(found).reshape(200, 3) / np.sqrt((1 - 0.2) / 20)
    np.testing.assert_array_less(np.abs(scores.mean(axis=0)) * np.sqrt(200), 4)
    np.testing.assert_allclose(scores.std(axis=0), 1, atol=0.25)


def test_a_class_never_keeps_more_than_when_some_last_had_to_go():
    """Otherwise those that come later would be more likely to be there than those that went."""
    X, codes = np.random.default_rng(0).normal(size=(60, 3)), np.repeat([0, 1, 2], [30, 10, 20])
    first = np.arange(60) % 2 == 0
    with patch.object(reserve, "MOST", 12):
        kept = Reserve.of(X[first], codes[first])
        assert kept.share == 4
        room = kept.of_classes(np.array([0, -1, 1]))  # a class goes
        assert np.bincount(room.codes).tolist() == [4, 4]
        more = np.flatnonzero(~first & (codes == 0))[:4]
        assert len(room) + len(more) == 12  # there is room for all
        grown = room.joined(Reserve.of(X[more], codes[more]))
    assert np.bincount(grown.codes).tolist() == [4, 4]
    of_all = np.sort(keys(X[[*np.flatnonzero(first & (codes == 0)), *more]]))[:4]
    np.testing.assert_array_equal(np.sort(keys(grown.X[grown.codes == 0])), of_all)


def test_classes_of_which_samples_are_missing():
    X, codes = samples(60, 0, levels=1000)
    counts = np.bincount(codes, minlength=C)
    assert not Reserve.of(X, codes).missing(counts).any()
    kept = Reserve.of(X, codes, most=20)
    here = np.bincount(kept.codes, minlength=C)
    np.testing.assert_array_equal(kept.missing(counts), here < counts)
    assert 0 < kept.missing(counts).sum() < C
    copies = Reserve.of(np.ones((9, 2)), np.zeros(9, int), most=2)
    assert copies.missing(np.array([9, 0])).tolist() == [False, False]


def test_classes_move_with_their_rows():
    X, codes = samples(40, 0)
    moved = Reserve.of(X, codes).of_classes(np.array([5, -1, 0, 2]))
    renamed = {0: 5, 2: 0, 3: 2}
    expected = distinct(X, codes)
    assert content(moved) == {
        (renamed[pair[0]], *pair[1:]): n for pair, n in expected.items() if pair[0] in renamed
    }


@pytest.mark.parametrize("kept_as", [np.float32, np.float64])
@pytest.mark.parametrize("given_as", [np.float32, np.float64])
def test_a_sample_that_goes_is_found_in_either_dtype_and_takes_one_copy_along(kept_as, given_as):
    X = np.random.default_rng(0).normal(size=(6, 4))
    codes = np.array([0, 0, 0, 1, 1, 2])
    rows = [0, 0, 0, 1, 2, 3, 4, 5]
    kept = Reserve.of(X[rows].astype(kept_as), codes[rows])
    gone = [0, 0, 5, 3]
    left, found = kept.without(X[gone].astype(given_as), codes[gone])
    assert found.all()
    the_same(left, Reserve.of(X[[0, 1, 2, 4]].astype(kept_as), codes[[0, 1, 2, 4]]))
    assert len(kept) == 6  # as it was
    assert kept.multiplicity.sum() == 8


def test_a_sample_that_is_not_here_is_not_found():
    X = np.random.default_rng(0).normal(size=(3, 4))
    kept = Reserve.of(X, np.array([0, 0, 1]))
    near = X[0] * (1 + 1e-3)
    for row, code in ((near, 0), (X[0], 1), (X[2], 0), (-X[0], 0), (X[0], 3)):
        left, found = kept.without(row[None], np.array([code]))
        assert found.tolist() == [False]
        the_same(left, kept)
    _, found = kept.without(X[[0, 0, 1]], np.array([0, 0, 0]))  # given once, asked for twice
    assert found.tolist() == [True, False, True]


def test_of_samples_that_are_close_the_closest_goes():
    X = np.array([[1.0, 0.0], [1.0, 2e-6], [1.0, 4e-6], [0.0, 0.0]])
    for gone in range(4):
        left, found = Reserve.of(X, np.zeros(4, int)).without(X[[gone]], np.array([0]))
        assert found.all()
        the_same(left, Reserve.of(np.delete(X, gone, axis=0), np.zeros(3, int)))


def test_what_stays_of_a_share_keeps_it():
    X, codes = samples(60, 0, levels=1000)
    kept = Reserve.of(X, codes, most=20)
    left, _ = kept.without(kept.X[:2], kept.codes[:2])
    assert left.share == kept.share < ANY_NUMBER
    assert len(left) == len(kept) - 2
