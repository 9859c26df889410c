"""Checks of what users hand in. Every message names the argument, what was got and what to do."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_array

from flowalign.ode import SOLVERS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

VELOCITY_FIELDS = ("gaussian", "mlp")


def check_parameters(params: dict[str, Any]) -> None:
    """Check the constructor parameters of the aligner, each alone and the stop as a whole."""
    one_of("velocity_field", params["velocity_field"], VELOCITY_FIELDS)
    joint = params["joint"]
    if not isinstance(joint, bool | np.bool_) and not is_auto(joint):
        raise ValueError(f"joint must be 'auto', True or False, got {joint!r}.")
    _number("noise", params["noise"], low=0)
    if isinstance(params["class_prior"], str):
        one_of("class_prior", params["class_prior"], ("uniform", "empirical"))
    integer("n_blocks", params["n_blocks"], low=1)
    if params["hidden_dim"] is not None:
        integer("hidden_dim", params["hidden_dim"], low=1)
    integer("max_iter", params["max_iter"], low=1)
    if not is_auto(params["batch_size"]):
        integer("batch_size", params["batch_size"], low=1, otherwise="'auto' or ")
    _number("learning_rate_init", params["learning_rate_init"], low=0, low_excluded=True)
    _number("weight_decay", params["weight_decay"], low=0)
    if not isinstance(params["normalize"], bool | np.bool_):
        raise TypeError(f"normalize must be True or False, got {params['normalize']!r}.")
    check_solver_parameters(params)


def check_solver_parameters(params: dict[str, Any]) -> None:
    """Check the parameters that act at predict time, which may change after ``fit``."""
    n_steps, step_size = params["n_steps"], params["step_size"]
    if not is_auto(n_steps):
        integer("n_steps", n_steps, low=0, otherwise="'auto' or ")
    _number("step_size", step_size, low=0, high=1, low_excluded=True)
    one_of("solver", params["solver"], SOLVERS)
    if not is_auto(params["logit_scale"]):
        _number(
            "logit_scale", params["logit_scale"], low=0, low_excluded=True, otherwise="'auto' or "
        )
    if not is_auto(n_steps) and n_steps > max_steps(step_size):
        raise ValueError(
            f"n_steps={n_steps} steps of step_size={step_size} end at time "
            f"{n_steps * step_size:g}, beyond the end of the flow at 1. Take at most "
            f"{max_steps(step_size)} steps, or smaller ones."
        )


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


def is_auto(value: Any) -> bool:
    """Whether a parameter is the string "auto"; an array is not asked to compare itself."""
    return isinstance(value, str) and value == "auto"


def class_probabilities(
    class_prior: Any, classes: NDArray[Any], counts: NDArray[Any]
) -> NDArray[Any]:
    """Prior probabilities of `classes`, (C,), from `class_prior` and the samples of each."""
    n_classes = len(classes)
    if isinstance(class_prior, str) and class_prior == "uniform":
        return np.full(n_classes, 1 / n_classes)
    if isinstance(class_prior, str):
        # One sample more for each class: one without samples must stay possible.
        return (counts + 1) / (counts.sum() + n_classes)
    if hasattr(class_prior, "keys"):  # a dict, or a Series with its index
        given = {label: class_prior[label] for label in class_prior.keys()}  # noqa: SIM118
        if set(given) != set(classes.tolist()):
            raise ValueError(
                f"class_prior must have the labels {shorten(classes.tolist())} as keys, got "
                f"{shorten(given)}."
            )
        class_prior = [given[label] for label in classes.tolist()]
    try:
        prior = np.asarray(as_numpy(class_prior), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "class_prior must be 'uniform', 'empirical', or probabilities as an array or a dict; "
            f"got {class_prior!r}."
        ) from error
    if prior.shape != (n_classes,):
        raise ValueError(
            f"class_prior must have one probability for each of the {n_classes} classes, in the "
            f"order of classes_, or be 'uniform' or 'empirical'; got {class_prior!r}."
        )
    if not (np.isfinite(prior).all() and (prior > 0).all() and np.isclose(prior.sum(), 1)):
        raise ValueError(
            f"class_prior must be positive and sum to 1; got {shorten(prior.tolist())}. Leave a "
            "class that is impossible out of class_embeddings."
        )
    return prior


def max_steps(step_size: float) -> int:
    """Return how many whole steps fit into [0, 1], forgiving rounding in ``step_size``."""
    return math.floor(1 / step_size + 1e-9)


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Check that a parameter is one of a few strings."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


def check_device(device: str | torch.device) -> torch.device:
    """Resolve ``"auto"`` and make sure that the device is there."""
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved).cpu()
    except Exception as error:  # torch raises half a dozen unrelated types here
        raise ValueError(
            f"device={device!r} is unknown to torch or not available on this machine; "
            "use device='auto' to take what is there."
        ) from error
    return resolved


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


_HALF_TENSORS = (torch.float16, torch.bfloat16)


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


def integer(name: str, value: Any, *, low: int, otherwise: str = "") -> None:
    """Check that a parameter is an integer of at least `low`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be {otherwise}an integer, got {value!r}.")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value!r}.")


def _number(
    name: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    low_excluded: bool = False,
    otherwise: str = "",
) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be {otherwise}a number, got {value!r}.")
    number = float(value)
    inside = (low < number) if low_excluded else (low <= number)
    if not (inside and number <= high and math.isfinite(number)):  # also refuses NaN
        bound = f"{'above' if low_excluded else 'at least'} {low}"
        bound += f" and at most {high}" if high < math.inf else ""
        raise ValueError(f"{name} must be finite and {bound}, got {value!r}.")
