"""Samples are tied to their own class, and held out fairly."""

import numpy as np
import pytest
import torch

from flowalign import spaces
from flowalign.coupling import Coupling
from flowalign.gaussian.statistics import ClassStatistics
from flowalign.held_out import folds, removable
from flowalign.reserve import Reserve

rng = np.random.default_rng(0)
E = rng.normal(size=(6, 4))


def coupling(counts, d=8, E=E, joint=False):
    codes = np.repeat(np.arange(len(counts)), counts)
    X = np.random.default_rng(1).normal(size=(len(codes), d))
    return Coupling.by_class(X, codes, E, joint)


def test_targets_are_placed():
    mapped = coupling([3] * 6)
    M = spaces.class_means(mapped.X, mapped.codes)
    targets, joint, _ = spaces.place_targets(E, M, np.arange(6), False)
    np.testing.assert_allclose(mapped.targets, targets, rtol=1e-9)
    assert mapped.joint == joint
    assert not mapped.fixed_targets
    as_they_are = coupling([3] * 6, d=4, joint=True)
    np.testing.assert_array_equal(as_they_are.targets, E)
    assert as_they_are.fixed_targets
    prototypes = coupling([3] * 6, E=None)
    np.testing.assert_allclose(prototypes.targets[2], prototypes.X[prototypes.codes == 2].mean(0))
    assert prototypes.joint
    assert not prototypes.fixed_targets


def test_the_order_of_the_samples_and_the_names_of_classes_do_not_matter():
    one = coupling([3, 5, 4, 4, 1, 7])
    rows, names = rng.permutation(24), rng.permutation(6)  # class c becomes names[c]
    other = Coupling.by_class(
        one.X[rows], names[one.codes[rows]], E[np.argsort(names)], joint=False
    )
    np.testing.assert_array_equal(other.X, one.X)
    np.testing.assert_array_equal(other.codes, names[one.codes])
    np.testing.assert_allclose(other.targets[names], one.targets, rtol=1e-9)
    for a, b in zip(folds(one), folds(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("counts", [[2] * 6, [3, 4, 5, 16, 2, 9], [4] * 6, [1, 1, 3, 8, 1, 2]])
def test_every_class_keeps_a_sample_outside_of_each_fold(counts):
    pairs = coupling(counts)
    parts = folds(pairs)
    held_out = np.concatenate(parts)
    assert len(held_out) == len(set(held_out))  # once each
    assert sorted(held_out) == sorted(np.flatnonzero(np.array(counts)[pairs.codes] > 1))
    for rows in parts:
        others = pairs.without(rows)
        assert set(others.codes) == set(range(6))
        assert len(others.X) == len(pairs.X) - len(rows)
    sizes = [len(rows) for rows in parts]
    assert max(sizes) - min(sizes) <= 3


def test_folds_of_a_one_shot_set_hold_out_classes():
    pairs = coupling([1] * 6)
    assert pairs.one_shot
    assert sorted(map(len, folds(pairs))) == [1, 1, 2, 2]
    assert len(pairs.without(folds(pairs)[0]).targets) == 6
    assert folds(coupling([1] * 6, E=None)) == []  # nothing says where their classes are
    assert folds(coupling([3], E=E[:1])) != []
    assert folds(coupling([1], E=E[:1])) == []


def test_leaving_samples_out_leaves_them_out_of_the_targets():
    pairs = coupling([3] * 6)
    rows = folds(pairs)[0]
    kept = np.setdiff1d(np.arange(18), rows)
    M = spaces.class_means(pairs.X[kept], pairs.codes[kept])
    expected = spaces.place_targets(E, M, np.arange(6), False)[0]
    others = pairs.without(rows)
    np.testing.assert_array_equal(others.X, pairs.X[kept])
    np.testing.assert_array_equal(others.codes, pairs.codes[kept])
    np.testing.assert_allclose(others.targets, expected, rtol=1e-9)
    assert np.abs(others.targets - pairs.targets).max() > 0.01
    assert others.joint == pairs.joint


def test_copies_are_held_out_together():
    """A copy of a sample that stayed would give its class away."""
    pairs = coupling([3, 4, 5, 1, 1, 2])
    rows = np.repeat(np.arange(16), [1, 3, 1, 2, 1, 1, 1, 4, 1, 1, 1, 1, 2, 1, 1, 1])
    repeated = Coupling.by_class(pairs.X[rows], pairs.codes[rows], E, False)
    assert repeated.copies
    np.testing.assert_array_equal(repeated.X, pairs.X)
    np.testing.assert_array_equal(repeated.multiplicity, np.bincount(rows))
    for fold, same in zip(folds(repeated), folds(pairs), strict=True):
        np.testing.assert_array_equal(fold, same)
        others = repeated.without(fold)
        assert others.statistics.n == len(rows) - repeated.multiplicity[fold].sum()
        np.testing.assert_array_equal(others.X, np.delete(pairs.X, fold, axis=0))
        np.testing.assert_array_equal(others.multiplicity, np.delete(np.bincount(rows), fold))
        assert set(others.codes) == set(range(6))
    twice = Coupling.by_class(np.repeat(X1, 2, axis=0), np.repeat(np.arange(6), 2), E, False)
    assert twice.one_shot
    assert sorted(map(len, folds(twice))) == [1, 1, 2, 2]


def test_copies_count_in_targets_until_they_are_left_out():
    pairs = coupling([3, 4, 5, 1, 1, 2], E=None)
    rows = np.repeat(np.arange(16), [1, 3, 1, 2, 1, 1, 1, 4, 1, 1, 1, 1, 2, 1, 1, 1])
    repeated = Coupling.by_class(pairs.X[rows], pairs.codes[rows], None)
    expected = spaces.class_means(pairs.X[rows], pairs.codes[rows])
    np.testing.assert_allclose(repeated.targets, expected, rtol=1e-9)
    once = repeated.without_copies()
    assert not once.copies
    assert once.statistics.n == 16
    np.testing.assert_allclose(once.targets, pairs.targets, rtol=1e-9)


X1 = np.random.default_rng(2).normal(size=(6, 8))


def test_copies_are_equal_in_all_coordinates_and_in_class():
    """Pixels and rectified units share single values; that makes them no copies."""
    X = np.maximum(np.random.default_rng(3).normal(size=(18, 8)) - 1, 0)
    X[:, 0], X[:, 1:4] = 0, X[:, 1:4] + np.arange(18)[:, None]  # one column is the same for all
    codes = np.repeat(np.arange(6), 3)
    assert not Coupling.by_class(X, codes, E, False).copies
    X[:2, -1] = 5, 6
    X[1, :-1] = X[0, :-1]  # all but the last
    assert not Coupling.by_class(X, codes, E, False).copies
    X[3:6] = X[:3]  # of another class
    pairs = Coupling.by_class(X, codes, E, False)
    assert not pairs.copies
    assert len(removable(pairs)) == 18
    X[1] = X[0]
    pairs = Coupling.by_class(X, codes, E, False)
    assert pairs.copies
    assert sorted(pairs.multiplicity) == [1] * 16 + [2]


@pytest.mark.parametrize("text", [True, False])
def test_copies_are_found_wherever_they_are(text, monkeypatch):
    """Rows are compared in blocks; pairs lie within them and across their borders."""
    monkeypatch.setattr("flowalign.blocks.ROWS", 4)
    for n in range(1, 12):
        X = np.random.default_rng(n).normal(size=(n, 3))
        order = np.random.default_rng(n).permutation(3 * n)
        X, codes = np.repeat(X, 3, axis=0)[order], np.repeat(np.arange(n), 3)[order] % 6
        pairs = Coupling.by_class(X, codes, E if text else None, False)
        np.testing.assert_array_equal(pairs.multiplicity, np.full(n, 3))


def test_equal_features_of_classes_are_copies_within_each():
    """However the classes are mixed."""
    X, codes = np.ones((6, 8)), np.array([0, 1, 0, 2, 1, 0])
    for text in (E[:3], None):
        pairs = Coupling.by_class(X, codes, text, False)
        order = np.argsort(pairs.codes)
        assert pairs.codes[order].tolist() == [0, 1, 2]
        assert pairs.multiplicity[order].tolist() == [3, 2, 1]


def test_equal_features_of_several_classes_have_an_order_too():
    X, codes = np.ones((6, 8)), np.arange(6)
    names = rng.permutation(6)
    one = Coupling.by_class(X, codes, E, joint=False)
    other = Coupling.by_class(X, names[codes[::-1]], E[np.argsort(names)], joint=False)
    np.testing.assert_array_equal(other.codes, names[one.codes])


def test_rows_of_a_strided_array_have_bytes_too():
    wide = rng.normal(size=(8, 8))
    assert len(Coupling.by_class(wide[::8], np.array([0]), E[:1], False).X) == 1
    by_column = np.asfortranarray(wide)
    np.testing.assert_array_equal(
        Coupling.by_class(by_column, np.arange(8) % 6, E, False).X,
        Coupling.by_class(wide, np.arange(8) % 6, E, False).X,
    )


def test_folds_of_large_classes_are_equal_and_mixed():
    """A class of 4 k samples has k in each fold, one of 4 k + 1 a sample more in one of them."""
    pairs = coupling([8, 12, 9, 4, 5, 40])
    held = np.stack([np.bincount(pairs.codes[rows], minlength=6) for rows in folds(pairs)])
    assert held[:, [0, 1, 3, 5]].tolist() == [[2, 3, 1, 10]] * 4
    assert np.sort(held[:, 2]).tolist() == [2, 2, 2, 3]
    assert np.sort(held[:, 4]).tolist() == [1, 1, 1, 2]


def test_a_sample_without_another_of_its_class_stays():
    pairs = coupling([1, 3, 1, 2])
    assert not pairs.one_shot
    assert sorted(pairs.codes[removable(pairs)]) == [1, 1, 1, 3, 3]
    one_shot = coupling([1, 1, 1, 1])
    assert removable(one_shot).tolist() == [0, 1, 2, 3]


def test_one_class_with_two_samples_that_differ_ends_one_shot():
    assert coupling([1] * 6).one_shot
    assert not coupling([2] * 6).one_shot
    assert not coupling([1, 1, 2, 1, 1, 1]).one_shot


@pytest.mark.parametrize("joint", [True, False])
def test_leaving_samples_out_keeps_the_space(joint):
    """Whether a space is shared is known from all samples; fewer may not say so."""
    d = 4
    X, codes = np.concatenate([E + 1e-3, E - 1e-3]), np.tile(np.arange(6), 2)
    assert Coupling.by_class(X, codes, E, "auto").joint
    pairs = Coupling.by_class(X, codes, E, "auto" if joint else False)
    others = pairs.without(np.flatnonzero(pairs.codes > 0))
    assert others.joint == joint
    assert len(others.X) == 2
    assert others.targets.shape == (6, d)


# ------------------------------------------------------------------ some rows of many samples


def partly(counts, most, copied=()):
    """All samples, and a coupling that has some of them."""
    X = np.random.default_rng(1).normal(size=(sum(counts), 8))
    X, codes = X[[*range(len(X)), *copied]], np.repeat(np.arange(len(counts)), counts)
    codes = codes[[*range(len(codes)), *copied]]
    statistics = ClassStatistics.of(torch.from_numpy(X), torch.from_numpy(codes), len(counts))
    return X, codes, Coupling.of(Reserve.of(X, codes, most=most), statistics, None)


def rows_of(X, some):
    """Which of all samples are among some: (n,) of bool."""
    return np.isin([row.tobytes() for row in X], [row.tobytes() for row in some])


def test_targets_are_those_of_all_samples_however_few_are_kept():
    X, codes, pairs = partly([9, 30, 1, 5], most=12)
    assert not pairs.complete
    assert len(pairs.X) == 1 + 3 * 3
    np.testing.assert_allclose(pairs.targets, spaces.class_means(X, codes), rtol=1e-9)
    np.testing.assert_array_equal(pairs.counts, [9, 30, 1, 5])
    assert partly([9, 30, 1, 5], most=45)[2].complete


def test_without_text_a_class_without_samples_lies_in_the_middle_of_the_others():
    X, codes, pairs = partly([9, 0, 1, 5], most=6)
    means = spaces.class_means(X, codes)
    np.testing.assert_allclose(pairs.targets[[0, 2, 3]], means, rtol=1e-9)
    np.testing.assert_allclose(pairs.targets[1], means.mean(axis=0), rtol=1e-9)


def test_what_is_left_out_of_some_is_left_out_of_all():
    X, codes, pairs = partly([9, 30, 1, 5], most=12, copied=[0, 0, 12, 40])
    for fold in folds(pairs):
        others = pairs.without(fold)
        stay = ~rows_of(X, pairs.X[fold])
        np.testing.assert_allclose(
            others.targets, spaces.class_means(X[stay], codes[stay]), rtol=1e-9
        )
        expected = ClassStatistics.of(torch.from_numpy(X[stay]), torch.from_numpy(codes[stay]), 4)
        torch.testing.assert_close(others.statistics.products, expected.products)
        np.testing.assert_array_equal(others.X, np.delete(pairs.X, fold, axis=0))


def test_copies_of_some_are_left_out_of_all():
    X, codes, pairs = partly([9, 30, 1, 5], most=45, copied=[0, 0, 12, 40])
    _, _, some = partly([9, 30, 1, 5], most=12, copied=range(45))
    assert some.copies
    assert (some.multiplicity == 2).all()
    assert some.without_copies().statistics.n == 90 - len(some.X)
    _, first = np.unique(X, axis=0, return_index=True)
    once = pairs.without_copies()
    expected = ClassStatistics.of(torch.from_numpy(X[first]), torch.from_numpy(codes[first]), 4)
    torch.testing.assert_close(once.statistics.products, expected.products)
    torch.testing.assert_close(once.statistics.sums, expected.sums)


def test_one_row_of_a_class_that_has_more_elsewhere_can_be_held_out():
    _, _, pairs = partly([9, 30, 1, 5], most=4)
    assert len(pairs.X) == 4
    assert not pairs.one_shot
    assert sorted(pairs.codes[removable(pairs)]) == [0, 1, 3]
    for fold in folds(pairs):
        assert (pairs.without(fold).counts >= 1).all()
