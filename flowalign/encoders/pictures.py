"""Pictures as encoders need them: upright, RGB, and on request cropped and flipped at random."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_DECODING = threading.Lock()

# Bounds of a random crop: its share of the area, and the ratio of its sides.
CROP_AREA = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)

# A picture more times longer than wide than this loses its ends. The model sees the square in its
# middle; resizing blends in a little around that square.
LONGEST = 16

# Values of 16-bit data below this fit into 12 bits, which cameras and scanners give.
TWELVE_BITS = 1 << 12


def read_picture(opened: Any) -> Image:
    """Decode a picture to RGB.

    Parameters
    ----------
    opened : bytes, PIL image or ndarray of uint8
        The content of a file, or a picture. Arrays have shape (height, width) for grey, or (height,
        width, channels) with 3 channels (RGB) or 4 (with transparency).

    Returns
    -------
    PIL.Image.Image
        The picture in RGB, turned upright as its EXIF data say, with transparent parts on white and
        16-bit grey scaled to 8 bits.

    Raises
    ------
    ValueError
        If `opened` has no picture, a damaged one, or one of more pixels than Pillow admits.
    TypeError
        If `opened` is of another type.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    picture: Image.Image
    if not isinstance(opened, bytes | Image.Image) and type(opened) is not np.ndarray:
        kind = type(opened).__name__
        raise TypeError(f"Pictures must be paths, PIL images or uint8 arrays, got {kind}")
    if isinstance(opened, np.ndarray) and opened.dtype != np.uint8:
        raise TypeError(f"Pictures given as arrays must be uint8, got {opened.dtype}")
    if isinstance(opened, np.ndarray) and not _is_shape_of_picture(opened.shape):
        raise ValueError(
            "no picture: arrays must be of shape (height, width), or (height, width, channels) for "
            f"3 or 4 channels, got {opened.shape}"
        )
    try:
        with _too_large_said():
            if isinstance(opened, bytes):
                picture = Image.open(io.BytesIO(opened))
            elif isinstance(opened, np.ndarray):
                picture = Image.fromarray(opened)
            else:
                picture = opened
                with _DECODING:  # two threads may have the same picture, if X lists it twice
                    picture.load()
            return _rgb(ImageOps.exif_transpose(picture))
    except (MemoryError, _TooLarge):
        raise
    except UnidentifiedImageError as error:  # its text has an address in memory
        raise ValueError("no picture, or a damaged one (of no format that Pillow knows)") from error
    except Exception as error:  # decoders raise errors of many types
        raise ValueError(f"no picture, or a damaged one ({error})") from error


def _is_shape_of_picture(shape: tuple[int, ...]) -> bool:
    return 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4)))


class _TooLarge(ValueError):
    """More pixels than Pillow admits."""


@contextmanager
def _too_large_said() -> Iterator[None]:
    """Explain errors of Pillow's guard against decompression bombs, and say what to do."""
    from PIL import Image

    try:
        yield
    # The warning is raised if a user's filter turns warnings into errors.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _TooLarge(
            f"it is too large for Pillow ({error}); make it smaller or, if you trust it, raise "
            "PIL.Image.MAX_IMAGE_PIXELS"
        ) from error


def doubt(opened: Any) -> str | None:
    """Return why `read_picture` may make this picture nearly black, or None."""
    from PIL import Image

    if not isinstance(opened, bytes | Image.Image):
        return None
    picture = Image.open(io.BytesIO(opened)) if isinstance(opened, bytes) else opened
    grey = picture.mode.startswith("I;16")
    if not grey and ";16" not in repr(getattr(picture, "tile", "")):  # colours are read as 8 bits
        return None
    largest = int(np.asarray(picture).max(initial=0))
    largest = largest if grey else largest << 8
    if not 0 < largest < TWELVE_BITS:
        return None
    return (
        f"its 16-bit values end at {largest} of 65535, which is nearly black; if they are data of "
        "fewer bits, scale them to 16 bits, or give the picture as a uint8 array"
    )


def _rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I;16"):  # convert would clip the values instead of scaling them
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode} have no known range; convert it to 8 bits")
    if picture.has_transparency_data:
        # The colour of a transparent pixel is arbitrary, most often black.
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def random_crop(picture: Image, rng: np.random.Generator) -> Image:
    """Cut out a random part, and mirror it in half of the cases.

    Few-shot methods for CLIP augment their training pictures in this way, after the crops of
    Inception [1]_.

    References
    ----------
    .. [1] C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
       https://arxiv.org/abs/1409.4842
    """
    from PIL import ImageOps

    area = picture.width * picture.height * rng.uniform(*CROP_AREA)
    ratio = math.exp(rng.uniform(*np.log(CROP_RATIO)))
    width = min(picture.width, max(1, round(math.sqrt(area * ratio))))
    height = min(picture.height, max(1, round(math.sqrt(area / ratio))))
    left = int(rng.integers(picture.width - width + 1))
    top = int(rng.integers(picture.height - height + 1))
    crop = _cut(picture, (left, top, left + width, top + height))
    return ImageOps.mirror(crop) if rng.random() < 0.5 else crop


def without_ends(picture: Image) -> Image:
    """Cut off the ends of a very long picture, for a model that sees the middle alone.

    Resizing brings the shorter side to the size that the model takes, which would make the longer
    side huge: a picture of 20000 x 1 pixels would grow to 4 GB.
    """
    short, long = sorted(picture.size)
    ends = (long - LONGEST * short) // 2  # both ends are equal, so the middle stays the middle
    if ends <= 0:
        return picture
    left, top = (ends, 0) if picture.width == long else (0, ends)
    return _cut(picture, (left, top, picture.width - left, picture.height - top))


def _cut(picture: Image, box: tuple[int, int, int, int]) -> Image:
    with _too_large_said():
        return picture.crop(box)
