"""What a model can hold, to those who write it and those who read it."""

from __future__ import annotations

from typing import Any

import numpy as np

# Of the header's "fitted": the attribute of the aligner, and the types that its value may have.
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
MAX_PADDED = 2**24  # bytes of strings in an array wider than they are
# Parameters that are not stored. A cache is read by pickle, so a model must not bring one.
LEFT_OUT = ("memory",)


def check_strings(dtype: np.dtype[Any], strings: list[str]) -> None:
    """Refuse a dtype so much wider than its strings that a small file would fill the memory."""
    if dtype.kind == "U" and dtype.itemsize * len(strings) > MAX_PADDED:
        needed = 4 * max(map(len, strings))
        if dtype.itemsize > needed:
            raise ValueError(
                f"labels have the dtype {dtype}, of which they need {needed // 4} characters; "
                "fit to labels of that width."
            )
