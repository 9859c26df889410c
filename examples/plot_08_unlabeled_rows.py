"""
Drawings without labels
=======================

Few drawings have a label, many more have none. Here 1, 2, 4 or 8 drawings of each emoji class are
labelled, and the rest of the training drawings go into the fit without their labels. The script
prints accuracy without and with them, and that of scikit-learn's ``LabelSpreading`` on the same
rows. It saves two figures, ``unlabeled_classes.png`` and ``unlabeled_rows.png``, in the current
directory, and takes about half a minute.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.semi_supervised import LabelSpreading

from flowalign import FlowMatchingAligner
from flowalign.datasets import few_shot, load_emoji
from flowalign.plotting import UnlabeledDisplay

emoji = load_emoji()
X_train, y_train, X_test, y_test = emoji.X_train, emoji.y_train, emoji.X_test, emoji.y_test

# %%
# One draw
# --------
# Four labelled drawings of each class, 300 without a label. ``transduction_`` has labels for the
# latter, each from a model without this drawing. No test drawing reaches a fit.


def draw(shots, seed):
    """Say which of the training drawings have a label."""
    labelled, _ = few_shot(np.arange(len(y_train)), y_train, shots, random_state=seed)
    return np.isin(np.arange(len(y_train)), labelled)


def fit(labelled, pool=None):
    """Fit without or with a pool of rows without labels."""
    # Numbers for these two hold no sample out, which saves most of the time.
    aligner = FlowMatchingAligner(emoji.class_embeddings, n_steps=5, logit_scale=1)
    return aligner.fit(X_train[labelled], y_train[labelled], X_unlabeled=pool)


labelled = draw(shots=4, seed=0)
aligner = fit(labelled, X_train[~labelled])
print(f"{labelled.sum()} drawings with a label, {len(aligner.transduction_)} without")
print(f"which count for {aligner.unlabeled_weight_.sum():.0f} labelled ones in all")
for k in np.argsort(aligner.class_agreement_)[:3]:
    print(f"agreement {aligner.class_agreement_[k]:.2f}  {aligner.classes_[k]}")

# %%
# Which classes to look at
# ------------------------
# Look at classes whose unlabelled drawings lie elsewhere than the labelled ones, and at classes
# that many test drawings leave, or come to, because of the unlabelled drawings.

display = UnlabeledDisplay.from_estimator(aligner, X_test, max_classes=12)
display.figure_.savefig("unlabeled_classes.png", dpi=150)
print(f"{display.left.sum()} of {len(X_test)} test drawings got another class")
print(f"figure saved: {Path('unlabeled_classes.png').resolve()}")

# %%
# More draws
# ----------
# Accuracy in percent on the test drawings, which show other emoji than the training drawings, and
# on the drawings without a label, which often show an emoji that is labelled in another design.
# ``LabelSpreading`` does not know the names of the classes; the aligner does.


def accuracies(shots, seed):
    """Three methods, each on test drawings and on those without a label: (3, 2)."""
    labelled = draw(shots, seed)
    pool, truth = X_train[~labelled], y_train[~labelled]
    alone, found = fit(labelled), fit(labelled, pool)
    codes = np.searchsorted(emoji.class_names, y_train)
    spreading = LabelSpreading(kernel="knn").fit(X_train, np.where(labelled, codes, -1))
    names = np.array(emoji.class_names)
    answers = [
        (alone.predict(X_test), alone.predict(pool)),
        (found.predict(X_test), found.transduction_),
        (names[spreading.predict(X_test)], names[spreading.transduction_[~labelled]]),
    ]
    return [[100 * np.mean(new == y_test), 100 * np.mean(old == truth)] for new, old in answers]


shots, n_draws = [1, 2, 4, 8], 3
found = np.array([[accuracies(k, seed) for seed in range(n_draws)] for k in shots])
means, spreads = found.mean(axis=1), found.std(axis=1, ddof=1)
methods = ["labelled drawings alone", "and those without a label", "LabelSpreading"]
for part, where in enumerate(["test drawings", "drawings without a label"]):
    print(f"{where:<27} {' '.join(f'{k:>11}' for k in shots)} labelled a class")
    for i, method in enumerate(methods):
        cells = zip(means[:, i, part], spreads[:, i, part], strict=True)
        print(f"  {method:<25} {' '.join(f'{m:5.1f} ± {s:3.1f}' for m, s in cells)}")
gain = (found[:, :, 1] - found[:, :, 0]).mean(axis=1)
for k, (new, old) in zip(shots, gain, strict=True):
    print(f"{k} labelled a class: {new:+.1f} points on test drawings, {old:+.1f} on the others")

# %%
# Figure
# ------
# Mean of the draws; a bar is one standard deviation between them.

figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True, layout="constrained")
styles = [("#0072B2", "o", "--"), ("#0072B2", "o", "-"), ("#E69F00", "s", "-")]
for part, (ax, where) in enumerate(
    zip(axes, ["Test drawings: other emoji", "The drawings without a label"], strict=True)
):
    for i, (method, (color, marker, line)) in enumerate(zip(methods, styles, strict=True)):
        ax.errorbar(
            np.array(shots) * 1.04 ** (i - 1),  # side by side
            means[:, i, part],
            spreads[:, i, part],
            color=color, marker=marker, linestyle=line, capsize=3, label=method,
        )  # fmt: skip
    ax.set(title=where, xlabel="labelled drawings a class", xscale="log")
    ax.set_xticks(shots, [str(k) for k in shots], minor=False)
    ax.minorticks_off()
axes[0].set_ylabel("accuracy in percent")
axes[0].legend()
figure.savefig("unlabeled_rows.png", dpi=150)
print(f"figure saved: {Path('unlabeled_rows.png').resolve()}")

# %%
# Result: unlabelled drawings add one or two points on the test drawings, where draws differ by one
# to three. With eight labelled drawings of each class they lose one point on the unlabelled
# drawings themselves. ``LabelSpreading`` stays below the aligner without unlabelled drawings. Fewer
# than half of the answers on test drawings are right, so this is a hard set:
# :doc:`../guide/unlabeled` has easier ones.
