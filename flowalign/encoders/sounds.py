"""Sounds as encoders want them: one channel, one sampling rate, a window of fixed position."""

from __future__ import annotations

import io
from math import ceil, gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.signal import resample_poly

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_window(
    opened: Any, *, rate: int, array_rate: int, seconds: float, number: int, count: int
) -> NDArray[np.float32]:
    """Read one of several windows, evenly spaced over a sound; a single one lies in the middle.

    Parameters
    ----------
    opened : bytes or ndarray of shape (frames,) or (frames, channels)
        The content of a sound file, or samples.
    rate : int
        Sampling rate of the result, in Hz.
    array_rate : int
        Sampling rate of samples given as an array, in Hz.
    seconds : float
        Length of a window. What is shorter is returned whole.
    number, count : int
        Which window, of how many.

    Returns
    -------
    ndarray of shape (samples,)
        The mean of the channels.

    Raises
    ------
    ValueError
        If there is no sound in it, or a damaged one, or none but NaN.
    TypeError
        If it is something else.
    """
    if isinstance(opened, bytes):
        samples, source_rate = _read_file(opened, seconds, number, count)
    else:
        samples, source_rate = _samples(opened), array_rate
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


def _read_file(
    content: bytes, seconds: float, number: int, count: int
) -> tuple[NDArray[np.float32], int]:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            size = ceil(seconds * file.samplerate)
            start, stop = window(file.frames, size, number, count)
            file.seek(start)
            samples = file.read(stop - start, "float32", always_2d=True)
            if len(samples) < 0.99 * (stop - start):
                raise ValueError("it ends early")
            return samples, file.samplerate
    except Exception as error:  # libsndfile's own, and whatever seeking in a damaged file gives
        raise ValueError(f"no sound, or a damaged one ({error})") from error


def _samples(values: Any) -> NDArray[Any]:
    try:
        samples = np.asarray(values)
    except ValueError:
        samples = np.empty(0, dtype=object)
    if samples.dtype.kind in "iu" and samples.ndim in (1, 2):
        raise TypeError(
            f"Sounds given as arrays must be floats between -1 and 1, got {samples.dtype}"
        )
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2):
        raise TypeError(
            "Sounds must be paths or arrays of floats of shape (frames,) or (frames, channels), "
            f"got {type(values).__name__} of shape {samples.shape}"
        )
    if samples.ndim == 2 and samples.shape[1] > max(2, samples.shape[0]):
        raise ValueError(
            f"an array of {samples.shape[0]} frames of {samples.shape[1]} channels; transpose it "
            "if channels come first"
        )
    return samples[:, None] if samples.ndim == 1 else samples
