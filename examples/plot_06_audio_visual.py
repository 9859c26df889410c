"""
Hear one thing, see another: two views of the same samples
==========================================================

Each sample here is a digit that was seen and heard: as handwriting (the pictures that come with
scikit-learn), and as the tones of a telephone keypad, in noise, on a poor line. A table has two
columns of paths, and some of the files are missing. Class embeddings need not be text: here they
are the clean tones of the ten keys, to which pictures are carried as well as sounds.

The way from the table to answers has two steps. scikit-learn's ``ColumnTransformer`` encodes each
column, with a row of NaN for a file that is missing. ``MultiViewAligner`` has an aligner for each
encoder and multiplies their probabilities; if a row lacks a view, the other view answers alone.

Nothing is downloaded. The script saves one figure, ``audio_visual.png``, in the current directory.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.io import wavfile
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from flowalign import ClassEmbeddings, FlowMatchingAligner, MultiViewAligner
from flowalign.datasets import few_shot
from flowalign.encoders import CallableEncoder

RATE = 4000  # Hz
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477)  # Hz, of a keypad's rows and columns
N_SAMPLES, N_TEST = 1000, 600

work = tempfile.TemporaryDirectory()
root = Path(work.name)
rng = np.random.default_rng(0)

# %%
# Files
# -----
# A key sounds the tone of its row and that of its column for a tenth of a second. The line adds
# noise that is louder than they are, and each telephone is a little out of tune. A third of the
# sounds were never recorded, and a tenth of the pictures, of other samples, are lost.


def position(key: str) -> tuple[int, int]:
    """Return the row and the column of a key."""
    return (3, 1) if key == "0" else divmod(int(key) - 1, 3)


def press(key: str, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return the sound of a key, (400,)."""
    row, column = position(key)
    t = np.arange(RATE // 10) / RATE
    tune = rng.normal(1, 0.01 * (noise > 0))
    phases = rng.uniform(0, 2 * np.pi, 2)
    tones = [
        np.sin(2 * np.pi * tune * f * t + p)
        for f, p in zip((ROWS[row], COLUMNS[column]), phases, strict=True)
    ]
    return sum(tones) + noise * rng.standard_normal(len(t))


digits = load_digits()
y = digits.target[:N_SAMPLES].astype(str)  # the keys, by name
table = pd.DataFrame(
    {
        "picture": [str(root / f"{i:04}.png") for i in range(N_SAMPLES)],
        "sound": [str(root / f"{i:04}.wav") for i in range(N_SAMPLES)],
    }
)
for (picture, sound), pixels, key in zip(table.to_numpy(), digits.images, y, strict=False):
    plt.imsave(picture, pixels, cmap="gray", vmin=0, vmax=16)
    wavfile.write(sound, RATE, press(key, 2.0, rng).astype(np.float32))
chance = rng.random(N_SAMPLES)
table.loc[chance < 1 / 3, "sound"] = None
table.loc[chance > 0.9, "picture"] = None
print(table.head().map(lambda path: Path(path).name, na_action="ignore"))
print("missing:", table.isna().sum().to_dict(), "of", N_SAMPLES)

# %%
# Encode
# ------
# Any function of a list of paths becomes an encoder. With ``missing="nan"`` the function gets only
# the files that exist; ``n_features`` is the width of the rows of NaN for the others.


def see(paths: list[str]) -> np.ndarray:
    """Encode pictures by their 64 pixels."""
    return np.stack([plt.imread(path)[..., 0].ravel() for path in paths])


def spectra(sounds: list[np.ndarray]) -> np.ndarray:
    """Encode sounds by the part of their spectrum that keys use, 600 to 1600 Hz, (n, 101)."""
    return np.abs(np.fft.rfft(sounds))[:, 60:161]


def hear(paths: list[str]) -> np.ndarray:
    """Encode files of sounds."""
    return spectra([wavfile.read(path)[1] for path in paths])


encoders = ColumnTransformer(
    [
        ("picture", CallableEncoder(see, missing="nan", n_features=64), "picture"),
        ("sound", CallableEncoder(hear, missing="nan", n_features=101), "sound"),
    ]
)
X = encoders.fit_transform(table)
columns = {name: encoders.output_indices_[name] for name in ("picture", "sound")}
there = {name: ~np.isnan(X[:, where]).all(axis=1) for name, where in columns.items()}
print(f"features {X.shape}, of pictures {columns['picture']}, of sounds {columns['sound']}")

# %%
# Two views
# ---------
# Each view is a name, an aligner and its columns. For comparison: each view alone, scored on the
# rows that have it, and a single aligner of both side by side, in which missing values are means.

tones = ClassEmbeddings(np.unique(y), spectra([press(key, 0.0, rng) for key in np.unique(y)]))
views = [(name, FlowMatchingAligner(tones), where) for name, where in columns.items()]
train, test = train_test_split(np.arange(N_SAMPLES), test_size=N_TEST, random_state=0)
unit = X.copy()  # parts of length 1, so that neither drowns the other
for where in columns.values():
    unit[:, where] /= np.linalg.norm(X[:, where], axis=1, keepdims=True)


def alone(name: str, rows: np.ndarray) -> float:
    """Score an aligner of one view."""
    rows, known = rows[there[name][rows]], test[there[name][test]]
    part = X[:, columns[name]]
    return FlowMatchingAligner(tones).fit(part[rows], y[rows]).score(part[known], y[known])


def side_by_side(rows: np.ndarray) -> float:
    """Score an aligner of one longer row."""
    model = make_pipeline(SimpleImputer(keep_empty_features=True), FlowMatchingAligner(tones))
    return model.fit(unit[rows], y[rows]).score(unit[test], y[test])


shots, seeds = [1, 2, 4, 8, 16], range(5)
ways = ["picture alone", "sound alone", "side by side", "two views"]
results, weights = np.empty((4, 5, 5)), np.empty((5, 5, 2))
for seed in seeds:
    for k, n_shots in enumerate(shots):
        rows, labels = few_shot(train, y[train], n_shots, random_state=seed)
        both = MultiViewAligner(views).fit(X[rows], labels)
        of_ways = alone("picture", rows), alone("sound", rows), side_by_side(rows)
        results[:, seed, k] = *of_ways, both.score(X[test], y[test])
        weights[seed, k] = both.view_weights_
print("test accuracy, mean of 5 draws, by samples per class:", *shots)
for way, scores in zip(ways, results.mean(axis=1), strict=True):
    print(f"{way:>14}: " + " ".join(f"{score:.3f}" for score in scores))
for name, mean in zip(both.named_views_, weights.mean(axis=0).T, strict=True):
    print(f"weight of {name:>7}: " + " ".join(f"{weight:.2f}" for weight in mean))

# %%
# From files to answers
# ---------------------
# Encoders and views are one pipeline, from the table to labels. It answers a picture without a
# sound, and a sound without a picture.

model = make_pipeline(encoders, MultiViewAligner(views)).fit(table.iloc[rows], labels)
complete = table.iloc[test].dropna()
for name in columns:
    lacking = complete.assign(**{name: None})
    print(f"without a {name}: {model.score(lacking, y[complete.index]):.3f}", end=", ")
print(f"with both: {model.score(complete, y[complete.index]):.3f}")

# %%
# Figure
# ------
# Together the views answer for every row, and more often rightly than either view alone.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=[1, 1.4]
)
left.set_axis_off()
left.set_title("What is seen, and heard with it")
for k, i in enumerate(complete.index[:4]):
    picture = left.inset_axes((0, 0.76 - 0.25 * k, 0.22, 0.22))
    picture.imshow(digits.images[i], cmap="gray_r")
    picture.set_axis_off()
    sound = left.inset_axes((0.3, 0.78 - 0.25 * k, 0.7, 0.18))
    heard = wavfile.read(complete.sound[i])[1]
    sound.plot(np.fft.rfftfreq(RATE // 10, 1 / RATE), np.abs(np.fft.rfft(heard)), "0.3", lw=0.8)
    row, column = position(y[i])
    for tone in (ROWS[row], COLUMNS[column]):
        sound.axvline(tone, color="#D55E00", alpha=0.5, lw=3)
    sound.set_yticks([])
    if k < 3:
        sound.set_xticks([])
    else:
        sound.set_xlabel("Hz; the key's own tones in orange")
figure.get_layout_engine().set(wspace=0.06)
styles = {"color": ["#0072B2", "#E69F00", "#CC79A7", "#009E73"], "marker": ["o", "s", "d", "^"]}
for k, (way, scores) in enumerate(zip(ways, results, strict=True)):
    style = {name: values[k] for name, values in styles.items()}
    right.errorbar(shots, scores.mean(axis=0), scores.std(axis=0), capsize=3, label=way, **style)
right.set_xscale("log", base=2)
right.set_xticks(shots, [str(n) for n in shots])
right.set(xlabel="samples per class", ylabel=f"accuracy on {N_TEST} test samples")
right.set_title("Mean and standard deviation over five draws")
right.legend(loc="lower right", frameon=False)
figure.savefig("audio_visual.png", dpi=150)
print(f"figure saved: {Path('audio_visual.png').resolve()}")
work.cleanup()
