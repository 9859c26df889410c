"""Every memory budget: how many rows are worked on at a time, and how many are looked at at all.

Where a number of rows has no bound, temporary arrays are made of a block of them, so that memory
does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 1024
"""Rows of an array that are looked at together."""

STATE_BYTES = {"cpu": 2**22, "cuda": 2**28}
"""Size of the widest array of states while a flow is solved, of which some eight are there at a
time. On a CPU it fits a cache; on a GPU small blocks would leave the device idle between launches.
"""

STREAM_BYTES = 2**27
"""Size of the features that are summed up together, of samples that do not fit into memory. Sums
are put together once for each, which takes as long as some rows for each class."""

MAX_HELD_OUT = 2**12  # samples
MAX_HELD_OUT_ENTRIES = 2**21  # of an array of held-out samples by classes or by features


def slices(n: int, rows: int | None = None) -> Iterator[slice]:
    """Cut n rows into blocks, of :data:`ROWS` unless another number is given.

    >>> list(slices(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    rows = rows or ROWS
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def state_rows(row_bytes: int, device: str) -> int:
    """Return how many rows are solved at a time on a kind of device, such as "cuda"."""
    return max(1, STATE_BYTES.get(device, STATE_BYTES["cpu"]) // row_bytes)


def stream_slices(X: NDArray[Any]) -> Iterator[slice]:
    """Cut samples, (n, d), into blocks that are summed up together."""
    row_bytes = max(X[:1].nbytes, 1)
    return slices(len(X), max(1, STREAM_BYTES // row_bytes))


def thinned(n: int, width: int) -> NDArray[Any]:
    """Rows of a set of n that are held out, evenly spread over the set: all, unless they are many.

    `width` is that of the widest array with a row for each.
    """
    most = min(max(1, MAX_HELD_OUT_ENTRIES // width), MAX_HELD_OUT)
    return np.linspace(0, n - 1, min(n, most)).round().astype(int)
