"""
Quickstart: carry features to the names of their classes
========================================================

A frozen image encoder gives features, a frozen text encoder gives embeddings of the class names.
:class:`~flowalign.FlowMatchingAligner` learns, from a few labelled images, a flow that moves every
feature towards the embedding of its class. It has the interface of a scikit-learn classifier.

The script needs no download: the data come with the package. It prints a few accuracies and saves
one figure, ``quickstart.png``, in the current directory.
"""

from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.collections import LineCollection
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

from flowalign import FlowMatchingAligner
from flowalign.datasets import load_emoji

# %%
# Data
# ----
# The support set holds 16 drawings of each of 25 classes, the test set 600 drawings of other emoji.
# Image features are 1280 wide and of length 1. The class names were embedded by MiniLM, a text
# model, which gives vectors of width 384.

emoji = load_emoji()
X, y = emoji.X_train, emoji.y_train
X_test, y_test = emoji.X_test, emoji.y_test
print(f"support set: {X.shape}, test set: {X_test.shape}")
print(f"class names: {emoji.class_embeddings}")

# %%
# Fit
# ---
# The two encoders were trained apart, and their spaces have different widths. The aligner therefore
# maps the class embeddings into the feature space first, by orthogonal Procrustes: a rotation, a
# scale and a shift that bring them as close as they can to the class means of the support set.
# ``joint_`` says whether that was unnecessary.

# By default the network is as wide as the features, 1280. A width of 512 trains several times
# faster; it was chosen here for the time that it saves.
aligner = FlowMatchingAligner(hidden_dim=512, random_state=0)
aligner.fit(X, y, emoji.class_embeddings)
print(f"embeddings used as they are (joint_): {aligner.joint_}")
print(f"shape after mapping: {aligner.class_embeddings_.shape}")

# %%
# Baselines
# ---------
# Two classifiers that never hear of the class names, on the same features. Rows of length 1 need a
# weaker penalty than the default C=1, so C is chosen by cross-validation within the support set;
# drawings of one emoji stay in one fold.

folds = StratifiedGroupKFold(n_splits=3, shuffle=True, random_state=0)
logistic = GridSearchCV(LogisticRegression(max_iter=2000), {"C": [1, 10, 100]}, cv=folds)
logistic.fit(X, y, groups=emoji.emoji_train)

means = np.array([X[y == label].mean(axis=0) for label in aligner.classes_])
means /= np.linalg.norm(means, axis=1, keepdims=True)
nearest = aligner.classes_[(X_test @ means.T).argmax(axis=1)]

# %%
# Accuracy
# --------
# Step 0 is the feature itself, compared with the mapped class embeddings. Ten steps of 0.1 are the
# whole flow. ``predict`` stops after ``n_steps``, here the default of the class, fixed before this
# run. The accuracy at the other steps is for looking at: the step is not chosen on the test set.

steps = [np.mean(labels == y_test) for labels in aligner.staged_predict(X_test)]
accuracy = {
    "zero steps": steps[0],
    f"n_steps={aligner.n_steps_}": aligner.score(X_test, y_test),
    f"logistic regression, C={logistic.best_params_['C']}": logistic.score(X_test, y_test),
    "nearest class mean": np.mean(nearest == y_test),
}
print("test accuracy at each step: " + " ".join(f"{value:.3f}" for value in steps))
for name, value in accuracy.items():
    print(f"{name:>28}: {value:.3f}")

# %%
# Paths in the plane
# ------------------
# For a picture, five classes are named by hand for their variety. The plane is that of the first
# two principal components of their five mapped embeddings: support data and names choose it, the
# test drawings do not. Directions towards the other 20 classes are mostly lost in it, so a path
# that seems to stop in the middle may well have gone to one of those.

shown = ["animal bird", "clothing", "face smiling", "food fruit", "transport ground"]
targets = aligner.class_embeddings_[np.searchsorted(aligner.classes_, shown)]
plane = PCA(n_components=2).fit(targets)
stars = plane.transform(targets)
paths = {
    name: np.stack([plane.transform(s) for s in aligner.staged_transform(X_test[y_test == name])])
    for name in shown
}  # each of shape (steps + 1, drawings, 2)

# %%
# Figure
# ------
# Left, accuracy along the flow. Right, test drawings on their way: a line grows darker with time,
# from the feature to the end of the flow, and the dot is where ``predict`` stops.

OKABE_ITO = ["#0072B2", "#CC79A7", "#E69F00", "#009E73", "#D55E00"]
halo = [patheffects.withStroke(linewidth=3, foreground="white")]
fig, (left, right) = plt.subplots(
    1, 2, figsize=(12, 5.4), layout="constrained", width_ratios=[1, 1.15]
)

stop = aligner.n_steps_
left.plot(steps, color="#0072B2", marker="o", markersize=4, linewidth=2, label="along the flow")
left.plot(stop, steps[stop], "o", color="#D55E00", markersize=12, label=f"stop, n_steps={stop}")
for (name, value), style in zip(accuracy.items(), [":", None, "--", "-."], strict=True):
    if style:
        left.axhline(value, color="0.35", linestyle=style, linewidth=1.3, label=name, zorder=1)
left.set(
    xlabel="steps taken, 0.1 each",
    ylabel=f"accuracy on {len(y_test)} test drawings",
    xticks=range(len(steps)),
    title="Accuracy along the flow",
)
left.legend()

for name, color, star in zip(shown, OKABE_ITO, stars, strict=True):
    for path in paths[name].swapaxes(0, 1):
        alpha = np.linspace(0.1, 0.75, len(path) - 1)
        right.add_collection(
            LineCollection(list(pairwise(path)), colors=color, alpha=alpha, linewidths=1.0)
        )
    right.plot(*paths[name][stop].T, "o", color=color, markersize=3.5)
    right.plot(*star, "*", color=color, markersize=22, markeredgecolor="black", zorder=4)
    right.annotate(name, star, (0, 14), textcoords="offset points", path_effects=halo, zorder=5)
right.set(title="x", xlabel="first component", ylabel="second component")
right.set_aspect("equal", adjustable="datalim")

fig.savefig("quickstart.png", dpi=200)
print(f"figure: {Path('quickstart.png').resolve()}")
