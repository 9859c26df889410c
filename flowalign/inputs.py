"""The one door for what users hand in: tensors, arrays, frames and lists become arrays.

Every message names the argument, what was got and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_HALF_TENSORS = (torch.float16, torch.bfloat16)


def as_numpy(values: Any) -> Any:
    """Turn tensors into arrays, 16-bit floats, which BLAS lacks, into float32, and bytes around.

    Anything else (lists, DataFrames, sparse matrices) is returned as it is.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype in _HALF_TENSORS else values).numpy()
    if isinstance(values, np.ndarray) and values.dtype.name in ("float16", "bfloat16"):
        return values.astype(np.float32)
    if isinstance(values, np.ndarray) and not values.dtype.isnative:
        # scikit-learn would take a foreign float32 for another dtype, and widen it.
        return values.astype(values.dtype.newbyteorder("="))
    return values


def is_frame(values: Any) -> bool:
    """Whether this is a pandas DataFrame, without importing pandas."""
    return all(hasattr(values, name) for name in ("columns", "index", "dtypes"))


def float_dtypes(values: Any) -> list[type]:
    """Dtypes that ``values`` may keep, the first being the one that others are cast to."""
    if is_frame(values):
        names = {str(dtype) for dtype in values.dtypes}
        if names <= {"float16", "float32"}:
            return [np.float32]
    return [np.float64, np.float32]


def holds_integers(values: Any) -> bool:
    """Whether features are counts or pixels, in which an empty row is a value like any other.

    Among the floats of an encoder a row of zeros is the trace of a failure.
    """
    if is_frame(values):
        return all(dtype.kind in "iub" for dtype in values.dtypes)
    return np.asarray(values).dtype.kind in "iub"


def label_values(labels: ArrayLike, name: str) -> NDArray[Any]:
    """Labels as a 1-D array that can be sorted: all strings or all numbers, none missing."""
    if isinstance(labels, list | tuple):
        strings = sum(isinstance(label, str) for label in labels)
        if 0 < strings < len(labels):
            # numpy would turn the numbers into strings, and then nothing would match.
            raise TypeError(f"{name} mixes strings with other types; use one type of label.")
    array = np.asarray(labels)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a non-empty 1-D list of labels, got shape {array.shape}.")
    if array.dtype.kind == "f" or array.dtype.kind == "O":
        missing = [label for label in array.tolist() if label is None or label != label]
        if missing:
            raise ValueError(f"{name} has {len(missing)} missing labels (None or NaN).")
    try:
        np.unique(array)
    except TypeError as error:
        raise TypeError(f"{name} mixes types that cannot be sorted; use one type.") from error
    return array


def vector_values(vectors: ArrayLike, name: str) -> NDArray[Any]:
    """Vectors as a finite (m, e) array, float32 kept, everything else float64."""
    try:
        array = np.asarray(as_numpy(vectors))
        if array.dtype != np.float32:
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be embeddings, numbers in rows of one common width; got "
            f"{shorten([vectors])[:60]}. Labels belong in the keys of a dict, in the index of a "
            "DataFrame, or beside the rows: ClassEmbeddings(labels, vectors)."
        ) from error
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"{name} must be 2-D, one embedding per row, and not empty; got shape {array.shape}."
        )
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1)).tolist()
        raise ValueError(f"{name} contains NaN or infinity in rows {shorten(rows)}.")
    return array


def check_validation_data(
    X_val: Any, y_val: Any, X: Any, features: NDArray[Any], classes: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return validation features and labels as arrays.

    They must match the support data: ``X`` as it was given, ``features`` as it is used, and the
    labels that have a class embedding, ``classes``.
    """
    if X_val is None or y_val is None:
        given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
        raise ValueError(f"{given} was given without {missing}; give both or neither.")
    if is_frame(X_val) and is_frame(X) and list(X_val.columns) != list(X.columns):
        raise ValueError(
            f"X_val has columns {shorten(X_val.columns)} where X has {shorten(X.columns)}; give "
            "both the same, in the same order."
        )
    try:
        rows = check_array(as_numpy(X_val), dtype=features.dtype, ensure_min_samples=0)
    except (TypeError, ValueError) as error:
        raise type(error)(f"X_val must be features like X: {error}") from error
    labels = label_values(as_numpy(y_val), "y_val")
    if len(rows) != len(labels):
        raise ValueError(
            f"X_val and y_val must pair up, got {len(rows)} rows and {len(labels)} labels."
        )
    if rows.shape[1] != features.shape[1]:
        raise ValueError(
            f"X_val is {rows.shape[1]} wide and X is {features.shape[1]} wide; take both from the "
            "same encoder. In a Pipeline whose earlier steps change the width, pass "
            "transform_input=['X_val']."
        )
    unknown = sorted(set(labels.tolist()) - set(classes.tolist()))
    if unknown:
        raise ValueError(
            f"y_val has labels that are no class: {shorten(unknown)}; there are "
            f"{shorten(classes.tolist())}."
        )
    return rows, labels


def shorten(values: Iterable[Any], limit: int = 5) -> str:
    """Spell out the first few of a list that may be long."""
    items = [repr(v) for v in values]
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + rest
