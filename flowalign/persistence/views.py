"""Several views in a file: an aligner for each view, and the parts that combine them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from flowalign.aligner import FlowMatchingAligner
from flowalign.multi_view import MultiViewAligner
from flowalign.parameters import check_labels, check_unknown_label
from flowalign.persistence.checked import Keys, named, shaped
from flowalign.reserve import Reserve

SLICE = ("start", "stop", "step")


def store_views(
    aligner: MultiViewAligner,
    arrays: dict[str, NDArray[Any]],
    store: Callable[[FlowMatchingAligner, dict[str, NDArray[Any]]], dict[str, Any]],
) -> dict[str, Any]:
    """Return the header's part about the views, and add their arrays to `arrays`.

    `store` does the same for a single aligner.
    """
    views = []
    for k, (name, view, columns) in enumerate(aligner.views_):
        own: dict[str, NDArray[Any]] = {}
        views.append({"name": name, "columns": _as_json(columns), "aligner": store(view, own)})
        arrays |= {f"view{k}.{key}": array for key, array in own.items()}
    reserve, ratios = aligner._reserve, aligner._ratios
    widths = [view.n_features_in_ for _, view, _ in aligner.views_]
    firsts = np.cumsum([0, *widths[:-1]])  # one column tells: a row has all of a view, or nothing
    arrays |= {
        "weights": aligner.view_weights_,
        "class_probabilities": aligner.class_prior_,
        "counts": aligner._counts,
        # A file has finite numbers only; arrays of bool say which values are missing.
        "ratios.values": np.nan_to_num(ratios, nan=0.0),
        "ratios.present": np.asarray(~np.isnan(ratios).any(axis=2)),
        "reserve.X": np.nan_to_num(reserve.X, nan=0.0),
        "reserve.present": ~np.isnan(reserve.X[:, firsts]),
        "reserve.codes": reserve.codes,
        "reserve.multiplicity": reserve.multiplicity,
    }
    names = getattr(aligner, "feature_names_in_", None)
    return {
        "views": views,
        "reserve": {"share": reserve.share},
        "width": aligner.n_features_in_,
        "feature_names": None if names is None else [str(name) for name in names],
    }


def restore_views(
    left: Keys,
    unread: dict[str, NDArray[Any]],
    params: dict[str, Any],
    restore: Callable[[Any, dict[str, NDArray[Any]]], FlowMatchingAligner],
) -> MultiViewAligner:
    """Make the aligner of several views out of a file; `restore` makes a single one."""
    views = []
    for k, entry in enumerate(left.take("views", list)):
        keys = Keys(entry, "view")
        name, columns = keys.take("name", str), _from_json(keys.take("columns", (str, list, dict)))
        header = keys.take("aligner", dict)
        keys.close()
        views.append((name, restore(header, named(f"view{k}.", unread)), columns))
    if not views or any(not np.array_equal(v.classes_, views[0][1].classes_) for _, v, _ in views):
        raise ValueError("the views do not have the same classes.")
    unfitted = [(name, clone(view), columns) for name, view, columns in views]
    aligner = MultiViewAligner(unfitted, **params)
    check_labels(aligner.get_params(deep=False))
    aligner._checked_views(None)
    aligner.classes_ = classes = views[0][1].classes_
    check_unknown_label(aligner.unknown_label, classes)
    aligner.views_ = views
    n_views, n_classes = len(views), len(classes)
    aligner.view_weights_ = shaped(unread.pop("weights"), (n_views,), np.float64)
    aligner.class_prior_ = shaped(unread.pop("class_probabilities"), (n_classes,), np.float64)
    if (aligner.view_weights_ <= 0).any() or (aligner.class_prior_ <= 0).any():
        raise ValueError("weights or class_probabilities are not above 0.")
    aligner._counts = shaped(unread.pop("counts"), (n_classes,), np.int64)
    ratios = named("ratios.", unread)
    values = shaped(ratios.pop("values"), (None, n_views, n_classes), np.float32)
    here = shaped(ratios.pop("present"), values.shape[:2], np.bool_)
    aligner._ratios = np.where(here[:, :, None], values, np.float32(np.nan))
    keys = Keys(left.take("reserve", dict), "reserve")
    aligner._reserve = _reserve(keys, named("reserve.", unread), aligner)
    keys.close()
    aligner.n_features_in_ = left.take("width", int)
    names = left.take("feature_names", (list, type(None)))
    if names is not None:
        if len(names) != aligner.n_features_in_ or not all(type(name) is str for name in names):
            raise ValueError("feature_names are not one string for each feature.")
        aligner.feature_names_in_ = np.array(names, dtype=object)
    return aligner


def _reserve(keys: Keys, parts: dict[str, NDArray[Any]], aligner: MultiViewAligner) -> Reserve:
    """Make the reserve of rows, with NaN where a row lacks a view."""
    widths = [view.n_features_in_ for _, view, _ in aligner.views_]
    X = shaped(parts.pop("X"), (None, sum(widths)))
    codes, multiplicity = (
        shaped(parts.pop(name), (len(X),), np.int64) for name in ("codes", "multiplicity")
    )
    present = shaped(parts.pop("present"), (len(X), len(widths)), np.bool_)
    share = keys.take("share", int)
    n_classes = len(aligner.classes_)
    wrong = (codes < 0) | (codes >= n_classes) | (multiplicity < 1) | ~present.any(axis=1)
    if parts or share < 1 or X.dtype not in ("f4", "f8") or wrong.any():
        raise ValueError("the reserve has rows that cannot be of the samples.")
    if (np.bincount(codes, multiplicity, minlength=n_classes) > aligner._counts).any():
        raise ValueError("the reserve has more samples than there were.")
    X = np.where(np.repeat(present, widths, axis=1), X, X.dtype.type(np.nan))
    return Reserve(X, codes, multiplicity, share)


def _as_json(columns: Any) -> Any:
    if isinstance(columns, slice):
        values = (getattr(columns, key) for key in SLICE)
        return dict(zip(SLICE, map(_plain, values), strict=True))
    return columns if isinstance(columns, str) else [_plain(c) for c in columns]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) not in (int, str, bool, type(None)):
        raise TypeError(
            f"Columns {value!r} cannot be stored; choose columns by positions or by strings."
        )
    return value


def _from_json(columns: Any) -> Any:
    values = columns
    if isinstance(columns, dict):
        keys = Keys(columns, "columns")
        values = [keys.take(key, (int, str, type(None))) for key in SLICE]
        keys.close()
        return slice(*values)
    kinds = {type(value) for value in values}
    if len(kinds) != 1 or kinds - {int, str, bool}:
        raise ValueError(f"columns are {columns!r}.")
    return columns
