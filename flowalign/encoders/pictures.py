"""Pictures as encoders want them: upright, RGB, and, on request, cropped and flipped at random."""

from __future__ import annotations

import io
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_DECODING = threading.Lock()

# Shares of the area and ratios of the sides that a random crop may have.
CROP_AREA = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


def read_picture(opened: Any) -> Image:
    """Decode a picture to RGB.

    Parameters
    ----------
    opened : bytes, PIL image or ndarray of uint8
        The content of a file, or a picture; arrays of shape (height, width), for grey, or (height,
        width, channels), for 3 (RGB) or 4 channels (with transparency).

    Returns
    -------
    PIL.Image.Image
        Turned upright as its EXIF data say, transparent parts on white, 16-bit grey scaled to 8.

    Raises
    ------
    ValueError
        If there is no picture in it, or a damaged one.
    TypeError
        If it is something else.
    """
    from PIL import Image, ImageOps

    picture: Image.Image
    if not isinstance(opened, bytes | Image.Image) and type(opened) is not np.ndarray:
        kind = type(opened).__name__
        raise TypeError(f"Pictures must be paths, PIL images or uint8 arrays, got {kind}")
    if isinstance(opened, np.ndarray) and opened.dtype != np.uint8:
        raise TypeError(f"Pictures given as arrays must be uint8, got {opened.dtype}")
    try:
        if isinstance(opened, bytes):
            picture = Image.open(io.BytesIO(opened))
        elif isinstance(opened, np.ndarray):
            picture = Image.fromarray(opened)
        else:
            picture = opened
            with _DECODING:  # the same picture may be in the list, and in two threads, twice
                picture.load()
        return _rgb(ImageOps.exif_transpose(picture))
    except Exception as error:  # decoders raise whatever they stumble over
        raise ValueError(f"no picture, or a damaged one ({error})") from error


def _rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I;16"):  # convert would clip it instead of scaling
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode} have no known range; convert it to 8 bits")
    if picture.has_transparency_data:
        # What a transparent pixel hides is arbitrary, most often black.
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def random_crop(picture: Image, rng: np.random.Generator) -> Image:
    """Cut out a random part, and mirror it in half of the cases.

    The way in which few-shot methods for CLIP augment their training pictures, in the manner of
    Inception's crops [1]_.

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
    crop = picture.crop((left, top, left + width, top + height))
    return ImageOps.mirror(crop) if rng.random() < 0.5 else crop
