"""The drawings behind the emoji dataset: fetched, chosen, rendered and split.

``rebuild_emoji`` turns them into features; ``flowalign/datasets/data/emoji.md`` has the rules.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
