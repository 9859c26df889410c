"""The eleven data sets on which few-shot learning with CLIP is compared, as CoOp laid them out.

One table has the place of each, one reader reads them. Files are not downloaded.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from sklearn.utils import Bunch

from flowalign.datasets.folders import IMAGE_ENDINGS, files_in, visible_folders
from flowalign.inputs import shorten, shown
from flowalign.parameters import one_of
from flowalign.prompts import BENCHMARK_TEMPLATES, words

Key: TypeAlias = "int | str"  # what tells a class from others, whatever it is called
Rows: TypeAlias = "list[tuple[str, Key, str]]"  # path of the file, key and name of its class
Parts: TypeAlias = "dict[str, Rows]"


@dataclass(frozen=True)
class _Layout:
    """Where a data set lies below the root, and how its files are listed."""

    folder: str
    images: str
    listing: str
    read: Callable[[Path, Path], Parts]  # of the images and of the listing
    fixes: Mapping[str, str] = field(default_factory=dict)  # names that make poor prompts


def load_split(root: str | os.PathLike[str], name: str) -> Bunch:
    """List the training, validation and test files of a benchmark data set.

    The splits are those of CoOp [1]_, which nearly all later work uses. For ImageNet, whose test
    labels are not public, the 50,000 validation images are validation and test set, as in CoOp.

    Parameters
    ----------
    root : str or path
        The folder that holds the folders of the data sets, laid out as CoOp's instructions [2]_
        say: pictures as their publishers pack them, beside them ``split_zhou_*.json``.
    name : str
        One of "ImageNet", "Caltech101", "OxfordPets", "StanfordCars", "Flowers102", "Food101",
        "FGVCAircraft", "SUN397", "DTD", "EuroSAT", "UCF101".

    Returns
    -------
    sklearn.utils.Bunch
        ``X_train``, ``X_val``, ``X_test``: paths as strings; ``y_train``, ``y_val``, ``y_test``:
        class names; ``class_names``: a dict of class name to the words that stand for it in a
        prompt; ``template``: the prompt that CoOp uses with this data set.

    Raises
    ------
    ValueError
        If there is no data set of this name, or its split file has another form than expected.
    FileNotFoundError
        If a file or folder is missing; the message says what belongs where.

    Notes
    -----
    Draw few-shot training sets with ``few_shot(split.X_train, split.y_train, n_shots, seed)``.

    References
    ----------
    .. [1] K. Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022.
       https://arxiv.org/abs/2109.01134
    .. [2] https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md

    Examples
    --------
    >>> from flowalign.datasets import few_shot, load_split
    >>> split = load_split("data", "EuroSAT")  # doctest: +SKIP
    >>> text = encoder.class_embeddings(split.class_names, split.template)  # doctest: +SKIP
    >>> paths, y = few_shot(split.X_train, split.y_train, 16, random_state=1)  # doctest: +SKIP
    """
    one_of("name", name, tuple(_LAYOUTS))
    layout = _LAYOUTS[name]
    folder = Path(root).expanduser() / layout.folder
    for needed in (folder / layout.images, folder / layout.listing):
        _must_exist(needed)
    parts = layout.read(folder / layout.images, folder / layout.listing)
    empty = [part for part, rows in parts.items() if not rows]
    if empty:
        which = " and ".join(empty)
        raise ValueError(f"{name} in {shown(folder)} has no pictures in its {which} part.")
    listing = shown(folder / layout.listing)
    pairs = {(key, label) for rows in parts.values() for _, key, label in rows}
    names: dict[Any, str] = dict(sorted(pairs))
    if len(names) < len(pairs):
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        raise ValueError(f"{listing} has two names for classes {shorten(twice)}.")
    # Two classes of one name stay two: ImageNet has some.
    shared = {label for label, count in Counter(names.values()).items() if count > 1}
    labels = {k: f"{label} ({k})" if label in shared else label for k, label in names.items()}
    if len({*labels.values()}) < len(labels):
        raise ValueError(f"{listing} has classes that cannot be told apart by name.")
    bunch = Bunch(
        class_names={labels[k]: layout.fixes.get(old, words(old)) for k, old in names.items()},
        template=BENCHMARK_TEMPLATES[name],
    )
    for part, rows in parts.items():
        bunch[f"X_{part}"] = np.array([path for path, _, _ in rows], dtype=object)
        bunch[f"y_{part}"] = np.array([labels[key] for _, key, _ in rows])
    return bunch


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(
            f"{shown(path)} is missing. Data sets are expected as in CoOp's DATASETS.md, which "
            "also says where to get them; root is the folder above the folders of the data sets."
        )


def _present(parts: Parts) -> Parts:
    """Check that all files of a listing are there."""
    paths = {path for rows in parts.values() for path, _, _ in rows}
    missing = sorted(path for path in paths if not os.path.exists(path))
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} listed pictures are missing: {shorten(missing, 2)}. "
            "Unpack all of the data set there."
        )
    return parts


def _read_json(images: Path, listing: Path) -> Parts:
    """Read ``split_zhou_*.json``: for each part, triples of path below the images, class, name."""
    try:
        content = json.loads(listing.read_text(encoding="utf-8-sig"))
        parts: Parts = {
            part: [(str(images / path), int(key), str(name)) for path, key, name in content[part]]
            for part in ("train", "val", "test")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{shown(listing)} must be JSON with lists train, val and test of [path, number of the "
            f"class, class name], which it is not ({error!r})."
        ) from error
    return _present(parts)


def _read_aircraft(images: Path, listing: Path) -> Parts:
    """Read FGVC-Aircraft: a list of variants, and for each part lines of picture and variant."""
    numbers = {name: i for i, name in enumerate(_lines(listing))}
    parts: Parts = {}
    for part in ("train", "val", "test"):
        lines = [
            line.partition(" ") for line in _lines(listing.with_name(f"images_variant_{part}.txt"))
        ]
        unknown = sorted({name for _, _, name in lines} - set(numbers))
        if unknown:
            raise ValueError(
                f"{shown(listing)} lacks variants of the {part} list: {shorten(unknown)}."
            )
        parts[part] = [(str(images / f"{key}.jpg"), numbers[name], name) for key, _, name in lines]
    return _present(parts)


def _read_imagenet(images: Path, listing: Path) -> Parts:
    """Read ImageNet: a folder for each WordNet synset, and lines of synset and name."""
    names = {key: name for key, _, name in (line.partition(" ") for line in _lines(listing))}
    parts: Parts = {}
    for part, place in (("train", "train"), ("test", "val")):
        _must_exist(images / place)
        synsets = visible_folders(images / place)
        unknown = sorted(set(synsets) - set(names))
        if unknown:
            raise ValueError(
                f"{shown(listing)} has no names for {shorten(unknown)} in {shown(images / place)}."
            )
        parts[part] = [
            (path, synset, names[synset])
            for synset in synsets
            for path in files_in(images / place / synset, IMAGE_ENDINGS)
        ]
    return {"train": parts["train"], "val": parts["test"], "test": parts["test"]}


def _lines(file: Path) -> list[str]:
    _must_exist(file)
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


_LAYOUTS = {
    "ImageNet": _Layout("imagenet", "images", "classnames.txt", _read_imagenet),
    "Caltech101": _Layout(
        "caltech-101",
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
        _read_json,
        {
            "airplanes": "airplane",
            "Faces": "face",
            "Leopards": "leopard",
            "Motorbikes": "motorbike",
        },
    ),
    "OxfordPets": _Layout("oxford_pets", "images", "split_zhou_OxfordPets.json", _read_json),
    "StanfordCars": _Layout("stanford_cars", "", "split_zhou_StanfordCars.json", _read_json),
    "Flowers102": _Layout("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", _read_json),
    "Food101": _Layout("food-101", "images", "split_zhou_Food101.json", _read_json),
    "FGVCAircraft": _Layout("fgvc_aircraft", "images", "variants.txt", _read_aircraft),
    "SUN397": _Layout("sun397", "SUN397", "split_zhou_SUN397.json", _read_json),
    "DTD": _Layout("dtd", "images", "split_zhou_DescribableTextures.json", _read_json),
    "EuroSAT": _Layout(
        "eurosat",
        "2750",
        "split_zhou_EuroSAT.json",
        _read_json,
        {
            "AnnualCrop": "Annual Crop Land",
            "HerbaceousVegetation": "Herbaceous Vegetation Land",
            "Highway": "Highway or Road",
            "Industrial": "Industrial Buildings",
            "Pasture": "Pasture Land",
            "PermanentCrop": "Permanent Crop Land",
            "Residential": "Residential Buildings",
            "SeaLake": "Sea or Lake",
        },
    ),
    "UCF101": _Layout("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", _read_json),
}
