"""Sounds as encoders need them: one channel, one sampling rate, windows at fixed positions."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from math import ceil, gcd
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.signal import resample_poly

from flowalign.inputs import as_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CHANNELS = 32
MAX_RATE = 1_000_000  # Hz; recordings of bats have up to half of it
MAX_PEAK = 10.0  # full scale is 1; a recording in floats may exceed it, but not by 20 dB

FORMS = (
    "paths or arrays of floats of shape (frames,), (frames, channels) or (channels, frames), alone "
    "or with their rate, (array, rate) or {'array': array, 'sampling_rate': rate}"
)
SCALING = "samples / 32768 for 16 bits, (samples - 128.0) / 128 for 8 bits without sign"


def read_window(
    opened: Any, *, rate: int, array_rate: int, seconds: float, number: int, count: int
) -> NDArray[np.float32]:
    """Read one of several windows, evenly spaced over a sound. A single one is in the middle.

    Parameters
    ----------
    opened : bytes, or samples as `samples_and_rate` takes them
        The content of a sound file, or samples.
    rate : int
        Sampling rate of the result, in Hz.
    array_rate : int
        Sampling rate of samples that come without a rate, in Hz.
    seconds : float
        Length of a window. A shorter sound is returned whole.
    number, count : int
        The number of the window, from 0, and the number of windows.

    Returns
    -------
    ndarray of shape (samples,)
        The mean of the channels.

    Raises
    ------
    ValueError
        If `opened` has no sound, a damaged one, one with NaN, or one whose full scale is not 1.
    TypeError
        If `opened` is of another type.
    """
    if isinstance(opened, bytes):
        samples, source_rate = _read_file(opened, seconds, number, count)
    else:
        samples, source_rate = samples_and_rate(opened, array_rate)
        _check_scale([samples])
        start, stop = window(len(samples), ceil(seconds * source_rate), number, count)
        samples = samples[start:stop]
    if not len(samples):
        raise ValueError("it has no samples")
    if not np.isfinite(samples).all():
        raise ValueError("it has samples that are NaN or infinite")
    mono = samples.mean(axis=1, dtype=np.float64)
    if source_rate != rate:
        common = gcd(source_rate, rate)
        mono = resample_poly(mono, rate // common, source_rate // common)
    return mono[: round(seconds * rate)].astype(np.float32)


def window(length: int, size: int, number: int, count: int) -> tuple[int, int]:
    """Return the bounds of window `number` of `count`, each of `size` at most, over `length`."""
    room = max(0, length - size)
    start = room // 2 if count == 1 else room * number // (count - 1)
    return start, min(length, start + size)


def samples_and_rate(item: Any, array_rate: int) -> tuple[NDArray[Any], int]:
    """Return the samples, frames first, and the rate of a sound that is not in a file.

    Parameters
    ----------
    item : array-like, pair, dict, or decoder of torchcodec
        Floats of shape (frames,), (frames, channels) or (channels, frames). With a rate, they are a
        pair in either order, or a dict with "array" and "sampling_rate".
    array_rate : int
        The rate of samples that come without a rate, in Hz.

    Returns
    -------
    samples : ndarray of shape (frames, channels)
        The values, not scaled.
    rate : int
        The sampling rate in Hz.
    """
    if isinstance(item, Mapping):
        if not {"array", "sampling_rate"} <= item.keys():
            raise TypeError(
                f"Sounds given as dicts must have 'array' and 'sampling_rate', got {[*item]}"
            )
        return _frames_first(item["array"]), _rate(item["sampling_rate"])
    if hasattr(item, "get_all_samples"):  # a decoder, which the datasets library now returns
        decoded = item.get_all_samples()
        return _frames_first(decoded.data), _rate(decoded.sample_rate)
    if is_pair(item):
        values, rate = reversed(item) if _is_number(item[0]) else item
        return _frames_first(values), _rate(rate)
    return _frames_first(item), array_rate


def is_pair(item: Any) -> bool:
    """Whether this is a pair of samples and their rate, in either order."""
    is_two = isinstance(item, tuple | list) and len(item) == 2
    return is_two and _is_number(item[0]) != _is_number(item[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) or getattr(value, "ndim", None) == 0


def _rate(value: Any) -> int:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = 0.0
    if not (1 <= rate <= MAX_RATE and rate.is_integer()):
        raise ValueError(
            f"its sampling rate must be a whole number from 1 to {MAX_RATE} Hz, got {value!r}"
        )
    return int(rate)


class _WrongScale(ValueError):
    """Samples whose full scale is not 1."""


def _check_scale(blocks: Iterable[NDArray[Any]]) -> None:
    """Refuse integers that were turned into floats unscaled: the model would hear loud noise."""
    peak, whole = 0.0, True
    for block in blocks:
        finite = block[np.isfinite(block)]
        peak = max(peak, float(np.abs(finite).max(initial=0)))
        whole = whole and bool((finite == np.rint(finite)).all())
    if peak > MAX_PEAK or (whole and peak > 1):
        which = "whole numbers that reach" if whole else "samples that reach"
        raise _WrongScale(f"it has {which} {peak:g}, where full scale is 1; scale them: {SCALING}")


def _read_file(
    content: bytes, seconds: float, number: int, count: int
) -> tuple[NDArray[np.float32], int]:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate = _rate(file.samplerate)
            if file.subtype in ("FLOAT", "DOUBLE"):  # other subtypes cannot exceed full scale
                _check_scale(file.blocks(1 << 20, dtype="float32", always_2d=True))
            start, stop = window(file.frames, ceil(seconds * rate), number, count)
            file.seek(start)
            samples = file.read(stop - start, "float32", always_2d=True)
            if len(samples) < 0.99 * (stop - start):
                raise ValueError("it ends early")
            return samples, rate
    except (MemoryError, _WrongScale):
        raise
    except Exception as error:  # of libsndfile, or of any type from seeking in a damaged file
        why = getattr(error, "error_string", error)  # without the object's address in memory
        raise ValueError(f"no sound, or a damaged one ({why})") from error


def _frames_first(values: Any) -> NDArray[Any]:
    try:
        samples = np.asarray(as_numpy(values, "a sound"))
    except (TypeError, ValueError):
        samples = np.empty(0, dtype=object)
    if samples.dtype.kind in "iu" and samples.ndim in (1, 2):
        raise TypeError(
            f"Sounds given as arrays must be floats between -1 and 1, got {samples.dtype}; scale "
            f"them: {SCALING}"
        )
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2):
        raise TypeError(
            f"Sounds must be {FORMS}; got {type(values).__name__} of shape {samples.shape}"
        )
    if not samples.size:
        raise ValueError("it has no samples")
    if samples.ndim == 1 or 1 in samples.shape:
        return samples.reshape(-1, 1)
    first, second = samples.shape
    if first > second and second <= MAX_CHANNELS:
        return samples
    if first <= MAX_CHANNELS < second:
        return samples.T
    raise ValueError(
        f"frames and channels cannot be told apart in shape {samples.shape}, since there may be up "
        f"to {MAX_CHANNELS} channels; give one channel, or the mean of all"
    )
