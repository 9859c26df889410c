"""A stand-in for open_clip that sees colours and reads their names: no weights, no library."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from flowalign.encoders import clip
from flowalign.encoders.clip import _CLIP

COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
MODEL, WEIGHTS = "Tiny-1", "openai"


class Colors:
    """Features of a picture are its mean colour and how much that varies; of a text, a colour."""

    def encode_image(self, pixels):
        flat = pixels.flatten(2)
        return torch.cat([flat.mean(2) - 0.5, flat.std(2) - 0.2], dim=1)

    def encode_text(self, tokens):
        texts = ["".join(map(chr, row)) for row in tokens.tolist()]
        rows = [np.sum([v for k, v in COLORS.items() if k in text], axis=0) for text in texts]
        return torch.tensor([[*np.broadcast_to(row, 3), -0.5, -0.5, -0.5] for row in rows]) - 0.3


def tokenize(texts):
    return torch.tensor([[ord(c) for c in text.ljust(99)[:99]] for text in texts])


def preprocess(picture):
    small = np.asarray(picture.resize((8, 8)), dtype=np.float32) / 255
    return torch.from_numpy(small).permute(2, 0, 1)


def put_in_place(monkeypatch):
    """Have OpenCLIPEncoder work without open_clip; weights are what a file says, or their name."""

    def load(model_name, pretrained, device, seed, stamps):
        file = Path(pretrained or model_name.removeprefix("local-dir:") + "/weights.bin")
        weights = file.read_text() if file.is_file() else f"{pretrained}, {seed}"
        identity = {"architecture": "colours", "preprocessing": "8 x 8", "weights": weights}
        name = f"stub {model_name}"
        return _CLIP(name, Colors(), tokenize, device, identity, preprocess=preprocess)

    monkeypatch.setattr(clip, "_load", load)
    library = SimpleNamespace(
        list_models=lambda: [MODEL],
        list_pretrained_tags_by_model=lambda model: [WEIGHTS] if model == MODEL else [],
    )
    monkeypatch.setitem(sys.modules, "open_clip", library)


def write_colors(folder, names=tuple(COLORS), n=4, *, seed=0, flat=False):
    """Pictures of a colour each with noise, in folders of the names, or beside each other."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for name in names:
        color = 60 + 150 * np.array(COLORS[name.split("_")[-1]])
        place = folder if flat else folder / name
        place.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            noisy = color + rng.normal(0, 25, 3) + rng.normal(0, 20, (16, 24, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place / f"{name}{i}.png")
    return folder
