"""The one door for what users hand in: tensors, arrays, frames and lists become arrays.

:func:`as_numpy` takes them all; the other functions say what is in an array, and refuse what does
not belong. Every message names the argument, what was got and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_X_y

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Of 16-bit floats, by the names that numpy and torch give them: the distance from 1 to the next.
HALF_PRECISION = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
# Columns of pandas that are not wider than float32, with and without missing values.
SINGLE_COLUMNS = {"float16", "float32", "Float32", "float[pyarrow]", "halffloat[pyarrow]"}


def as_numpy(values: Any, name: str) -> Any:
    """Turn tensors, lists, columns and frames into arrays.

    Tensors may have any float type, be on any device, ask for gradients, and stand in lists. A
    column or a list whose cells are arrays becomes an array of one dimension more. 16-bit floats,
    which BLAS lacks, become float32; nothing else that is an array is copied or looked through.
    Frames of pandas, whose columns scikit-learn knows how to read, and what has no array in it
    (sparse matrices, strings, None) are returned as they are.
    """
    if isinstance(values, torch.Tensor):
        return _from_tensor(values, name)
    if is_frame(values):
        if not any(dtype.kind == "O" for dtype in values.dtypes):
            return values
        cells = np.asarray(values)
        return as_numpy(cells, name) if _holds_arrays(cells) else values
    if isinstance(values, list | tuple):
        values = _from_list(values, name)
    if not isinstance(values, np.ndarray):
        if not hasattr(values, "__array__"):
            return values
        values = np.asarray(values)
    if values.dtype.name in HALF_PRECISION:
        return values.astype(np.float32)
    if not values.dtype.isnative:
        # scikit-learn would take a foreign float32 for another dtype, and widen it.
        return values.astype(values.dtype.newbyteorder("="))
    if _holds_arrays(values):
        cells = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
        return _from_parts(cells.tolist(), name)
    return values


def _from_tensor(tensor: torch.Tensor, name: str) -> NDArray[Any]:
    try:
        if tensor.layout is not torch.strided:
            raise TypeError(f"its layout is {tensor.layout}; make it dense, {name}.to_dense()")
        tensor = tensor.detach().resolve_conj().resolve_neg().cpu()
        wide = not tensor.is_floating_point() or tensor.dtype in (torch.float32, torch.float64)
        return (tensor if wide else tensor.float()).numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} is a tensor that cannot be read as an array: {error}.") from error


def float_tensor(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Rows of a tensor, (n, d), as floats of 32 or 64 bits, where they are."""
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise ValueError(
            f"{name} must be a tensor of rows of features, 2-D and not empty; got shape "
            f"{tuple(tensor.shape)}."
        )
    if tensor.is_complex() or tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor of real numbers, got {tensor.dtype}.")
    tensor = tensor.detach()
    if tensor.dtype in (torch.float32, torch.float64):
        return tensor
    narrow = tensor.is_floating_point() or tensor.device.type == "mps"
    return tensor.float() if narrow else tensor.double()


def _from_list(values: list[Any] | tuple[Any, ...], name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        # Tensors that numpy cannot read by itself, or rows of several widths.
        return _from_parts(values, name)


def _from_parts(values: list[Any] | tuple[Any, ...], name: str) -> NDArray[Any]:
    parts = [as_numpy(v, name) if isinstance(v, _ARRAYS) else v for v in values]
    # Single values beside what is no array, such as None, would stay arrays within the array.
    parts = [v[()] if isinstance(v, np.ndarray) and v.ndim == 0 else v for v in parts]
    try:
        return np.asarray(parts)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must have rows of one width: {error}") from error


_ARRAYS = (torch.Tensor, np.ndarray, list, tuple)


def _holds_arrays(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "O" and any(
        issubclass(kind, _ARRAYS) for kind in set(map(type, values.flat))
    )


def is_frame(values: Any) -> bool:
    """Whether this is a pandas DataFrame, without importing pandas."""
    return all(hasattr(values, name) for name in ("columns", "index", "dtypes"))


def column_names(values: Any) -> list[Any] | None:
    """Names of the columns of a frame of pandas, polars or pyarrow; None of anything else."""
    if is_frame(values) or not hasattr(values, "column_names"):
        names = getattr(values, "columns", None)
    else:
        names = values.column_names
    return None if names is None else list(names)


def named(values: Any, array: Any) -> Any:
    """Return what has the names and the width of the features: `values` as given, or its array.

    A frame has them if it has a column for each column of the array, not if its cells are arrays.
    """
    names = column_names(values)
    return array if names is None or array.shape[1:] != (len(names),) else values


def float_dtypes(values: Any) -> list[type]:
    """Dtypes that ``values`` may keep, the first being the one that others are cast to."""
    if is_frame(values) and {str(dtype) for dtype in values.dtypes} <= SINGLE_COLUMNS:
        return [np.float32]
    return [np.float64, np.float32]


def holds_integers(values: Any) -> bool:
    """Whether features are counts or pixels, in which an empty row is a value like any other.

    Among the floats of an encoder a row of zeros is the trace of a failure.
    """
    if is_frame(values):
        return all(dtype.kind in "iub" for dtype in values.dtypes)
    return np.asarray(values).dtype.kind in "iub"


def precision(values: Any) -> float:
    """Distance from 1 to the next number of the widest-spaced floats in values as given."""
    if isinstance(values, list | tuple):
        return max(map(precision, values), default=0.0)
    dtype = str(getattr(values, "dtype", "")).removeprefix("torch.")
    return HALF_PRECISION.get(dtype, 0.0)


def present_labels(labels: Any, name: str) -> Any:
    """Labels as :func:`as_numpy` returns them, of any shape, none missing."""
    missing = 0
    if isinstance(labels, list | tuple):
        others = [label for label in labels if not isinstance(label, str)]
        if 0 < len(others) < len(labels):  # numpy would turn them into strings
            missing = sum(map(is_missing, others))
            if not missing:
                raise TypeError(f"{name} mixes strings with other types; use one type of label.")
    labels = as_numpy(labels, name)
    array = np.asarray(labels)
    if array.dtype.kind in "fmM":
        missing = int(np.count_nonzero(np.isnan(array)))
    elif array.dtype.kind == "O":
        missing = sum(map(is_missing, array.ravel().tolist()))
    if missing:
        raise ValueError(f"{name} has {missing} missing labels (None, NaN or NA); drop those rows.")
    return labels


def is_missing(label: Any) -> bool:
    """Whether this is None, NaN or what other libraries have for them."""
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas' NA compares with nothing
        return True


def label_values(labels: Any, name: str) -> NDArray[Any]:
    """Labels as a 1-D array that can be sorted: all strings or all numbers, none missing."""
    array = np.asarray(present_labels(labels, name))
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a non-empty 1-D list of labels, got shape {array.shape}.")
    try:
        np.unique(array)
    except TypeError as error:
        raise TypeError(f"{name} mixes types that cannot be sorted; use one type.") from error
    return array


def labels_with(y: NDArray[Any], classes: Any) -> NDArray[Any]:
    """Labels of samples, and those that are listed as `classes` if these are not None, sorted."""
    labels = np.unique(y) if len(y) else np.empty(0, y.dtype)
    if classes is None:
        return labels
    return union_of_labels(labels, np.unique(label_values(classes, "classes")))


def union_of_labels(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Labels of both, sorted."""
    if not len(one) or not len(other):
        return one if len(one) else other
    both = np.concatenate([one, other]) if _alike(one, other) else None
    if both is None or both[: len(one)].tolist() + both[len(one) :].tolist() != [
        *one.tolist(),
        *other.tolist(),
    ]:
        raise TypeError(
            f"y has labels {shorten(other.tolist(), 3)} where there are classes "
            f"{shorten(one.tolist(), 3)}; give labels of one type."
        )
    return np.unique(both)


def places(labels: NDArray[Any], among: NDArray[Any]) -> NDArray[np.int64]:
    """Where sorted labels are among others, also sorted; -1 where they are not."""
    found = np.minimum(np.searchsorted(among, labels), max(len(among) - 1, 0))
    return np.where(np.isin(labels, among), found, -1)


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether labels are all strings, all truth values or all others."""
    first = one.tolist()[0], other.tolist()[0]
    return all(
        isinstance(first[0], kind) == isinstance(first[1], kind) for kind in (str, bool | np.bool_)
    )


def vector_values(vectors: ArrayLike, name: str) -> NDArray[Any]:
    """Vectors as a finite (m, e) array, float32 kept, everything else float64."""
    try:
        array = np.asarray(as_numpy(vectors, name))
        if array.dtype.kind == "c":
            raise TypeError("complex numbers")
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


def check_support_data(
    X: Any,
    y: Any,
    *,
    samples_needed: bool,
    unknown_label: Any,
    unlabeled_label: Any,
    estimator: Any,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], bool]:
    """Return features and labels as arrays, unlabelled rows, and whether rows of zeros are allowed.

    Rows with the `unknown_label` are dropped.
    """
    X = as_numpy(X, "X")
    y = None if y is None else present_labels(y, "y")
    if np.shape(X) == (0,):
        raise ValueError("X has 0 sample(s) and no width; give an array of shape (0, d).")
    features, labels = check_X_y(
        X, y, dtype=float_dtypes(X), ensure_min_samples=0, estimator=estimator
    )
    unlabeled = features[:0]
    if (labelled := _without(labels, unlabeled_label)) is not None:
        unlabeled = features[~labelled]
        features, labels = features[labelled], labels[labelled]
    if (known := _without(labels, unknown_label)) is not None:
        features, labels = features[known], labels[known]
    if len(labels):
        label_values(labels, "y")
        # On the classes alone, thrice: of few samples it would warn that they are too many.
        check_classification_targets(np.repeat(np.unique(labels), 3))
    elif samples_needed:
        raise ValueError(
            f"X has 0 sample(s) (shape={features.shape}), and there are no class_embeddings. "
            "Give labelled samples, or class_embeddings in the space of X for zero-shot "
            "classification."
        )
    return features, labels, unlabeled, holds_integers(X)


def _without(labels: NDArray[Any], dropped: Any) -> NDArray[np.bool_] | None:
    """Rows that do not have a label; None if it is None."""
    if dropped is None:
        return None
    return np.array([label != dropped for label in labels.tolist()], dtype=bool)


def check_unlabeled_data(X_unlabeled: Any, X: Any, width: int) -> tuple[NDArray[Any], bool]:
    """Return unlabelled features as an array, not copied, and whether they are integers.

    They must match the support data, ``X`` as it was given. Their values are looked at later.
    """
    names, expected = column_names(X_unlabeled), column_names(X)
    if names is not None and expected is not None and names != expected:
        raise ValueError(
            f"X_unlabeled has columns {shorten(names)} where X has {shorten(expected)}; give "
            "both the same, in the same order."
        )
    try:
        floats = isinstance(X_unlabeled, np.ndarray) and X_unlabeled.dtype.kind == "f"
        array = X_unlabeled if floats else as_numpy(X_unlabeled, "X_unlabeled")
        if np.shape(array) == (0,):
            raise ValueError("there are 0 of them, without a width. Leave it out.")
        rows = check_array(array, ensure_min_samples=0, ensure_all_finite=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"X_unlabeled must be features like X: {error}") from error
    if rows.shape[1] != width:
        raise ValueError(
            f"X_unlabeled is {rows.shape[1]} wide and X is {width} wide; take both from the "
            "same encoder. In a Pipeline whose earlier steps change the width, pass "
            "transform_input=['X_unlabeled']."
        )
    return rows, holds_integers(array)


def check_validation_data(
    X_val: Any,
    y_val: Any,
    X: Any,
    features: NDArray[Any],
    classes: NDArray[Any],
    dropped: tuple[Any, ...],
) -> tuple[NDArray[Any], NDArray[Any], bool]:
    """Return validation features and labels as arrays, and whether the features are integers.

    They must match the support data: ``X`` as it was given, ``features`` as it is used, and the
    labels that have a class embedding, ``classes``. Rows with `dropped` labels are left out.
    """
    if X_val is None or y_val is None:
        given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
        raise ValueError(f"{given} was given without {missing}; give both or neither.")
    names, expected = column_names(X_val), column_names(X)
    if names is not None and expected is not None and names != expected:
        raise ValueError(
            f"X_val has columns {shorten(names)} where X has {shorten(expected)}; give "
            "both the same, in the same order."
        )
    try:
        array = as_numpy(X_val, "X_val")
        rows = check_array(array, dtype=features.dtype, ensure_min_samples=0)
    except (TypeError, ValueError) as error:
        raise type(error)(f"X_val must be features like X: {error}") from error
    labels = label_values(y_val, "y_val")
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
    for label in dropped:
        if (kept := _without(labels, label)) is not None:
            rows, labels = rows[kept], labels[kept]
    if not len(labels):
        raise ValueError(
            "y_val has no labels of classes; give validation data of the classes too, or none."
        )
    unknown = sorted(set(labels.tolist()) - set(classes.tolist()))
    if unknown:
        raise ValueError(
            f"y_val has labels that are no class: {shorten(unknown)}; there are "
            f"{shorten(classes.tolist())}."
        )
    return rows, labels, holds_integers(array)


def shorten(values: Iterable[Any], limit: int = 5) -> str:
    """Spell out the first few of a list that may be long."""
    items = [repr(v) for v in values]
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + rest


def shown(path: str | os.PathLike[str]) -> str:
    """Spell a path for a message: quoted, with escapes, if it has what a reader would not see."""
    name = os.fsdecode(path)
    plain = name.isprintable() and name == name.strip() != ""
    return name if plain else repr(name)
