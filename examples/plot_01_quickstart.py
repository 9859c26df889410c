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
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
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

aligner = FlowMatchingAligner(random_state=0)
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
# For a picture, four classes are named by hand for their variety. The plane is the one in which
# their support features lie farthest apart (linear discriminant analysis); the test drawings have
# no say in it. Directions towards the other 21 classes are mostly lost, so a path that seems to
# stop in the middle may well have gone to one of those.

shown = ["clothing", "face smiling", "food fruit", "transport ground"]
support = np.isin(y, shown)
plane = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.5, n_components=2)
plane.fit(X[support], y[support])
stars = plane.transform(aligner.class_embeddings_[np.searchsorted(aligner.classes_, shown)])
paths = {
    name: np.stack([plane.transform(s) for s in aligner.staged_transform(X_test[y_test == name])])
    for name in shown
}  # each of shape (steps + 1, drawings, 2)

# %%
# Figure
# ------
# Left, accuracy along the flow with a band of one standard error, which says how much 600 drawings
# can tell. Right, test drawings on their way: a line grows darker with time, from the feature to
# the end of the flow, the dot is where ``predict`` stops, and the star is the class's embedding.

OKABE_ITO = ["#CC79A7", "#E69F00", "#009E73", "#D55E00"]
halo = [patheffects.withStroke(linewidth=3, foreground="white")]
fig, (left, right) = plt.subplots(
    1, 2, figsize=(12, 5.4), layout="constrained", width_ratios=[1, 1.15]
)

stop, grid, curve = aligner.n_steps_, np.arange(len(steps)), np.array(steps)
error = np.sqrt(curve * (1 - curve) / len(y_test))
left.fill_between(grid, curve - error, curve + error, color="#0072B2", alpha=0.15, linewidth=0)
left.plot(curve, color="#0072B2", marker="o", markersize=4, linewidth=2, label="along the flow")
left.plot(stop, curve[stop], "o", color="#D55E00", markersize=12, label=f"stop, n_steps={stop}")
baselines = list(accuracy.items())[2:]
for (name, value), style in zip(baselines, ["--", "-."], strict=True):
    left.axhline(value, color="0.35", linestyle=style, linewidth=1.3, label=name, zorder=1)
left.set(
    xlabel="steps taken, 0.1 each",
    ylabel=f"accuracy on {len(y_test)} test drawings",
    xticks=grid,
    title="Accuracy along the flow",
)
left.legend(loc="lower center")

for name, color, star in zip(shown, OKABE_ITO, stars, strict=True):
    for path in paths[name].swapaxes(0, 1):
        alpha = np.linspace(0.1, 0.75, len(path) - 1)
        right.add_collection(
            LineCollection(list(pairwise(path)), colors=color, alpha=alpha, linewidths=1.0)
        )
    right.plot(*paths[name][stop].T, "o", color=color, markersize=3.5)
    right.plot(*star, "*", color=color, markersize=22, markeredgecolor="black", zorder=4)
    right.annotate(
        name, star, (0, 14), textcoords="offset points", ha="center", path_effects=halo, zorder=5
    )
right.set(
    title="Test drawings of four classes on their way",
    xlabel="first discriminant",
    ylabel="second discriminant",
)
right.margins(0.08)

fig.savefig("quickstart.png", dpi=200)
print(f"figure: {Path('quickstart.png').resolve()}")
