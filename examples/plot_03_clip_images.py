"""
From a folder of pictures to a classifier: CLIP and flowalign
=============================================================

A folder with one subfolder for each class, a CLIP model of the open_clip library, and the aligner:
three lines from files to ``fit``. The same three lines work with your own pictures.

This script needs no network, so its CLIP is a **small model with random weights**, and its pictures
are drawn here. It shows how the parts fit together, not what CLIP can do: the text encoder is
untrained, so only the drawings tell the patterns apart. It needs ``pip install
"flowalign[clip,plot]"`` and saves one figure, ``clip_images.png``, in the current directory.
"""

import json
import logging
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline

from flowalign import FlowMatchingAligner
from flowalign.datasets import few_shot, load_image_folder
from flowalign.encoders import OpenCLIPEncoder

logging.disable()  # open_clip warns, rightly, of random weights
work = tempfile.TemporaryDirectory()
root = Path(work.name)

# %%
# Pictures
# --------
# Four patterns of random colours, widths and positions, 40 drawings each, saved as PNG files.


def draw(pattern: str, rng: np.random.Generator) -> Image.Image:
    """Draw a pattern in two colours."""
    x, y = np.meshgrid(np.arange(96), np.arange(96))
    period, (left, top) = rng.uniform(12, 20), rng.uniform(0, 20, 2)
    across, down = np.sin(2 * np.pi * (x - left) / period), np.sin(2 * np.pi * (y - top) / period)
    ink = {
        "vertical_stripes": across > 0,
        "horizontal_stripes": down > 0,
        "checks": across * down > 0,
        "dots": across + down > 1,
    }[pattern]
    dark, light = rng.integers(0, 110, 3), rng.integers(150, 256, 3)
    return Image.fromarray(np.where(ink[..., None], dark, light).astype(np.uint8))


patterns = ["checks", "dots", "horizontal_stripes", "vertical_stripes"]
rng = np.random.default_rng(0)
for pattern in patterns:
    (root / "pictures" / pattern).mkdir(parents=True)
    for i in range(40):
        draw(pattern, rng).save(root / "pictures" / pattern / f"{i:02}.png")

# %%
# The model
# ---------
# With a network you would write ``OpenCLIPEncoder("ViT-B-32", "laion2b_s34b_b79k")`` for a trained
# CLIP. Here it is a folder with the configuration of a small model, whose weights are drawn from
# ``random_state``.

configuration = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": 3, "width": 128, "patch_size": 16},
        "text_cfg": {"vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
}
(root / "model").mkdir()
(root / "model" / "open_clip_config.json").write_text(json.dumps(configuration))
model_name = f"local-dir:{root / 'model'}"

# %%
# From files to ``fit``
# ---------------------
# The encoder is a scikit-learn transformer: paths in, features out. ``class_embeddings`` puts the
# class names into a set of prompts and averages.

data = load_image_folder(root / "pictures")
encoder = OpenCLIPEncoder(model_name, cache=root / "features")
text = encoder.class_embeddings(data.class_names)
X, X_test, y, y_test = train_test_split(data.X, data.y, stratify=data.y, random_state=0)
X_few, y_few = few_shot(X, y, n_shots=8, random_state=0)
pipeline = make_pipeline(encoder, FlowMatchingAligner(text)).fit(X_few, y_few)
print(f"{len(data.X)} pictures, {text}")
print(f"test accuracy, 8 drawings of each pattern: {pipeline.score(X_test, y_test):.3f}")

# %%
# Every file is encoded once
# --------------------------
# The features are in the cache now, known by the content of the files. A grid search, a second run
# of the script, another process: none of them encodes a picture again.

start = time.perf_counter()
search = GridSearchCV(
    pipeline,
    {"flowmatchingaligner__noise": [0.1, 0.3, 1.0], "openclipencoder__n_views": [1, 4]},
    cv=4,
).fit(X_few, y_few)
print(
    f"grid search over {len(search.cv_results_['params'])} settings in "
    f"{time.perf_counter() - start:.1f} s: {search.best_params_}"
)
for attempt in ("some of them new", "none of them new"):
    start = time.perf_counter()
    features = encoder.transform(data.X)
    milliseconds = 1000 * (time.perf_counter() - start)
    print(f"{len(features)} pictures, {attempt}: {milliseconds:.0f} ms")

# %%
# Figure
# ------
# Drawings of the test set with their predicted classes.

shown = np.random.default_rng(1).permutation(len(X_test))[:18]
predicted = search.predict(X_test[shown])
sure = search.predict_proba(X_test[shown]).max(axis=1)
figure, axes = plt.subplots(3, 6, figsize=(11, 6.4), layout="constrained")
for axis, i, label, p in zip(axes.flat, shown, predicted, sure, strict=True):
    axis.imshow(Image.open(X_test[i]))
    right = label == y_test[i]
    axis.set_title(
        f"{label.replace('_', ' ')}\n{p:.0%}", size=9, color="black" if right else "#D55E00"
    )
    axis.set_axis_off()
figure.suptitle("Predicted pattern and its probability; wrong ones in orange")
figure.savefig("clip_images.png", dpi=150)
print(f"figure saved: {Path('clip_images.png').resolve()}")
work.cleanup()
