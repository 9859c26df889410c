"""Bundled real features, a synthetic generator, few-shot draws, and listings of files to encode."""

from flowalign.datasets.emoji import load_emoji
from flowalign.datasets.folders import load_audio_folder, load_image_folder
from flowalign.datasets.sampling import few_shot
from flowalign.datasets.splits import load_split
from flowalign.datasets.synthetic import make_cross_modal

__all__ = [
    "few_shot",
    "load_audio_folder",
    "load_emoji",
    "load_image_folder",
    "load_split",
    "make_cross_modal",
]
