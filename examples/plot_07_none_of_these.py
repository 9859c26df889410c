"""
None of these
=============

A classifier that knows no animals still answers with one of its classes when it is shown one. Here
the four subgroups of animals are removed from the emoji set, the rest is learned, and all test
drawings are scored by how much they look like a known class. The script prints how well animals are
told apart and what is refused, then leaves out each subgroup in turn. It saves one figure,
``none_of_these.png``, in the current directory, and takes about ten seconds.
"""

import unicodedata
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from flowalign import FlowMatchingAligner
from flowalign.datasets import load_emoji
from flowalign.plotting import NoveltyDisplay

emoji = load_emoji()
animals = [name for name in emoji.class_names if name.startswith("animal")]

# %%
# Leave classes out
# -----------------
# Neither drawings nor names of the left-out classes reach the fit. The score does not depend on the
# steps of the flow. Setting ``n_steps`` and ``logit_scale`` to numbers makes the fit faster, since
# no flow is held out to choose them.


def fit_without(left_out):
    """Fit to all other classes; return the aligner, and which test drawings it may know."""
    mine = ~np.isin(emoji.y_train, left_out)
    X, y = emoji.X_train[mine], emoji.y_train[mine]
    aligner = FlowMatchingAligner(unknown_label="none of these", n_steps=5, logit_scale=1)
    aligner.fit(X, y, emoji.class_embeddings.subset(y))
    return aligner, ~np.isin(emoji.y_test, left_out)


aligner, known = fit_without(animals)
scores, predicted = aligner.score_samples(emoji.X_test), aligner.predict(emoji.X_test)
refused = predicted == "none of these"
print(f"{len(aligner.classes_)} classes known; threshold {aligner.unknown_threshold_:.2f}")
print(f"AUROC, known classes against animals: {roc_auc_score(known, scores):.3f}")
for rate in (0.05, 0.1, 0.2):
    aligner.set_params(unknown_rate=rate)
    below = scores < aligner.unknown_threshold_
    print(f"rate {rate:<4}: {below[known].mean():.1%} of known classes refused,", end=" ")
    print(f"{below[~known].mean():.1%} of the animals")
aligner.set_params(unknown_rate=0.05)

# %%
# What is refused
# ---------------
# The lowest scores. The features come with the package and the drawings do not, so here are the
# names of the emoji, as far as this version of Python knows them. The drawings of known classes
# among them are mistakes; ``unknown_rate`` says how many to expect.

print(f"{refused.sum()} of {len(refused)} drawings refused, the lowest scores first:")
for i in np.argsort(scores)[:16]:
    code = emoji.emoji_test[i]
    name = unicodedata.name(chr(int(code, 16)), f"U+{code}").lower()
    print(f"{scores[i]:6.2f}  {name:<24} {emoji.designer_test[i]:<8} {emoji.y_test[i]}")

# %%
# What is taken
# -------------
# These are the classes to which animals go that are not refused.

taken, counts = np.unique(predicted[~known & ~refused], return_counts=True)
for k in np.argsort(-counts, kind="stable")[:6]:
    print(f"{counts[k]:3} animals taken for {taken[k]}")

# %%
# One kind at a time, one subgroup at a time
# ------------------------------------------
# Animals are the easiest of three kinds that have several subgroups. A class whose siblings are
# known is harder still than a whole kind. Without "face smiling", smiling faces look like "face
# concerned" more than most drawings look like their own class: the AUROC is far below one half. No
# score can tell from samples of other classes where a class is meant to end.


def auroc_without(left_out):
    """Tell known classes from those left out, at all thresholds."""
    other, may_know = fit_without(left_out)
    return roc_auc_score(may_know, other.score_samples(emoji.X_test))


for kind in ("animal", "food", "face"):
    kin = [name for name in emoji.class_names if name.startswith(kind)]
    print(f"AUROC, all {len(kin)} subgroups of {kind!r} left out: {auroc_without(kin):.3f}")
alone = {name: auroc_without([name]) for name in emoji.class_names}
print(f"AUROC, one subgroup left out: mean {np.mean(list(alone.values())):.3f}")

# %%
# Figure
# ------
# Left: the scores. The support samples, each scored by the model without it, give the threshold.
# Scores of drawings of known classes have nearly the same distribution, those of animals lie
# further left. Right: the AUROC of each subgroup if only this one is left out.

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
NoveltyDisplay.from_estimator(aligner, emoji.X_test, emoji.y_test, ax=left)
left.set_title("Animals left out of the classes")
order = sorted(alone, key=alone.__getitem__)
colors = ["#E69F00" if name in animals else "#0072B2" for name in order]
right.barh(order, [alone[name] for name in order], color=colors)
right.axvline(0.5, color="0.3", linestyle="--")
right.set(title="One subgroup left out (animals in orange)", xlabel="AUROC", xlim=(0, 1))
figure.savefig("none_of_these.png", dpi=150)
print(f"figure saved: {Path('none_of_these.png').resolve()}")
