"""Values of an untrusted file: each is taken once and checked."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


class Keys:
    """A dict whose values are taken one by one, each of a known type. None may be left over."""

    def __init__(self, values: Any, name: str) -> None:
        if type(values) is not dict:
            raise ValueError(f"{name} is not an object.")
        self.values, self.name = dict(values), name

    def take(self, key: str, kind: Any) -> Any:
        """Take the value of a key. Its type must be exactly `kind`, or one of a tuple of types."""
        value = self.values.pop(key)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(value) not in kinds:  # not isinstance, for which True is an int
            raise ValueError(f"{self.name}.{key} is {value!r}.")
        return value

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def close(self) -> None:
        """Check that nothing is left."""
        if self.values:
            raise ValueError(f"{self.name} has unknown keys: {sorted(self.values)[:5]}.")


def named(beginning: str, unread: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Take the arrays whose names have this beginning; return them without the beginning."""
    names = [name for name in unread if name.startswith(beginning)]
    return {name.removeprefix(beginning): unread.pop(name) for name in names}


def shaped(array: NDArray[Any], shape: tuple[int | None, ...], dtype: Any = None) -> NDArray[Any]:
    """Check shape and dtype. None is any length in the shape, and any float as the dtype."""
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    right = array.dtype.kind == "f" if dtype is None else array.dtype == dtype
    if not (fits and right):
        raise ValueError(f"an array is {array.dtype} of shape {array.shape}.")
    return array
