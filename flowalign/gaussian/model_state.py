"""What the state of a model may be that comes from a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowalign.gaussian.evidence import Evidence


def check_state(state: dict[str, Any], n_classes: int, width: int) -> None:
    """Raise ValueError unless this is the state of a model, as of ``__getstate__``.

    It comes from a file that nobody vouches for; what floats there are is finite.
    """
    rows = min(width, len(state["statistics.scatter"]))
    shapes: dict[str, tuple[int, ...]] = {
        "statistics.counts": (n_classes,),
        "statistics.sums": (n_classes, width),
        "statistics.scatter": (rows, width),
        "class_means.means": (n_classes, width),
        "class_means.covariance": (n_classes, n_classes),
        "class_means.common": (width,),
        "class_means.common_covariance": (n_classes,),
        "within.basis": (width, width),
        "within.variances": (width,),
    }
    numbers = {
        "class_means.common_variance", "class_means.text_spread",
        "class_means.residual_spread", "within.divisor", "within.tail", "within.single_share",
    }  # fmt: skip
    if "evidence.density" in state:
        numbers |= {f"evidence.{name}" for name in Evidence._fields}
    if {name: np.shape(value) for name, value in state.items()} != shapes | dict.fromkeys(
        numbers, ()
    ):
        raise ValueError("the parts of the model do not have its shapes.")
    if any(state[name].dtype != np.float64 for name in shapes):
        raise ValueError("the arrays of the model are not float64.")
    values = [state[name] for name in numbers]
    if not all(type(value) in (int, float) and 0 <= value < 1e18 for value in values):
        raise ValueError("the numbers of the model are out of range.")
    counts = state["statistics.counts"]
    if (counts < 0).any() or (state["within.variances"] <= 0).any():
        raise ValueError("counts or variances of the model are negative.")
    if rows < width and rows > counts.sum():
        raise ValueError("the scatter of the model has more rows than there were samples.")
    if state["within.tail"] <= width or not state["within.divisor"]:
        raise ValueError("the covariance of the model is none.")
