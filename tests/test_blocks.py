"""Blocks cover all rows within their budgets, and what is looked at is an even share."""

import numpy as np
import pytest

from flowalign.blocks import ROWS, slices, state_rows, thinned


@pytest.mark.parametrize("n", [0, 1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS])
@pytest.mark.parametrize("rows", [None, 1, 100, ROWS, 10 * ROWS])
def test_blocks_are_all_rows_once_and_full_but_for_the_last(n, rows):
    blocks = [np.arange(n)[block] for block in slices(n, rows)]
    np.testing.assert_array_equal(np.concatenate([np.arange(0), *blocks]), np.arange(n))
    assert all(len(block) == (rows or ROWS) for block in blocks[:-1])
    assert all(len(block) > 0 for block in blocks)


def test_states_of_four_megabytes_on_a_cpu_and_256_on_a_gpu():
    """At least a row; an unknown device is small."""
    assert [state_rows(2**12, device) for device in ("cpu", "mps", "cuda")] == [2**10, 2**10, 2**16]
    assert [state_rows(2**40, device) for device in ("cpu", "mps", "cuda")] == [1, 1, 1]


def test_many_rows_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr("flowalign.blocks.MAX_HELD_OUT_ENTRIES", 1000)
    rows = thinned(500, 10)
    assert len(set(rows)) == 100
    assert np.diff(rows).max() <= 6
    assert thinned(50, 10).tolist() == list(range(50))
    assert thinned(50, 5000).tolist() == [0]
    assert rows[[0, -1]].tolist() == [0, 499]
    assert len(thinned(101, 10)) == 100
    assert thinned(100, 10).tolist() == list(range(100))


def test_as_many_samples_are_held_out_as_have_room():
    """4,096 at most, and two million numbers in all."""
    assert len(thinned(100_000, 64)) == 4096
    assert len(thinned(4096, 512)) == 4096
    assert len(thinned(100_000, 2048)) == 1024
    assert len(thinned(3, 10**9)) == 1
