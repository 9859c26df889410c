"""Files as parts of a page: thumbnails and players, in data URIs."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path

import numpy as np

THUMBNAIL = 288  # pixels; twice what a page shows, for fine screens
QUALITY = 80
PLAYED = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg"}
SMALL = 100_000  # bytes; a smaller sound is put into the page unchanged
SECONDS, RATE = 10, 16_000  # of the excerpt from the middle of a larger sound


def thumbnail(path: str) -> str:
    """Return a small JPEG of a picture, turned upright as for the encoder."""
    from flowalign.encoders.pictures import read_picture, without_ends

    picture = without_ends(read_picture(Path(path).read_bytes()))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY)
    return _data("image/jpeg", content.getvalue())


def excerpt(path: str) -> str:
    """Return a small sound unchanged, or ten seconds from the middle of a larger one."""
    from flowalign.encoders.sounds import read_window

    content, ending = Path(path).read_bytes(), Path(path).suffix.lower()
    if ending in PLAYED and len(content) <= SMALL:
        return _data(PLAYED[ending], content)
    samples = read_window(content, rate=RATE, array_rate=RATE, seconds=SECONDS, number=0, count=1)
    whole = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(whole.tobytes())
    return _data("audio/wav", written.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
