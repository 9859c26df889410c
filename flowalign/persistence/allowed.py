"""What a model file can hold: shared by writing and reading."""

from __future__ import annotations

from typing import Any

import numpy as np

# For each key of the header's "fitted": the aligner's attribute and the types of its value.
FITTED: dict[str, tuple[str, tuple[type, ...]]] = {
    "joint": ("joint_", (bool,)),
    "n_iter": ("n_iter_", (int,)),
    "stop_source": ("stop_source_", (str, type(None))),
    "stop": ("_stop", (float, type(None))),
    "normalize": ("_normalize", (bool,)),
    "device": ("device_", (str,)),
}
SCALARS = (str, int, float, bool, type(None))
NUMBER_KINDS = "biuf"
MAX_PADDED = 2**24  # bytes of an array that is wider than its strings
# Parameters that are not stored. joblib reads its cache by pickle, so a file must not name one.
LEFT_OUT = ("memory",)


def check_strings(dtype: np.dtype[Any], strings: list[str]) -> None:
    """Refuse a dtype far wider than its strings: a small file could fill the memory with it."""
    if dtype.kind == "U" and dtype.itemsize * len(strings) > MAX_PADDED:
        needed = 4 * max(map(len, strings))
        if dtype.itemsize > needed:
            raise ValueError(
                f"labels have the dtype {dtype} and need only {needed // 4} characters; fit to "
                "labels of that width."
            )
