"""The file: its header and its arrays, under a checksum."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from flowalign.atomic_file import check_is_file

FORMAT = 2  # of new files; version 0.2.0 fixed it, and added the encoder's entry last
READABLE = (1, 2)  # format 1 has no Gaussian model
NAME = "flowalign"  # of our entry in the file's metadata, which holds a checksum and the header
MAX_HEADER = 2**26  # bytes


class Contents(NamedTuple):
    """The contents of a file. The checksum identifies them."""

    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    checksum: str


def pack(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a file."""
    packed = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(header, allow_nan=False)
    # All in one entry, since safetensors writes several entries in no fixed order.
    return to_bytes(packed, {NAME: json.dumps([_checksum(text, packed), text])})


def _checksum(text: str, arrays: dict[str, NDArray[Any]]) -> str:
    """SHA-256 of header and arrays. It detects damage, not forgery."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def read(path: Path) -> Contents:
    """Read an untrusted file. No more memory is allocated than the file holds."""
    check_is_file(path)  # reading a pipe could wait for ever
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(size - 8, MAX_HEADER):
        raise ValueError(f"{path} is not a safetensors file, or is cut off.")
    try:
        with safe_open(path, framework="numpy") as file:
            ours = (file.metadata() or {}).get(NAME)
            if ours is None:
                raise ValueError("a safetensors file of something else.")
            checksum, text = json.loads(ours)
            header = json.loads(text, parse_constant=_no_number, parse_float=_finite)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or no aligner: {error}") from error
    if _checksum(text, arrays) != checksum:
        raise ValueError(f"{path} is damaged: its contents do not have their checksum.")
    return Contents(header, arrays, checksum)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"its header has {text}, which is no number.")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)
