"""Views: the columns of X that one encoder made, and the rows that lack them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import _safe_indexing, check_array

from flowalign import inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEUTRAL = 1.0
"""What stands in the features of rows that lack a view; what becomes of it is thrown away."""


@dataclass(frozen=True, eq=False)
class ViewRows:
    """Rows of X as one view has them.

    Attributes
    ----------
    features : ndarray of shape (n, d)
        float32 or float64.
    present : ndarray of shape (n,), bool
        Which rows have the view.
    integers : bool
        Whether they are counts or pixels, of which a row may be zero.
    given : Any
        The columns, as they stand in X, with names if they have some.
    """

    features: NDArray[Any]
    present: NDArray[np.bool_]
    integers: bool
    given: Any

    @classmethod
    def of(cls, X: Any, columns: Any, name: str, width: int | None = None) -> ViewRows:
        """Choose columns of X, an array or a frame, for the view of this name.

        A row that lacks the view has NaN in all of its columns, or no array in the one column whose
        cells are the rows. `width` is that of the features where no row tells it.
        """
        given = chosen(X, columns, name)
        array = inputs.as_numpy(_with_cells_filled(given, width), "X")
        if np.ndim(array) != 2:
            raise ValueError(
                f"View {name!r} has one column of numbers, {columns!r}; give a list of columns, or "
                "a column whose cells are arrays."
            )
        try:
            features = check_array(
                array,
                dtype=inputs.float_dtypes(array),
                ensure_all_finite="allow-nan",
                ensure_min_samples=0,
                input_name="X",
            )
        except (TypeError, ValueError) as error:
            raise type(error)(f"View {name!r}: {error}") from error
        missing = np.isnan(features)
        present = ~missing.all(axis=1)
        partly = np.flatnonzero(missing.any(axis=1) & present)
        if len(partly):
            raise ValueError(
                f"View {name!r} is NaN in some of its columns of rows "
                f"{inputs.shorten(partly.tolist())} of X; a row that lacks a view has NaN in all of"
                " them."
            )
        if not present.all():
            features = np.where(present[:, None], features, features.dtype.type(NEUTRAL))
        return cls(features, present, inputs.holds_integers(array), given)

    def __getitem__(self, rows: Any) -> ViewRows:
        return ViewRows(self.features[rows], self.present[rows], self.integers, self.given)

    @property
    def with_nan(self) -> NDArray[Any]:
        """The features, NaN where a row lacks the view."""
        return np.where(self.present[:, None], self.features, self.features.dtype.type(np.nan))


def chosen(X: Any, columns: Any, name: str) -> Any:
    """Columns of X, by a slice, positions or a mask; of a frame also by names."""
    try:
        return _safe_indexing(X, columns, axis=1)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"View {name!r} has columns {columns!r}, which X lacks: {error}"
        ) from error


def check_some_view(views: list[ViewRows], names: list[str], what: str = "X") -> None:
    """Refuse rows that lack every view."""
    lonely = np.flatnonzero(~np.any([view.present for view in views], axis=0))
    if len(lonely):
        raise ValueError(
            f"Rows {inputs.shorten(lonely.tolist())} of {what} have no view: "
            f"{' and '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'} NaN in all "
            "columns. Drop them."
        )


def _with_cells_filled(given: Any, width: int | None) -> Any:
    """Put NaN of the right width where a cell of a column of arrays is missing."""
    cells = np.asarray(given) if np.ndim(given) == 1 or np.shape(given)[1:] == (1,) else None
    if cells is None or cells.dtype != object:
        return given
    cells = cells.ravel()
    whole = [np.ndim(cell) == 1 for cell in cells]
    width = len(cells[whole.index(True)]) if any(whole) else width
    if width is None or all(whole):
        return given
    nothing = np.full(width, np.nan, dtype=np.float32)
    filled = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        missing = np.ndim(cell) == 0 and (cell is None or bool(np.isnan(float(cell))))
        filled[i] = nothing if missing else cell
    return filled
