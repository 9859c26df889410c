"""
The same with sounds: CLAP and flowalign
========================================

The aligner does not depend on the modality. For sounds the encoder is a CLAP model of the
transformers library; nothing else changes.

This script needs no network, so its CLAP is a **small model with random weights**, and its sounds
are synthesised here. It shows how the parts fit together, not what CLAP can do. It needs ``pip
install "flowalign[audio,plot]"`` and saves one figure, ``audio.png``, in the current directory.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from tokenizers import ByteLevelBPETokenizer
from transformers import ClapConfig, ClapFeatureExtractor, PreTrainedTokenizerFast

from flowalign import FlowMatchingAligner
from flowalign.datasets import few_shot, load_audio_folder
from flowalign.encoders import ClapEncoder

work = tempfile.TemporaryDirectory()
root = Path(work.name)

# %%
# Sounds
# ------
# Four kinds of sounds, 40 of each, as WAV files. They last from one to fifteen seconds and were
# "recorded" at three sampling rates: the encoder converts rates, repeats what is too short and
# takes ten seconds from the middle of what is too long.


def synthesise(kind: str, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Make a sound of random pitch, speed and length, in some noise."""
    t = np.arange(rate * rng.uniform(1, 15)) / rate
    beat = (t * rng.uniform(0.8, 1.5)) % 1
    noise = rng.standard_normal(len(t))
    if kind == "engine":
        hum = 2 * np.pi * rng.uniform(60, 120) * t
        sound = sum(np.sin(k * hum) / k for k in range(1, 8)) * (1 + 0.3 * np.sin(hum / 4))
    elif kind == "bird_song":
        pitch = rng.uniform(2500, 4000) + 800 * np.sin(2 * np.pi * 6 * t)
        sound = np.sin(2 * np.pi * np.cumsum(pitch) / rate) * (beat < 0.5)
    elif kind == "struck_bell":
        pitch = 2 * np.pi * rng.uniform(500, 900) * t
        sound = np.exp(-4 * beat) * sum(np.sin(k * pitch) / k for k in (1, 2.4, 3.9))
    else:  # rain
        sound = noise * (0.6 + 0.4 * np.sin(2 * np.pi * t / 3))
    return 0.2 * sound + rng.uniform(0.02, 0.1) * noise


rng = np.random.default_rng(0)
for kind in ("bird_song", "engine", "rain", "struck_bell"):
    (root / "sounds" / kind).mkdir(parents=True)
    for i in range(40):
        rate = int(rng.choice([16_000, 22_050, 44_100]))
        soundfile.write(root / "sounds" / kind / f"{i:02}.wav", synthesise(kind, rate, rng), rate)

# %%
# The model
# ---------
# With a network, ``ClapEncoder()`` is enough: it takes ``"laion/clap-htsat-unfused"``. Here it is a
# folder with a small configuration and a tokenizer of a few words; the weights are drawn from
# ``random_state``.

model = root / "model"
ClapConfig(
    text_config={
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 80,
    },
    audio_config={
        "patch_embeds_hidden_size": 32,
        "hidden_size": 128,
        "depths": [1, 1, 1],
        "num_attention_heads": [2, 2, 4],
        "enable_fusion": False,
        "fusion_type": None,
    },
    projection_dim=128,
).save_pretrained(model)
ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(model)
words = ByteLevelBPETokenizer()
words.train_from_iterator(
    ["the sound of rain"], 300, special_tokens=["<s>", "<pad>", "</s>"], show_progress=False
)
PreTrainedTokenizerFast(
    tokenizer_object=words._tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>"
).save_pretrained(model)

# %%
# From files to ``fit``
# ---------------------
# Logistic regression, for comparison, is one more step behind the same encoder. Features come from
# the cache this time.

data = load_audio_folder(root / "sounds")
encoder = ClapEncoder(str(model), cache=root / "features")
text = encoder.class_embeddings(data.class_names)
X, X_test, y, y_test = train_test_split(data.X, data.y, stratify=data.y, random_state=0)
X_few, y_few = few_shot(X, y, n_shots=8, random_state=0)
aligner = make_pipeline(encoder, FlowMatchingAligner(text)).fit(X_few, y_few)
linear = make_pipeline(encoder, LogisticRegression(C=100, max_iter=2000)).fit(X_few, y_few)
print(f"{len(data.X)} sounds, {text}")
print(f"test accuracy, 8 sounds of each kind: {aligner.score(X_test, y_test):.3f}")
print(f"logistic regression:                  {linear.score(X_test, y_test):.3f}")

# %%
# Several windows of a long sound
# -------------------------------
# ``n_views=3`` takes the beginning, the middle and the end, and averages their features.

aligner.set_params(clapencoder__n_views=3).fit(X_few, y_few)
print(f"with three windows of each sound:     {aligner.score(X_test, y_test):.3f}")

# %%
# Figure
# ------
# Spectrograms of test sounds with their predicted classes.

shown = [np.flatnonzero(y_test == kind)[k] for k in (0, 1) for kind in text.classes]
predicted = aligner.predict(X_test[shown])
sure = aligner.predict_proba(X_test[shown]).max(axis=1)
figure, axes = plt.subplots(2, 4, figsize=(12, 5.6), layout="constrained", sharey=True)
for axis, i, label, p in zip(axes.flat, shown, predicted, sure, strict=True):
    samples, rate = soundfile.read(X_test[i])
    axis.specgram(samples[: 3 * rate], NFFT=1024, Fs=rate, noverlap=512, cmap="magma")
    color = "black" if label == y_test[i] else "#D55E00"
    axis.set_title(f"{label.replace('_', ' ')} {p:.0%}", color=color)
    axis.set(ylim=(0, 5000), xlabel="seconds")
for axis in axes[:, 0]:
    axis.set_ylabel("Hz")
figure.suptitle("Predicted kind of sound and its probability; wrong ones in orange")
figure.savefig("audio.png", dpi=150)
print(f"figure saved: {Path('audio.png').resolve()}")
work.cleanup()
