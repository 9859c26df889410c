"""Prompt templates: sentences in which the name of a class takes the place of ``{}``.

Embedding a name inside sentences, rather than alone, and averaging over several sentences is the
prompt ensemble of CLIP [1]_. The templates of the benchmark data sets are those of CoOp [2]_, one
for each set; the general ones are ours.

References
----------
.. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
   ICML 2021. https://arxiv.org/abs/2103.00020
.. [2] K. Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022.
   https://arxiv.org/abs/2109.01134

Examples
--------
>>> from flowalign.prompts import IMAGE_TEMPLATES, fill
>>> fill(IMAGE_TEMPLATES[0], "tabby cat")
'a photo of a tabby cat.'
"""

from __future__ import annotations

from collections.abc import Iterable

IMAGE_TEMPLATES = (
    "a photo of a {}.",
    "a picture showing the {}.",
    "a close view of a {}.",
    "a {} seen from a distance.",
    "a blurry or dark photo of a {}.",
    "a drawing of a {}.",
    "one {} among other things.",
)
"""For pictures of any kind."""

AUDIO_TEMPLATES = (
    "the sound of {}.",
    "this is a sound of {}.",
    "a recording in which {} can be heard.",
    "{} in the background.",
)
"""For sounds of any kind."""

BENCHMARK_TEMPLATES = {
    "ImageNet": "a photo of a {}.",
    "Caltech101": "a photo of a {}.",
    "OxfordPets": "a photo of a {}, a type of pet.",
    "StanfordCars": "a photo of a {}.",
    "Flowers102": "a photo of a {}, a type of flower.",
    "Food101": "a photo of {}, a type of food.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "SUN397": "a photo of a {}.",
    "DTD": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "UCF101": "a photo of a person doing {}.",
}
"""The template that CoOp uses with each of its data sets."""


def words(name: str) -> str:
    """Turn the name of a class or folder into words: ``"tabby_cat"`` into ``"tabby cat"``."""
    return " ".join(name.replace("_", " ").split())


def fill(template: str, text: str) -> str:
    """Put `text` in the place of ``{}``; other braces stay."""
    return template.replace("{}", text)


def check_templates(templates: str | Iterable[str]) -> tuple[str, ...]:
    """Return templates as a tuple, each with a place for the name."""
    found = (templates,) if isinstance(templates, str) else tuple(templates)
    wrong = [t for t in found if not isinstance(t, str) or "{}" not in t]
    if wrong or not found:
        raise ValueError(
            "templates must be one or more strings with {} in the place of the class name, such "
            f"as 'a photo of a {{}}.'; got {wrong[0] if wrong else found!r}."
        )
    return found
