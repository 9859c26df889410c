"""What an encoder costs beside the bare forward passes of its model, and what the cache saves.

Usage: ``python encoder_speed.py [--model ViT-B-32] [--pictures 128] [--repeats 5]``. Weights are
random, which changes no time; pictures are drawn here, 500 x 375, as JPEG files.
"""

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flowalign.encoders import OpenCLIPEncoder

BATCH_SIZE = 64


def draw(folder, n_pictures):
    """Write smooth random pictures, of the size of a photograph of the benchmark data sets."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.jpg" for i in range(n_pictures)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def seconds(function):
    """Time one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    """Print medians of seconds, and of ratios within a repeat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        paths = draw(Path(folder), options.pictures)
        encoder = OpenCLIPEncoder(options.model, batch_size=BATCH_SIZE)
        backbone = encoder._load()
        inputs = [backbone.prepare(path.read_bytes(), [0], 1)[0] for path in paths]
        pictures = [Image.open(path).convert("RGB") for path in paths]

        @torch.inference_mode()
        def bare():
            for start in range(0, len(inputs), BATCH_SIZE):
                batch = torch.stack(inputs[start : start + BATCH_SIZE]).to(backbone.device)
                backbone.model.encode_image(batch, normalize=True).cpu()

        def cold(cache):
            return encoder.set_params(cache=cache).transform(paths)

        bare()
        time.sleep(2)  # files at rest: the process may remember their content
        rows = []
        for repeat in range(options.repeats):
            cache = Path(folder, f"cache {repeat}")
            rows.append(
                {
                    "bare forward passes": seconds(bare),
                    "encoder, from files": seconds(lambda: cold(None)),
                    "encoder, from pictures in memory": seconds(
                        lambda: encoder.set_params(cache=None).transform(pictures)
                    ),
                    "encoder, from files, cache cold": seconds(lambda cache=cache: cold(cache)),
                    "encoder, from files, cache warm": seconds(lambda cache=cache: cold(cache)),
                }
            )
    for name in rows[0]:
        ratio = statistics.median(row[name] / row["bare forward passes"] for row in rows)
        middle = statistics.median(row[name] for row in rows)
        print(f"{name:>34}: {middle:8.4f} s, {ratio:7.4f} of bare")
    warm = "encoder, from files, cache warm"
    gain = statistics.median(row["encoder, from files, cache cold"] / row[warm] for row in rows)
    print(f"{'cold / warm':>34}: {gain:.0f}")


if __name__ == "__main__":
    main()
