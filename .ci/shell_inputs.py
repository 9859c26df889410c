"""What the shell lines of the documentation take: drawn pictures, tones, features, small models."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from encoder_models import tone, write_clap, write_clip
from PIL import Image, ImageDraw

NAMES = ["cat", "dog", "emu"]
SHAPES = ["ellipse", "rectangle", "line"]  # a cat is drawn as an ellipse, and so on


def prepare(folder: Path, root: Path) -> None:
    """Fill a folder, in which lines from any page are run, with their inputs."""
    rng = np.random.default_rng(0)
    for place, n_each in {"pictures": 4, "test": 2}.items():
        for k, name in enumerate(NAMES):
            _draw(folder / place / name, n_each, k, rng)
    for place in ("new", "pool"):
        for k in range(len(NAMES)):
            _draw(folder / place, 2, k, rng)
    for k, name in enumerate(NAMES):
        _play(folder / "sounds" / name, 3, k, rng)
        _play(folder / "new_sounds", 1, k, rng)
    files = sorted((folder / "pictures").glob("*/*.png"))
    table = {"path": [file.relative_to(folder / "pictures").as_posix() for file in files]}
    table["label"] = [file.parent.name for file in files]
    pd.DataFrame(table).to_csv(folder / "labels.csv", index=False)
    np.save(folder / "labels.npy", np.repeat(NAMES, 4))
    for name, n in {"features": 12, "text_embeddings": len(NAMES), "new_features": 5}.items():
        np.save(folder / f"{name}.npy", rng.normal(size=(n, 512)).astype(np.float32))
    write_clip(folder / "untrained_clip")
    write_clap(folder / "untrained_clap")
    os.symlink(root / "examples", folder / "examples")


def _draw(place: Path, n: int, kind: int, rng: np.random.Generator) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        picture = Image.new("RGB", (96, 96), tuple(rng.integers(0, 80, 3).tolist()))
        x, y = rng.integers(5, 45, 2).tolist()
        getattr(ImageDraw.Draw(picture), SHAPES[kind])([x, y, x + 40, y + 40], fill="white")
        picture.save(place / f"{SHAPES[kind]}-{i}.png")


def _play(place: Path, n: int, kind: int, rng: np.random.Generator) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        wave = tone(220 * (kind + 1)) + rng.normal(0, 0.01, 48_000)
        soundfile.write(place / f"{220 * (kind + 1)}-hertz-{i}.wav", wave, 48_000)
