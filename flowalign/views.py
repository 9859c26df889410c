"""Views: the columns of X that one encoder made, and the rows that lack them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from sklearn.utils import _safe_indexing, check_array

from flowalign import inputs
from flowalign.aligner import FlowMatchingAligner

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

NEUTRAL = 1.0
"""What stands in the features of rows that lack a view; what becomes of it is thrown away."""


SHARED = ("class_prior", "unknown_label", "unknown_rate", "unlabeled_label")
"""Parameters of aligners that stay as they are: views have them in common."""


class View(NamedTuple):
    """An aligner and its columns of X."""

    name: str
    aligner: FlowMatchingAligner
    columns: Any


def checked_views(given: Any) -> list[View]:
    """Check what a user gave as views."""
    if not isinstance(given, list | tuple) or not all(
        isinstance(view, list | tuple) and len(view) == len(View._fields) for view in given
    ):
        raise TypeError(
            "views must be a list of (name, FlowMatchingAligner, columns), got "
            f"{inputs.shorten([given])[:200]}."
        )
    if not given:
        raise ValueError("views is empty; give one view at least.")
    views, usual = [View(*view) for view in given], FlowMatchingAligner()
    for view in views:
        if not isinstance(view.name, str) or not view.name:
            raise TypeError(f"Names of views must be strings, got {view.name!r}.")
        if not isinstance(view.aligner, FlowMatchingAligner):
            raise TypeError(
                f"View {view.name!r} must have a FlowMatchingAligner, got "
                f"{type(view.aligner).__name__}; put what comes before it into a ColumnTransformer."
            )
        for name in SHARED:
            value = getattr(view.aligner, name)
            if not np.array_equal(value, getattr(usual, name)):
                raise ValueError(
                    f"The aligner of view {view.name!r} has {name}={value!r}; views share it: set "
                    "it on the MultiViewAligner."
                )
    return views


def check_same_views(views: list[View], fitted: list[tuple[str, FlowMatchingAligner, Any]]) -> None:
    """Refuse to go on with other views, or other columns, than those that were fitted."""
    names, known = ([view[0] for view in given] for given in (views, fitted))
    if names != known:
        raise ValueError(
            f"views has {inputs.shorten(names)}, and was fitted to {inputs.shorten(known)}; fit "
            "again, which starts anew."
        )
    for view, (_, _, columns) in zip(views, fitted, strict=True):
        if not (callable(view.columns) or np.array_equal(view.columns, columns)):
            raise ValueError(
                f"View {view.name!r} has other columns than it was fitted to; fit again, which "
                "starts anew."
            )


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
    what : str
        What X is called in messages.
    """

    features: NDArray[Any]
    present: NDArray[np.bool_]
    integers: bool
    given: Any
    what: str = "X"

    @classmethod
    def of(cls, X: Any, columns: Any, width: int | None = None, what: str = "X") -> ViewRows:
        """Choose columns of X, an array or a frame.

        A row that lacks the view has NaN in all of its columns, or no array in the one column whose
        cells are the rows. `width` is that of the features where no row tells it; in messages X is
        called `what`.
        """
        given = chosen(X, columns, what)
        array = _with_cells_filled(given, width)
        array = inputs.as_numpy(array, what)
        if np.ndim(array) != 2:
            raise ValueError(
                f"column {inputs.shorten([columns])} of {what} has no arrays as cells; give a "
                "list of columns, or a column whose cells are arrays."
            )
        features = check_array(
            array,
            dtype=inputs.float_dtypes(array),
            order="C",  # so that sums do not depend on how columns were chosen
            ensure_all_finite="allow-nan",
            ensure_min_samples=0,
            input_name=what,
        )
        if width not in (None, features.shape[1]):
            raise ValueError(
                f"{what} has {features.shape[1]} features of it, and had {width} in the fit; take "
                "both from the same encoder."
            )
        missing = np.isnan(features)
        present = ~missing.all(axis=1)
        partly = np.flatnonzero(missing.any(axis=1) & present)
        if len(partly):
            raise ValueError(
                f"some of its columns are NaN, and others are not, in these rows of {what}: "
                f"{inputs.shorten(partly.tolist())}. A row that lacks a view has NaN in all of its "
                "columns."
            )
        if not present.all():
            features = np.where(present[:, None], features, features.dtype.type(NEUTRAL))
        return cls(features, present, inputs.holds_integers(array), given, what)

    def __getitem__(self, rows: Any) -> ViewRows:
        return replace(self, features=self.features[rows], present=self.present[rows])

    @property
    def with_nan(self) -> NDArray[Any]:
        """The features, NaN where a row lacks the view."""
        return np.where(self.present[:, None], self.features, self.features.dtype.type(np.nan))


def chosen(X: Any, columns: Any, what: str = "X") -> Any:
    """Columns of X, by a slice, positions or a mask; of a frame also by names."""
    columns = list(columns) if isinstance(columns, range) else columns
    try:
        if columns is None:
            raise TypeError("give a slice, a list, a mask, a name or a callable")
        stop = columns.stop if isinstance(columns, slice) else None
        if isinstance(stop, Integral) and stop > (n_columns := np.shape(X)[1]):
            raise IndexError(f"it has {n_columns}")
        return _safe_indexing(X, columns, axis=1)
    except Exception as error:  # each kind of frame has errors of its own
        raise ValueError(
            f"it has columns {_spelt(columns)}, which {what} lacks: {str(error).rstrip('.')}."
        ) from error


def _spelt(columns: Any) -> str:
    one = isinstance(columns, str | slice) or not np.iterable(columns)
    return inputs.shorten([columns] if one else np.asarray(columns, dtype=object).tolist())


def in_view(name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function; what is wrong is said with the name of the view."""
    try:
        return function(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"View {name!r}: {error}") from error


ViewPart = tuple[str, Any, int | None]
"""Name and columns of a view, and the width of its features where that is known."""


def view_rows(X: Any, parts: list[ViewPart], what: str = "X") -> list[ViewRows]:
    """Cut the columns of X into views, and refuse rows that lack all of them."""
    rows = [in_view(name, ViewRows.of, X, columns, width, what) for name, columns, width in parts]
    lonely = np.flatnonzero(~np.any([view.present for view in rows], axis=0))
    if len(lonely):
        names = " and ".join(repr(name) for name, _, _ in parts)
        raise ValueError(
            f"Rows of {what} have no view, NaN in all columns of {names}: "
            f"{inputs.shorten(lonely.tolist())}. Drop them."
        )
    return rows


def _with_cells_filled(given: Any, width: int | None) -> Any:
    """Put NaN of the right width where a cell of a column of arrays is missing."""
    if np.shape(given)[1:] not in ((), (1,)):
        return given
    cells = np.asarray(given)
    if cells.ndim > 1 and cells.shape[1:] != (1,):  # arrays of one width, none missing
        return given
    cells = cells.ravel()
    missing = [np.ndim(cell) == 0 and inputs.is_missing(cell) for cell in cells]
    whole = [len(cell) for cell in cells if np.ndim(cell) == 1]
    width = whole[0] if whole else width
    if width is None or not any(missing) or not (whole or all(missing)):
        return given
    filled = np.empty(len(cells), dtype=object)
    nothing = np.full(width, np.nan, dtype=np.float32)
    for i, cell in enumerate(cells):
        filled[i] = nothing if missing[i] else cell
    return filled
