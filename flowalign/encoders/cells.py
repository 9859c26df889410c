"""Cells: one place of X holds one item, none, or several items whose rows are averaged."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Set
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign.inputs import column_names, shorten
from flowalign.sphere import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float32]


class Cells:
    """The items in all cells, and the way back from rows of items to rows of cells.

    Parameters
    ----------
    cells : list
        The n elements of X.
    kind : str
        What messages call an item.
    parts : callable
        Returns the items of a cell that has several, and None for a cell that is one item.
    is_missing : callable
        Returns whether a cell, or a part of one, has no item.
    allow_missing : bool
        Whether missing items are passed over. Otherwise their cells fail.

    Attributes
    ----------
    items : list
        The items of all cells, cell after cell.
    owners : ndarray of int of shape (m,)
        The position of the cell of each item.
    empty : list of int
        The positions of the cells without an item.
    failed : dict of int to str
        Why cells cannot be encoded, by position of the cell.
    """

    def __init__(
        self,
        cells: list[Any],
        kind: str,
        *,
        parts: Callable[[Any], list[Any] | None],
        is_missing: Callable[[Any], bool],
        allow_missing: bool,
    ) -> None:
        self.items: list[Any] = []
        self.empty: list[int] = []
        self.failed: dict[int, str] = {}
        owners: list[int] = []
        for i, cell in enumerate(cells):
            several = parts(cell)
            several = [cell] if several is None else several
            there = [part for part in several if not is_missing(part)]
            if not allow_missing and (len(there) < len(several) or not there):
                what = "lists what is missing" if there else "is missing"
                self.failed[i] = (
                    f"{kind} {i} of X {what}: {shorten([cell])[:60]}. Leave it out, or set "
                    "missing='nan'."
                )
                continue
            if not there:
                self.empty.append(i)
            self.items += there
            owners += [i] * len(there)
        self.owners = np.array(owners, dtype=np.intp)

    def fail(self, failed: Mapping[int, str]) -> None:
        """Note why items cannot be read, by position among all items. Their cells fail too."""
        for position in sorted(failed):
            self.failed.setdefault(int(self.owners[position]), failed[position])

    def stacked(
        self, rows: Rows, read: NDArray[np.intp], n_each: int = 1
    ) -> tuple[Rows, NDArray[np.intp]]:
        """Return a row for each item, and the position of its cell.

        Parameters
        ----------
        rows : ndarray of shape (r * n_each, d)
            Rows of items, in the order of the items.
        read : ndarray of int of shape (r,)
            The positions of these items among all items.
        n_each : int, default=1
            Rows of each item. A cell without an item has as many rows of NaN.
        """
        owners = self.owners[read]
        if self.failed:  # if one item of a cell fails, the others are left out too
            kept = ~np.isin(owners, [*self.failed])
            rows, owners = rows[np.repeat(kept, n_each)], owners[kept]
        owners = np.repeat(owners, n_each)
        if self.empty:
            empty = np.repeat(np.array(self.empty, dtype=np.intp), n_each)
            owners = np.concatenate([owners, empty])
            none = np.full((len(empty), rows.shape[1]), np.nan, dtype=rows.dtype)
            order = np.argsort(owners, kind="stable")
            rows, owners = np.concatenate([rows, none])[order], owners[order]
        return rows, owners

    def means(
        self, rows: Rows, read: NDArray[np.intp], *, unit_length: bool
    ) -> tuple[Rows, NDArray[np.intp]]:
        """Return the mean of the items' rows for each cell, and the position of each cell.

        Parameters
        ----------
        rows : ndarray of shape (r, d)
            Rows of items, in the order of the items.
        read : ndarray of int of shape (r,)
            The positions of these items among all items.
        unit_length : bool
            Whether rows have length 1, so that means are scaled to it too.
        """
        rows, owners = self.stacked(rows, read)
        cells, first, counts = np.unique(owners, return_index=True, return_counts=True)
        if (counts < 2).all():
            return rows, cells
        several = counts > 1
        sums = np.add.reduceat(rows, first, dtype=np.float64)[several]
        means = sums / counts[several, None]
        if unit_length:
            means = unit_rows(means, "The means over several items")
        rows = rows[first]
        rows[several] = means
        return rows, cells


def as_items(values: Any, kind: str) -> list[Any]:
    """Return items as a list. A single item, or a table of several columns, is refused."""
    single = str | bytes | os.PathLike | Mapping | Set
    if isinstance(values, single) or not hasattr(values, "__len__"):
        raise TypeError(f"Give {kind}s as a list, even a single one; got {type(values).__name__}.")
    names = column_names(values)
    if names is not None and len(names) == 1:
        values = values[names[0]]
    elif names is not None:
        raise ValueError(f"Give {kind}s in one column, got {shorten(names)}.")
    if isinstance(values, np.ndarray) and values.dtype.kind in "OUT":
        if values.ndim > 1 and values.shape[1:] != (1,):
            raise ValueError(f"Give {kind}s in one column, got shape {values.shape}.")
        values = values.ravel().tolist()  # None where values are masked
    elif hasattr(values, "to_pylist"):  # a column of pyarrow
        values = values.to_pylist()
    items = list(values)
    if not items:
        raise ValueError(f"There are no {kind}s to encode.")
    return items


def is_missing(item: Any) -> bool:
    """Whether this stands for a missing value in a table: None, NaN, NA or NaT."""
    if item is None or item is np.ma.masked:
        return True
    if isinstance(item, Real):
        return bool(item != item)
    pandas = sys.modules.get("pandas")  # if pandas was not imported, no item comes from it
    return pandas is not None and (item is pandas.NA or item is pandas.NaT)


def form_of(value: Any) -> str:
    """Describe a value that was given where a list belongs."""
    if hasattr(value, "shape"):
        return f"an array of shape {tuple(value.shape)}"
    return f"a {type(value).__name__} of {len(value)}"


def listed(cell: Any) -> list[Any] | None:
    """Return the items of a list, a column or an array without numbers; None for other cells."""
    if isinstance(cell, list | tuple):
        return [*cell]
    if hasattr(cell, "to_list"):  # a column of pandas or of polars
        return [*cell.to_list()]
    if type(cell) is np.ndarray and cell.ndim == 1 and cell.dtype.kind in "OUT":
        return [*cell.tolist()]
    return None
