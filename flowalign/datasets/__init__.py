"""Bundled real features, a synthetic generator and few-shot draws."""

from flowalign.datasets.emoji import load_emoji
from flowalign.datasets.sampling import few_shot
from flowalign.datasets.synthetic import make_cross_modal

__all__ = ["few_shot", "load_emoji", "make_cross_modal"]
