"""Every benchmark data set is read from a small tree of its true layout."""

import json
from itertools import product

import numpy as np
import pytest

from flowalign.datasets import few_shot, load_split
from flowalign.prompts import BENCHMARK_TEMPLATES

# name, folder, folder of the pictures, split file, path of picture i of class c, class names as
# they stand in the split file, the same as words
JSON_SETS = {
    "Caltech101": (
        "caltech-101/101_ObjectCategories",
        "caltech-101/split_zhou_Caltech101.json",
        "{c}/image_{i:04}.jpg",
        {"face": "face", "car_side": "car side"},
    ),
    "OxfordPets": (
        "oxford_pets/images",
        "oxford_pets/split_zhou_OxfordPets.json",
        "{c}_{i}.jpg",
        {"abyssinian": "abyssinian", "american_bulldog": "american bulldog"},
    ),
    "StanfordCars": (
        "stanford_cars",
        "stanford_cars/split_zhou_StanfordCars.json",
        "cars_{part}/{c}{i:05}.jpg",
        {"2012 Acura RL Sedan": "2012 Acura RL Sedan", "2007 Audi": "2007 Audi"},
    ),
    "Flowers102": (
        "oxford_flowers/jpg",
        "oxford_flowers/split_zhou_OxfordFlowers.json",
        "image_{c}{i:05}.jpg",
        {"pink primrose": "pink primrose", "rose": "rose"},
    ),
    "Food101": (
        "food-101/images",
        "food-101/split_zhou_Food101.json",
        "{c}/{i}.jpg",
        {"apple_pie": "apple pie", "sushi": "sushi"},
    ),
    "SUN397": (
        "sun397/SUN397",
        "sun397/split_zhou_SUN397.json",
        "a/{c}/sun_{i}.jpg",
        {"abbey": "abbey", "outdoor_church": "outdoor church"},
    ),
    "DTD": (
        "dtd/images",
        "dtd/split_zhou_DescribableTextures.json",
        "{c}/{c}_{i:04}.jpg",
        {"banded": "banded", "polka-dotted": "polka-dotted"},
    ),
    "EuroSAT": (
        "eurosat/2750",
        "eurosat/split_zhou_EuroSAT.json",
        "{c}/{c}_{i}.jpg",
        {"AnnualCrop": "Annual Crop Land", "River": "River"},
    ),
    "UCF101": (
        "ucf101/UCF-101-midframes",
        "ucf101/split_zhou_UCF101.json",
        "{c}/v_{c}_{i}.jpg",
        {"Apply_Eye_Makeup": "Apply Eye Makeup", "Archery": "Archery"},
    ),
}
PARTS = {"train": range(4), "val": range(4, 6), "test": range(6, 9)}


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def _write_json(root, name):
    images, listing, pattern, names = JSON_SETS[name]
    split = {
        part: [
            [pattern.format(c=label, i=i, part=part), number, label]
            for i, (number, label) in product(numbers, enumerate(names))
        ]
        for part, numbers in PARTS.items()
    }
    for rows in split.values():
        for path, _, _ in rows:
            _touch(root / images / path)
    (root / listing).write_text(json.dumps(split))
    return root / images, root / listing, names, split


@pytest.mark.parametrize("name", JSON_SETS)
def test_sets_with_a_split_file(name, tmp_path):
    images, listing, names, split = _write_json(tmp_path, name)
    data = load_split(tmp_path, name)
    assert data.class_names == names
    assert list(data.class_names) == list(names)  # in the order of their numbers
    assert data.template == BENCHMARK_TEMPLATES[name]
    for part, rows in split.items():
        assert data[f"X_{part}"].tolist() == [str(images / path) for path, _, _ in rows]
        assert data[f"y_{part}"].tolist() == [label for _, _, label in rows]
    X, y = few_shot(data.X_train, data.y_train, 2, random_state=1)
    again, _ = few_shot(data.X_train, data.y_train, 2, random_state=1)
    assert X.tolist() == again.tolist()
    assert all(
        label == dict(zip(data.X_train, data.y_train, strict=True))[x]
        for x, label in zip(X, y, strict=True)
    )

    listing.rename(listing.with_suffix(".old"))
    with pytest.raises(FileNotFoundError, match=rf"{listing.name} is missing.*DATASETS\.md"):
        load_split(tmp_path, name)


def test_aircraft(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    variants = {"707-320": "0034309", "F-16A/B": "1025794", "Eurofighter Typhoon": "0062765"}
    for key in variants.values():
        _touch(folder / "images" / f"{key}.jpg")
    variants_txt = "\ufeff707-320\nEurofighter Typhoon\nF-16A/B\n"  # with a byte order mark
    (folder / "variants.txt").write_text(variants_txt, encoding="utf-8")
    lines = [f"{key} {name}" for name, key in variants.items()]
    for part, rows in {"train": lines, "val": lines[:1], "test": lines[1:]}.items():
        (folder / f"images_variant_{part}.txt").write_text("\n".join(rows) + "\n")
    data = load_split(tmp_path, "FGVCAircraft")
    assert list(data.class_names) == ["707-320", "Eurofighter Typhoon", "F-16A/B"]
    assert data.X_val.tolist() == [str(folder / "images" / "0034309.jpg")]
    assert data.y_test.tolist() == ["F-16A/B", "Eurofighter Typhoon"]

    (folder / "images_variant_val.txt").unlink()
    with pytest.raises(FileNotFoundError, match="images_variant_val"):
        load_split(tmp_path, "FGVCAircraft")
    (folder / "variants.txt").write_text("707-320\n")
    with pytest.raises(ValueError, match=r"lacks variants.*Eurofighter"):
        load_split(tmp_path, "FGVCAircraft")


@pytest.fixture
def imagenet(tmp_path):
    folder = tmp_path / "imagenet"
    for part, synset, i in product(("train", "val"), ("n03710637", "n01440764", "n03710721"), "12"):
        _touch(folder / "images" / part / synset / f"{part}_{i}.JPEG")
    (folder / "classnames.txt").write_text(
        "n01440764 tench\nn03710637 maillot\nn03710721 maillot\nn09999999 not here\n"
    )
    return tmp_path


def test_imagenet(imagenet):
    data = load_split(imagenet, "ImageNet")
    names = ["tench", "maillot (n03710637)", "maillot (n03710721)"]
    assert data.class_names == dict(zip(names, ["tench", "maillot", "maillot"], strict=True))
    for part, place in {"train": "train", "val": "val", "test": "val"}.items():
        assert data[f"y_{part}"].tolist() == np.repeat(names, 2).tolist()
        first = imagenet / "imagenet" / "images" / place / "n01440764" / f"{place}_1.JPEG"
        assert data[f"X_{part}"][0] == str(first)


def test_imagenet_with_pictures_of_validation_in_no_folders(imagenet):
    val = imagenet / "imagenet" / "images" / "val"
    val.rename(val.with_name("sorted"))
    _touch(val / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match="no pictures in its val and test part"):
        load_split(imagenet, "ImageNet")


def test_imagenet_that_is_incomplete(imagenet):
    (imagenet / "imagenet" / "images" / "val").rename(imagenet / "elsewhere")
    with pytest.raises(FileNotFoundError, match="val is missing"):
        load_split(imagenet, "ImageNet")
    (imagenet / "imagenet" / "classnames.txt").write_text("n01440764 tench\n")
    with pytest.raises(ValueError, match=r"no names for 'n03710637'"):
        load_split(imagenet, "ImageNet")


def test_what_is_missing_or_malformed_is_named(tmp_path):
    with pytest.raises(ValueError, match="name must be one of ImageNet, Caltech101"):
        load_split(tmp_path, "CIFAR10")
    with pytest.raises(FileNotFoundError, match="eurosat"):
        load_split(tmp_path, "EuroSAT")
    images, listing, _, split = _write_json(tmp_path, "EuroSAT")
    (images / split["test"][0][0]).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 18 listed pictures are missing: .*_6.jpg"):
        load_split(tmp_path, "EuroSAT")
    for content in ("{", "[]", '{"train": []}', '{"train": [["a", "b"]], "val": [], "test": []}'):
        listing.write_text(content)
        with pytest.raises(ValueError, match="must be JSON with lists train, val and test"):
            load_split(tmp_path, "EuroSAT")
    split["train"][0][2] = "another name"
    listing.write_text(json.dumps(split))
    _touch(images / split["test"][0][0])
    with pytest.raises(ValueError, match="two names for classes 0"):
        load_split(tmp_path, "EuroSAT")


def test_a_root_in_the_home_folder_and_a_byte_order_mark(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    _, listing, _, split = _write_json(tmp_path / "data", "DTD")
    listing.write_text("\ufeff" + json.dumps(split), encoding="utf-8")
    found = load_split("~/data", "DTD")
    assert found.X_train.tolist() == load_split(tmp_path / "data", "DTD").X_train.tolist()


def test_classes_that_cannot_be_told_apart_are_refused(tmp_path):
    _, listing, _, split = _write_json(tmp_path, "DTD")
    names = ["tile", "tile", "tile (0)"]  # the first would be called as the third
    for rows in split.values():
        rows[:] = [[rows[0][0], number, name] for number, name in enumerate(names)]
    listing.write_text(json.dumps(split))
    with pytest.raises(ValueError, match=r"Textures\.json has classes that cannot be told apart"):
        load_split(tmp_path, "DTD")


def test_a_path_in_a_message_shows_what_a_reader_would_not_see(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^'.*a\\r.dtd.images' is missing"):
        load_split(tmp_path / "a\r", "DTD")
    _, listing, _, _ = _write_json(tmp_path / "b\n", "DTD")
    listing.write_text("{")
    with pytest.raises(ValueError, match=r"^'.*b\\n.dtd.*json' must be JSON"):
        load_split(tmp_path / "b\n", "DTD")
