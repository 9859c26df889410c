"""
Features of your own, in .npy files
===================================

Whatever encoder you have, its features are an array with one row for each sample, and the text
encoder's are an array with one row for each class name. They need not have the same width, nor come
from one model. This script starts from four ``.npy`` files, fits, shows what was decided, and adds
a class without samples.

The files are written here from the bundled emoji features, so that there is something to load. It
saves one figure, ``own_features.png``, in the current directory.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import few_shot, load_emoji
from flowalign.plotting import StopDisplay

work = tempfile.TemporaryDirectory()
folder = Path(work.name)
emoji = load_emoji()
np.save(folder / "features.npy", emoji.X_train)
np.save(folder / "labels.npy", emoji.y_train)
np.save(folder / "class_names.npy", emoji.class_embeddings.labels)
np.save(folder / "text_embeddings.npy", emoji.class_embeddings.vectors)

# %%
# Load
# ----
# Features of an image encoder, 1280 wide; text embeddings of another model, 384 wide.
# ``ClassEmbeddings`` pairs each label with its row of the text, so that the order does not matter.

X, y = np.load(folder / "features.npy"), np.load(folder / "labels.npy")
names, vectors = np.load(folder / "class_names.npy"), np.load(folder / "text_embeddings.npy")
text = ClassEmbeddings(names, vectors)
print(f"features {X.shape}, text {vectors.shape}")

# %%
# Fit
# ---
# Widths differ, so the class embeddings are mapped into the space of the features. The stop is
# chosen, and the probabilities are calibrated, on the support set itself.

X_few, y_few = few_shot(X, y, n_shots=4, random_state=0)
aligner = FlowMatchingAligner().fit(X_few, y_few, text)
print(f"one space: {aligner.joint_}; stop: {aligner.stop_time_} (by {aligner.stop_source_})")
print(f"test accuracy, 4 samples a class: {aligner.score(emoji.X_test, emoji.y_test):.3f}")

# %%
# A class without samples
# -----------------------
# A class can be predicted from its name alone, though less often than it should be. Here all
# drawings of "animal bird" are removed from the support set.

bird = "animal bird"
without = FlowMatchingAligner().fit(X_few[y_few != bird], y_few[y_few != bird], text)
birds = emoji.y_test == bird
found = np.mean(without.predict(emoji.X_test[birds]) == bird)
top = np.argsort(without.predict_proba(emoji.X_test[birds]), axis=1)[:, -5:]
among = np.mean((without.classes_[top] == bird).any(axis=1))
print(f"birds found without a drawing of one: {found:.2f}; among the five likeliest: {among:.2f}")

# %%
# Figure
# ------
# Left: accuracy on test drawings with more and more samples, beside logistic regression on the same
# features, which knows no names. Right: why the flow stops where it does.

shots = [2, 4, 8, 16]
ours, linear = [], []
for n_shots in shots:
    rows, labels = few_shot(X, y, n_shots, random_state=0)
    model = FlowMatchingAligner().fit(rows, labels, text)
    ours.append(model.score(emoji.X_test, emoji.y_test))
    logistic = LogisticRegression(C=10, max_iter=2000).fit(rows, labels)
    linear.append(logistic.score(emoji.X_test, emoji.y_test))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
left.plot(shots, ours, "o-", color="#0072B2", label="flowalign, with class names")
left.plot(shots, linear, "s--", color="black", label="logistic regression, C=10")
left.set_xscale("log", base=2)
left.set_xticks(shots, [str(n) for n in shots])
left.set(xlabel="samples per class", ylabel="accuracy on 600 test drawings")
left.set_title("One draw of the support set")
left.legend(frameon=False)
StopDisplay.from_estimator(aligner, ax=right)
right.set_title("Scores on held-out support samples, 4 a class")
figure.savefig("own_features.png", dpi=150)
print(f"figure saved: {Path('own_features.png').resolve()}")
work.cleanup()
