"""Checks of parameters. Every message names the argument, what was got and what to do."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowalign import ode
from flowalign.fields.base import KINDS
from flowalign.inputs import as_numpy, precision, shorten
from flowalign.ode import SOLVERS, max_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray


IMPOSSIBLE = 1e-300
"""Prior probability, in effect 0, of a class that must not be predicted."""

MAX_SCALE = 1e18
"""Of the scores, which are thousands at most and have a place in float32."""


def check_parameters(params: dict[str, Any]) -> None:
    """Check the constructor parameters of the aligner, each alone and the stop as a whole."""
    one_of("velocity_field", params["velocity_field"], tuple(KINDS))
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
    check_labels(params)
    check_predict_parameters(params)


def check_labels(params: dict[str, Any]) -> None:
    """Check the parameters about rows of no class, or without a label."""
    for name in ("unknown_label", "unlabeled_label"):
        _label(name, params[name])
    label = params["unlabeled_label"]
    if label is not None and label == params["unknown_label"]:
        raise ValueError(
            f"unlabeled_label and unknown_label are both {label!r}; rows without a label are one "
            "thing, rows of no class another."
        )
    _number("unknown_rate", params["unknown_rate"], low=0, high=1, low_excluded=True)


def check_predict_parameters(params: dict[str, Any]) -> None:
    """Check the parameters that act at predict time, which may change after ``fit``."""
    _number("unknown_rate", params["unknown_rate"], low=0, high=1, low_excluded=True)
    n_steps, step_size = params["n_steps"], params["step_size"]
    if not is_auto(n_steps):
        integer("n_steps", n_steps, low=0, otherwise="'auto' or ")
    if is_auto(step_size):
        step_size = ode.STEP_SIZE
    _number("step_size", step_size, low=0, high=1, low_excluded=True, otherwise="'auto' or ")
    one_of("solver", params["solver"], SOLVERS)
    if not is_auto(params["logit_scale"]):
        _number(
            "logit_scale", params["logit_scale"], low=0, high=MAX_SCALE, low_excluded=True,
            otherwise="'auto' or ",
        )  # fmt: skip
    if not is_auto(n_steps) and n_steps > max_steps(step_size):
        raise ValueError(
            f"n_steps={n_steps} steps of step_size={step_size} end at time "
            f"{n_steps * step_size:g}, beyond the end of the flow at 1. Take at most "
            f"{max_steps(step_size)} steps, or smaller ones."
        )


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
        prior = np.asarray(as_numpy(class_prior, "class_prior"), dtype=np.float64)
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
    # Rounded to 16 bits, probabilities sum to 1 as nearly as 16 bits can tell.
    total, tolerance = prior.sum(), max(1e-5, precision(class_prior))
    if not (np.isfinite(prior).all() and (prior > 0).all() and abs(total - 1) <= tolerance):
        raise ValueError(
            f"class_prior must be positive and sum to 1; got {shorten(prior.tolist())}. Leave a "
            "class that is impossible out of class_embeddings."
        )
    # One that was stored comes back to the last bit.
    return prior if abs(total - 1) < 1e-12 else prior / total


def check_unknown_label(label: Any, classes: NDArray[Any], name: str = "unknown_label") -> None:
    """Check that what rows of no class, or without one, are called is a label, and no class."""
    _label(name, label)
    if label is None:
        return
    text = isinstance(label, str)
    if isinstance(label, bool) and not isinstance(classes[0], bool | np.bool_):
        raise TypeError(  # or it would be 0 or 1, and "off" a class
            f"{name}={label!r} is no label, as those of the classes are: "
            f"{shorten(classes.tolist())}. None switches it off."
        )
    if label in classes.tolist():
        raise ValueError(f"{name}={label!r} is the label of a class; take another.")
    if text != isinstance(classes[0], str):
        kind = "number" if text else "string"
        raise TypeError(
            f"{name}={label!r} must be a {kind}, as the labels of the classes are: "
            f"{shorten(classes.tolist())}."
        )
    labels_with_unknown(classes, label, name)


def _label(name: str, label: Any) -> None:
    whole = isinstance(label, Integral) or (isinstance(label, Real) and float(label).is_integer())
    if not (label is None or isinstance(label, str) or whole):
        raise TypeError(f"{name} must be a string, a whole number or None, got {label!r}.")


def labels_with_unknown(
    classes: NDArray[Any], label: Any, name: str = "unknown_label"
) -> NDArray[Any]:
    """Append what rows of no class are called to the labels of the classes: (C + 1,)."""
    last = np.array(label)
    if classes.dtype.kind in "biu":  # in floats, integers of many digits would become others
        last = np.array(int(label), dtype=np.min_scalar_type(int(label)))
    try:
        labels = np.append(classes, last)
    except TypeError:  # dates
        labels = classes[:0]
    widened = labels.dtype.kind in "fO" and labels.dtype.kind != classes.dtype.kind
    if widened or labels.tolist() != [*classes.tolist(), label]:
        raise TypeError(
            f"{name}={label!r} and the labels of the classes, of dtype {classes.dtype}, "
            "have no place in one array; take another, or name the classes by strings."
        )
    return labels


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


def is_auto(value: Any) -> bool:
    """Whether a parameter is the string "auto"; an array is not asked to compare itself."""
    return isinstance(value, str) and value == "auto"


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Check that a parameter is one of a few strings."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


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
