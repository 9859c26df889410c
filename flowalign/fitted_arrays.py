"""Fitted arrays: numpy within, and in the form of the training data for who asks for them."""

from __future__ import annotations

from typing import Any

import torch


class FittedArray:
    """An attribute of an estimator that fit sets, an ndarray or None.

    It is kept in ``_arrays``, by its name. Where scikit-learn dispatches on arrays and X was a
    tensor, the attribute is a tensor on the device of X.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, estimator: Any, owner: type | None = None) -> Any:
        if estimator is None:
            return self
        arrays = vars(estimator).get("_arrays", {})
        if self.name not in arrays:
            raise AttributeError(f"{type(estimator).__name__} has no {self.name} before fit.")
        value, place = arrays[self.name], vars(estimator).get("_tensors_on")
        return value if place is None or value is None else torch.tensor(value, device=place)

    def __set__(self, estimator: Any, value: Any) -> None:
        # A new dict: a copy of the estimator has the old one.
        vars(estimator)["_arrays"] = vars(estimator).get("_arrays", {}) | {self.name: value}
