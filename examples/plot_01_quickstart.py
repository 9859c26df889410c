"""
Quickstart: carry features to the names of their classes
========================================================

A frozen image encoder gives features, a frozen text encoder gives embeddings of the class names.
:class:`~flowalign.FlowMatchingAligner` learns, from a few labelled images, a flow that moves every
feature towards the embedding of its class. It has the interface of a scikit-learn classifier.

Nothing is downloaded: the data come with the package. The script prints a few accuracies and saves
one figure, ``quickstart.png``, in the current directory.
"""

import time
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke
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
# model, in 384 dimensions.

emoji = load_emoji()
X, y, X_test, y_test = emoji.X_train, emoji.y_train, emoji.X_test, emoji.y_test
print(f"support set {X.shape}, test set {X_test.shape}, {emoji.class_embeddings}")

# %%
# Fit
# ---
# The two encoders were trained apart, and their spaces have different widths. So the aligner first
# maps the class embeddings into the feature space by orthogonal Procrustes: a shift, a rotation and
# a scale that bring them as close as possible to the class means of the support set. ``joint_``
# would be true if the embeddings had been used as they are.
#
# The velocity field is a closed form: nothing is trained, and nothing is random.

aligner = FlowMatchingAligner()
start = time.perf_counter()
aligner.fit(X, y, emoji.class_embeddings)
fit_seconds = time.perf_counter() - start
print(f"joint_: {aligner.joint_}, mapped class embeddings {aligner.class_embeddings_.shape}")

# %%
# Two baselines
# -------------
# Both use the same features, but not the class names. For rows of length 1 the default ``C=1`` of
# logistic regression is a strong penalty, so ``C`` is chosen by cross-validation on the support
# set. Drawings of one emoji stay in one fold.

folds = StratifiedGroupKFold(n_splits=3, shuffle=True, random_state=0)
logistic = GridSearchCV(LogisticRegression(max_iter=2000), {"C": [1, 10, 100]}, cv=folds)
start = time.perf_counter()
logistic.fit(X, y, groups=emoji.emoji_train)
logistic_seconds = time.perf_counter() - start

means = np.array([X[y == label].mean(axis=0) for label in aligner.classes_])
means /= np.linalg.norm(means, axis=1, keepdims=True)
nearest = aligner.classes_[(X_test @ means.T).argmax(axis=1)]

# %%
# Accuracy
# --------
# After zero steps the features are where they were, and are compared with the mapped embeddings.
# From the first step on, labels use the model of the classes too, so the curve is soon flat. Ten
# steps of 0.1 are the whole flow. ``predict`` ends at the stop, which ``fit`` chose on support
# drawings, each carried by a field that was fitted without it: ``stop_scores_`` has their accuracy
# at each step. The other steps are shown on the test set for comparison only.

stages = np.array(list(aligner.staged_predict(X_test)))
curve = (stages == y_test).mean(axis=1)
stop = round(10 * aligner.stop_time_)  # of the stages, which are 0.1 apart
flow, linear = aligner.score(X_test, y_test), logistic.score(X_test, y_test)
# As if drawings were independent. Some show the same emoji, so the true error is rather larger.
error = np.sqrt(curve * (1 - curve) / len(y_test))

print("test accuracy by step:", " ".join(f"{k}: {value:.3f}" for k, value in enumerate(curve)))
print(f"zero steps           {curve[0]:.3f}")
print(f"flow, to time {aligner.stop_time_:<6.1f} {flow:.3f}  (fitted in {fit_seconds:.1f} s)")
print(
    f"logistic regression  {linear:.3f}  (C={logistic.best_params_['C']}, chosen and fitted in "
    f"{logistic_seconds:.1f} s)"
)
print(f"nearest class mean   {np.mean(nearest == y_test):.3f}")
print(f"standard error       {error[stop]:.3f}")

# %%
# Figure
# ------
# Left: accuracy along the flow. Right: the paths of twelve test drawings for each of five classes,
# in the colour of their true class. Lines darken with time; a dot marks where ``predict`` stops,
# filled if the prediction is right.
#
# The five were picked because their mapped embeddings lie well apart. The plane is that of the
# first two principal components of these embeddings; test drawings have no part in it. All other
# directions are hidden, and with them much of what tells the other 20 classes apart. A path that
# ends between the stars ends at the embedding of one of those classes, or at a mixture if the field
# is unsure.

shown = ["drink", "face concerned", "food sweet", "food vegetable", "tool"]
colors = ["#0072B2", "#CC79A7", "#E69F00", "#009E73", "#D55E00"]  # Okabe and Ito
targets = aligner.class_embeddings_[np.searchsorted(aligner.classes_, shown)]
plane = PCA(n_components=2).fit(targets)

fig, (left, right) = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
steps = np.arange(len(curve))
left.fill_between(steps, curve - error, curve + error, color="#56B4E9", alpha=0.25, linewidth=0)
left.plot(steps, curve, "o-", color="#0072B2", linewidth=2, label="flow ± standard error")
left.plot(stop, flow, "o", color="#D55E00", markersize=13, label="stop of predict")
left.axhline(linear, color="black", linestyle="--", label="logistic regression")
left.axhline(curve[0], color="0.4", linestyle=":", linewidth=2, label="zero steps")
left.set(title="Accuracy along the flow", xlabel="steps of 0.1", xticks=steps)
left.set_ylabel(f"accuracy on {len(y_test)} test drawings")
left.margins(y=0.35)  # room for the legend
left.legend(loc="lower right", ncols=2, frameon=False)

halo = [withStroke(linewidth=3, foreground="white")]
for label, color, star in zip(shown, colors, plane.transform(targets), strict=True):
    rows = np.flatnonzero(y_test == label)[:12]
    paths = np.array([plane.transform(states) for states in aligner.staged_transform(X_test[rows])])
    for row, path in zip(rows, paths.swapaxes(0, 1), strict=True):
        fade = np.linspace(0.1, 0.9, len(path) - 1)
        right.add_collection(LineCollection([*pairwise(path)], colors=color, alpha=fade, lw=1.1))
        arrow = {"arrowstyle": "-|>", "color": color, "lw": 0, "shrinkA": 0, "shrinkB": 0}
        right.annotate("", path[-1], path[-2], arrowprops=arrow)
        fill = color if stages[stop, row] == label else "white"
        right.plot(*path[stop], "o", color=color, markerfacecolor=fill, markersize=5)
    right.plot(*star, "*", color=color, markersize=24, markeredgecolor="black", zorder=4)
    away = {"xytext": (0, 21 if star[1] > 0 else -21), "textcoords": "offset points", "zorder": 5}
    right.annotate(label, star, ha="center", va="center", size=12, path_effects=halo, **away)
right.plot([], [], "k*", markerfacecolor="white", markersize=14, label="class embedding")
right.plot([], [], "ko", ms=5, label=f"after {stop} steps, class right")
right.plot([], [], "ko", ms=5, markerfacecolor="white", label=f"after {stop} steps, class wrong")
right.set(title="Paths of test drawings; arrows mark the end of the flow")
right.set(xlabel="first principal component", ylabel="second principal component")
right.set_aspect("equal", adjustable="datalim")
right.legend(loc="upper right", frameon=False)

fig.savefig("quickstart.png", dpi=200)
print(f"figure saved: {Path('quickstart.png').resolve()}")
