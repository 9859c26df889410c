"""
Hear one thing, see another: audio-visual features
==================================================

Class embeddings need not be text, and features need not be of one modality. Here the classes are
the digits. They are seen as handwriting (the pictures that come with scikit-learn) and heard as the
tones of a telephone keypad, in noise, on a poor line. Three ways to use that:

1. class embeddings from sound, features from pictures: each handwritten digit is carried to the
   tone of its key;
2. the other way round;
3. both fused: the features of picture and sound side by side, as one longer row.

Nothing is downloaded. The script saves one figure, ``audio_visual.png``, in the current directory.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import few_shot
from flowalign.encoders import CallableEncoder

RATE = 4000  # Hz
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477)  # Hz, of a keypad's rows and columns

# %%
# Sounds
# ------
# A key sounds the tone of its row and that of its column for a tenth of a second. The line adds
# noise that is louder than they are, and each telephone is a little out of tune.


def press(digit: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return the sound of a key, (400,)."""
    row, column = (3, 1) if digit == 0 else divmod(digit - 1, 3)
    t = np.arange(RATE // 10) / RATE
    tune = rng.normal(1, 0.01 * (noise > 0))
    phases = rng.uniform(0, 2 * np.pi, 2)
    tones = [
        np.sin(2 * np.pi * tune * f * t + p)
        for f, p in zip((ROWS[row], COLUMNS[column]), phases, strict=True)
    ]
    return sum(tones) + noise * rng.standard_normal(len(t))


def spectra(sounds: list[np.ndarray]) -> np.ndarray:
    """Encode sounds by the part of their spectrum that keys use, 600 to 1600 Hz, (n, 101)."""
    return np.abs(np.fft.rfft(sounds))[:, 60:161]


def pixels(pictures: list[np.ndarray]) -> np.ndarray:
    """Encode pictures by their 64 pixels."""
    return np.stack(pictures).reshape(len(pictures), -1)


# %%
# Encode
# ------
# Any function becomes an encoder: a transformer for pipelines, with batches and, on request, a
# cache.

digits = load_digits()
rng = np.random.default_rng(0)
sounds = [press(digit, 2.0, rng) for digit in digits.target]
seen = CallableEncoder(pixels).transform(digits.images)
heard = CallableEncoder(spectra).transform(sounds)
clean = CallableEncoder(spectra).transform([press(digit, 0.0, rng) for digit in range(10)])
print(f"pictures {seen.shape}, sounds {heard.shape}, clean tones {clean.shape}")

# %%
# Three ways
# ----------
# For the fusion, each modality is first scaled to length 1, so that neither drowns the other.
# Class embeddings are fused in the same way: the mean picture of a digit beside its clean tone.
# Other spaces, other widths: the aligner maps class embeddings by itself.


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


train, test = train_test_split(np.arange(len(digits.target)), test_size=1000, random_state=0)
both = np.concatenate([unit(seen), unit(heard)], axis=1)
tones = ClassEmbeddings(range(10), clean)


def accuracy(features: np.ndarray, n_shots: int, seed: int, embeddings: str) -> float:
    """Fit on a draw of the training rows, score on the test rows."""
    rows, labels = few_shot(train, digits.target[train], n_shots, random_state=seed)
    means = np.stack([seen[rows[labels == digit]].mean(axis=0) for digit in range(10)])
    table = {
        "sound": tones,
        "picture": ClassEmbeddings(range(10), means),
        "both": ClassEmbeddings(range(10), np.concatenate([unit(means), unit(clean)], axis=1)),
    }[embeddings]
    model = FlowMatchingAligner().fit(features[rows], labels, table)
    return model.score(features[test], digits.target[test])


ways = {
    "see, carried to sounds": (seen, "sound"),
    "hear, carried to pictures": (heard, "picture"),
    "see and hear": (both, "both"),
}
shots, seeds = [1, 2, 4, 8, 16], range(5)
results = {
    way: np.array([[accuracy(X, n, seed, names) for n in shots] for seed in seeds])
    for way, (X, names) in ways.items()
}
print("test accuracy, mean of 5 draws, by samples per class:", *shots)
for way, scores in results.items():
    print(f"{way:>26}: " + " ".join(f"{score:.3f}" for score in scores.mean(axis=0)))

# %%
# Figure
# ------
# Seeing and hearing together are better than either, at every number of samples.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=[1, 1.4]
)
left.set_axis_off()
left.set_title("What is seen, and heard with it")
for k, i in enumerate(test[:4]):
    picture = left.inset_axes((0, 0.76 - 0.25 * k, 0.22, 0.22))
    picture.imshow(digits.images[i], cmap="gray_r")
    picture.set_axis_off()
    sound = left.inset_axes((0.3, 0.78 - 0.25 * k, 0.7, 0.18))
    sound.plot(np.fft.rfftfreq(RATE // 10, 1 / RATE), np.abs(np.fft.rfft(sounds[i])), "0.3", lw=0.8)
    row, column = (3, 1) if digits.target[i] == 0 else divmod(digits.target[i] - 1, 3)
    for tone in (ROWS[row], COLUMNS[column]):
        sound.axvline(tone, color="#D55E00", alpha=0.5, lw=3)
    sound.set_yticks([])
    if k < 3:
        sound.set_xticks([])
    else:
        sound.set_xlabel("Hz; the key's own tones in orange")
figure.get_layout_engine().set(wspace=0.06)
styles = {"color": ["#0072B2", "#E69F00", "#009E73"], "marker": ["o", "s", "^"]}
for k, (way, scores) in enumerate(results.items()):
    style = {name: values[k] for name, values in styles.items()}
    right.errorbar(shots, scores.mean(axis=0), scores.std(axis=0), capsize=3, label=way, **style)
right.set_xscale("log", base=2)
right.set_xticks(shots, [str(n) for n in shots])
right.set(xlabel="samples per class", ylabel="accuracy on 1000 test samples")
right.set_title("Mean and standard deviation over five draws")
right.legend(loc="lower right", frameon=False)
figure.savefig("audio_visual.png", dpi=150)
print(f"figure saved: {Path('audio_visual.png').resolve()}")
