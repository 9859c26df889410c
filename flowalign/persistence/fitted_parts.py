"""Fitted parts from a file: the field, the model of the classes, and what is kept of samples.

Each function takes its own arrays out of `unread`, the arrays of the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowalign.fields import VelocityField, kind_of
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.model_state import check_state
from flowalign.gaussian.statistics import ClassStatistics
from flowalign.gaussian.unlabeled import Held
from flowalign.persistence.checked import Keys, named, shaped
from flowalign.reserve import Reserve


def field_of(
    entry: Any, unread: dict[str, NDArray[Any]], n_classes: int, width: int
) -> tuple[str, VelocityField]:
    """Return the kind of the field, and the field."""
    keys = Keys(entry, "field")
    kind, config = keys.take("kind", str), keys.take("config", dict)
    keys.close()
    weights = named("field.", unread)
    if any(array.dtype != np.float32 for array in weights.values()):
        raise ValueError("the arrays of the field are not float32.")
    cls = kind_of(kind).field
    cls.check(config, weights, n_classes, width)
    field = cls.__new__(cls)
    field.__setstate__({"config": config, "weights": weights})
    return kind, field


def model_of(
    name: str, left: Keys, unread: dict[str, NDArray[Any]], n_classes: int, width: int
) -> GaussianModel | None:
    """Make the model of this name, if there is one."""
    if name not in left:
        return None
    state = left.take(name, dict) | named(f"{name}.", unread)
    check_state(state, n_classes, width)
    model = GaussianModel.__new__(GaussianModel)
    model.__setstate__(state)
    return model


def held_of(unread: dict[str, NDArray[Any]], n_classes: int, width: int) -> Held:
    """Make the statistics that are kept of unlabelled rows."""
    parts, double = named("held.", unread), np.float64
    statistics = ClassStatistics.__new__(ClassStatistics)
    statistics.__setstate__(
        {
            "counts": shaped(parts.pop("counts"), (n_classes,), double),
            "sums": shaped(parts.pop("sums"), (n_classes, width), double),
            "scatter": shaped(parts.pop("scatter"), (None, width), double),
        }
    )
    agreement = shaped(unread.pop("class_agreement"), (n_classes,), double)
    if parts or len(statistics.scatter) > width:
        raise ValueError("the statistics of unlabelled rows do not have their shapes.")
    if (statistics.counts < 0).any() or (agreement <= 0).any():
        raise ValueError("weights or class_agreement are negative.")
    return Held(statistics, agreement)


def reserve_of(
    share: int, unread: dict[str, NDArray[Any]], counts: NDArray[Any], width: int
) -> Reserve:
    """Make the reserve of rows. A class had ``counts``, (C,), samples, so it has no more rows."""
    parts = named("reserve.", unread)
    X = shaped(parts.pop("X"), (None, width))
    codes, multiplicity = (
        shaped(parts.pop(name), (len(X),), np.int64) for name in ("codes", "multiplicity")
    )
    reserve = Reserve(X, codes, multiplicity, share)
    if (
        parts
        or share < 1
        or X.dtype not in ("f4", "f8")
        or ((codes < 0) | (codes >= len(counts)) | (multiplicity < 1)).any()
        or (np.bincount(codes, multiplicity, minlength=len(counts)) > counts).any()
    ):
        raise ValueError("the reserve has rows that cannot be of the samples.")
    return reserve
