"""Pools of unlabelled rows: what they are made of, and which rows are judged."""

from dataclasses import replace

import numpy as np
import pytest
from benchmark_sets import N_CLASSES, numbered, numbers

from flowalign.benchmark.open_set import held_out_classes
from flowalign.benchmark.pools import (
    POOLS,
    all_test_rows,
    batches,
    few_classes,
    foreign,
    imbalanced,
    undrawn,
)


@pytest.mark.parametrize("name", POOLS)
def test_judged_rows_have_their_labels_and_places(name):
    data = numbered(1300)
    for seed in range(3):
        cases = POOLS[name](data, 2, seed)
        assert cases
        for case in cases:
            rows = numbers(case.X)
            np.testing.assert_array_equal(data.y_test[rows], case.y)
            assert len(np.unique(rows)) == len(rows) > 0
            if case.rows is not None:
                np.testing.assert_array_equal(case.unlabeled[case.rows], case.X)
                assert (numbers(case.unlabeled) < 10_000).all()


def test_undrawn_rows_are_the_training_rows_that_are_no_support_samples():
    data = numbered(12)
    for seed in range(3):
        (case,) = undrawn(data, 2, seed)
        drawn = data.draw(2, seed)
        assert sorted([*numbers(case.unlabeled) - 10_000, *drawn]) == list(range(30))
    assert case.rows is None
    np.testing.assert_array_equal(case.X, data.X_test)
    assert undrawn(data, 5, 0) == []


def test_of_all_test_rows_none_is_left_out():
    (case,) = all_test_rows(numbered(50), 1, 0)
    assert numbers(case.X).tolist() == list(range(50))


def test_batches_are_apart_and_at_most_four():
    for n, sizes in [(100, [100]), (256 + 5, [256]), (1300, [256] * 4)]:
        found = batches(numbered(n), 1, 0)
        assert [len(case.unlabeled) for case in found] == sizes
        rows = np.concatenate([numbers(case.X) for case in found])
        assert len(np.unique(rows)) == len(rows)
    one, other = (batches(numbered(1300), 1, seed)[0] for seed in (0, 1))
    assert set(numbers(one.X)) != set(numbers(other.X))


def test_some_classes_are_frequent_and_some_rare_in_imbalanced_pools():
    """Even shares are a sixth, and draws without weights stay within .12 and .21."""
    pools = [imbalanced(numbered(1200), 1, seed)[0].y for seed in range(40)]
    shares = np.array([np.bincount(y, minlength=N_CLASSES) / 400 for y in pools])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares.max(axis=1).mean() > 2 / 6
    assert shares.min(axis=1).mean() < 1 / 18
    assert set(shares.argmax(axis=1)) == set(range(N_CLASSES))


def test_concentrations_of_imbalanced_pools_are_between_a_third_and_one():
    """A class has less than a hundredth in 24 % of draws at .3, and in 2 % at 1."""
    pools = [imbalanced(numbered(6000), 1, seed)[0].y for seed in range(40)]
    shares = np.array([np.bincount(y, minlength=N_CLASSES) / 2000 for y in pools])
    assert 0.05 < (shares < 0.01).mean() < 0.2


def test_shares_of_imbalanced_pools_are_not_those_of_the_test_rows():
    y_test = np.repeat(np.arange(N_CLASSES), [700, 100, 100, 100, 100, 100])
    data = replace(numbered(1200), y_test=y_test)
    first = [(imbalanced(data, 1, seed)[0].y == 0).mean() for seed in range(40)]
    assert np.mean(first) < 0.4 < 700 / 1200


@pytest.mark.parametrize(("n_test", "size"), [(1, 1), (2, 1), (7, 2)])
def test_imbalanced_pools_have_a_row_at_least(n_test, size):
    assert len(imbalanced(numbered(n_test), 1, 0)[0].y) == size


def test_two_classes_are_the_fewest_and_are_among_those_of_the_test_rows():
    data = replace(numbered(30), y_test=np.repeat([1, 4, 5], 10))
    for seed in range(6):
        (case,) = few_classes(data, 1, seed)
        assert np.unique(np.bincount(case.y, minlength=6)).tolist() == [0, 10]
        assert len(case.y) == 20


def test_of_few_classes_all_rows_are_there_and_no_others():
    found = [few_classes(numbered(60), 1, seed)[0] for seed in range(6)]
    assert all(np.bincount(case.y, minlength=6).tolist().count(10) == 2 for case in found)
    assert all(len(case.y) == 20 for case in found)
    assert len({tuple(np.unique(case.y)) for case in found}) > 1


def test_foreign_rows_are_in_the_pool_and_are_not_judged():
    (case,) = foreign(numbered(60), 1, 3)
    absent = held_out_classes(N_CLASSES, 3)
    np.testing.assert_array_equal(case.absent, absent)
    assert len(case.unlabeled) == 60
    assert len(case.y) == 30
    assert not np.isin(case.y, absent).any()


def test_a_set_without_known_rows_has_no_foreign_pool():
    data = numbered(30)
    absent = held_out_classes(N_CLASSES, 0)
    assert foreign(replace(data, y_test=np.full(30, absent[0])), 1, 0) == []


def test_where_a_single_class_is_known_there_is_no_foreign_pool():
    data = numbered(30)
    for n_classes, n_pools in [(2, 0), (3, 1)]:
        rows = data.y_test < n_classes
        few = replace(
            data,
            X_test=data.X_test[rows],
            y_test=data.y_test[rows],
            class_embeddings=data.class_embeddings.subset(range(n_classes)),
        )
        assert len(foreign(few, 1, 0)) == n_pools
