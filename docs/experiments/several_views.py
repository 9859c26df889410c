"""Measures what several encoders of the same samples are worth, put together in one way or another.

    python docs/experiments/several_views.py FOLDER [--shots 1 4 16] [--draws 3] [--repeats 5]

Of the feature sets in FOLDER (see ``feature_sets.py``) it reads two pairs: music, the same tracks
in features of CLAP and of OpenL3 (``clap_fma_genre_joint.npz``, ``openl3_fma_genre.npz``); and
digits, spoken ones (``audio_fsdd.npz``) beside scikit-learn's handwritten ones, paired at random
within the class, each picture in one pair of a draw at most.

Printed are, for samples a class: test accuracy in percent, mean and standard deviation over the
draws, log-loss and expected calibration error of each view alone and of ways to put them together;
the same of `MultiViewAligner` where half of the test rows lack the first view, and, also with other
weights, where a third view is noise or the second is given twice; the weights; and how long its fit
takes beside fits of its views alone, paired within one run. Nothing is chosen on test data.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import feature_sets
import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.datasets import load_digits

import flowalign.gaussian.fit
from flowalign import ClassEmbeddings, FlowMatchingAligner, MultiViewAligner, experts
from flowalign.benchmark.feature_sets import drawn_rows
from flowalign.benchmark.metrics import evaluate
from flowalign.calibration import calibrate
from flowalign.gaussian.evidence import INDEPENDENT_DIRECTIONS, ONE_SHOT_SHAPE, Evidence

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


class View(NamedTuple):
    """Features that one encoder made of drawn and of test rows, and its class embeddings."""

    X: np.ndarray
    X_test: np.ndarray
    table: ClassEmbeddings


Views = dict[str, View]


def music(folder: Path, n_shots: int, seed: int):
    """Return views, y, y_test."""
    clap = feature_sets.load(folder / "clap_fma_genre_joint.npz")
    openl3 = feature_sets.load(folder / "openl3_fma_genre.npz")
    (y, y_test), rows = (clap[1], clap[4]), drawn_rows(clap[1], n_shots, seed)
    if not (np.array_equal(y, openl3[1]) and np.array_equal(y_test, openl3[4])):
        raise ValueError("The rows of the two sets are not those of the same tracks.")
    sets = {"CLAP": clap, "OpenL3": openl3}
    views = {name: View(X[rows], T, table) for name, (X, _, table, T, _) in sets.items()}
    return views, y[rows], y_test


def digits(folder: Path, n_shots: int, seed: int):
    """Return views, y, y_test."""
    X, y, table, X_test, y_test = feature_sets.load(folder / "audio_fsdd.npz")
    rows = drawn_rows(y, n_shots, seed)
    written = load_digits()
    number = {name: DIGITS.index(name) if name in DIGITS else int(name) for name in table.classes}
    seen = np.empty(len(rows) + len(y_test), dtype=int)
    labels = np.concatenate([y[rows], y_test])
    rng = np.random.default_rng(seed)
    for name in table.classes:
        here = np.flatnonzero(labels == name)
        these = np.flatnonzero(written.target == number[name])
        seen[here] = rng.choice(these, len(here), replace=False)
    pictures = written.data[seen].astype(np.float32)
    views = {
        "sound": View(X[rows], X_test, table),
        "picture": View(pictures[: len(rows)], pictures[len(rows) :], table),
    }
    return views, y[rows], y_test


def aligner_of(views: Views, **params) -> MultiViewAligner:
    """Make one of aligners with default settings."""
    parts, start = [], 0
    for name, view in views.items():
        stop = start + view.X.shape[1]
        parts.append((name, FlowMatchingAligner(view.table, **params), slice(start, stop)))
        start = stop
    return MultiViewAligner(parts)


def beside(views: Views, part: str) -> np.ndarray:
    return np.hstack([getattr(view, part) for view in views.values()])


def heard_by(fit):
    """Return what a fit returns, and what it weighs views by: what each says of held-out rows."""
    heard, weigh = [], experts.weigh

    def listen(said, codes, log_prior, *, fixed):
        heard[:] = [np.nan_to_num(part) for part in said], codes, log_prior, fixed
        return weigh(said, codes, log_prior, fixed=fixed)

    experts.weigh = listen
    try:
        return fit(), heard
    finally:
        experts.weigh = weigh


def product(log_proba: list[np.ndarray], weights) -> np.ndarray:
    """Multiply probabilities, each raised to its weight. The classes are equally likely."""
    return np.exp(log_softmax(np.tensordot(weights, log_proba, axes=1), axis=1))


def of_densities(views: Views, y: np.ndarray) -> np.ndarray:
    """Multiply densities of the classes, as sure together as held-out samples say: (m, C)."""
    weigh = flowalign.gaussian.fit.weigh
    flowalign.gaussian.fit.weigh = lambda *_, **__: Evidence(1.0)
    try:
        model = aligner_of(views, n_steps=5, logit_scale=1)
        model, (said, codes, log_prior, one_shot) = heard_by(
            lambda: model.fit(beside(views, "X"), y)
        )
    finally:
        flowalign.gaussian.fit.weigh = weigh
    width = np.mean([view.X.shape[1] for view in views.values()])
    mean = min(1.0, INDEPENDENT_DIRECTIONS / width) / len(views)
    shape = ONE_SHOT_SHAPE if one_shot else 1.0
    weight = calibrate([np.sum(said, axis=0)], codes, [mean], [shape], log_prior)[0]
    return product(alone(model, views), np.full(len(views), weight[0]))


def alone(model: MultiViewAligner, views: Views) -> list[np.ndarray]:
    """Return log-probabilities of test rows by each view: V of (m, C)."""
    return [
        aligner.predict_log_proba(view.X_test.astype(np.float64))
        for aligner, view in zip(model.named_views_.values(), views.values(), strict=True)
    ]


def concatenated(views: Views, y: np.ndarray) -> np.ndarray:
    """Fit one aligner to rows of length 1 side by side, and to embeddings side by side."""

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    X, X_test = (
        np.hstack([unit(getattr(view, part)) for view in views.values()])
        for part in ("X", "X_test")
    )
    classes = next(iter(views.values())).table.classes
    vectors = [unit(view.table.subset(classes).vectors) for view in views.values()]
    table = ClassEmbeddings(classes, np.hstack(vectors))
    return FlowMatchingAligner(table, joint=False).fit(X, y).predict_proba(X_test)


def ways(views: Views, y: np.ndarray) -> tuple[dict[str, np.ndarray], MultiViewAligner]:
    """Return probabilities of test rows, (m, C), by each view and way; and the fit to all."""
    model, (said, codes, log_prior, one_shot) = heard_by(
        lambda: aligner_of(views).fit(beside(views, "X"), y)
    )
    single, n = alone(model, views), len(views)
    found = dict(zip(views, np.exp(single), strict=True))
    found["concatenation"] = concatenated(views, y)
    found["mean of probabilities"] = np.mean(np.exp(single), axis=0)
    for name, weight in (("1", 1), ("V^-1/2", n**-0.5), ("1/V", 1 / n)):
        found[f"product, weights {name}"] = product(single, np.full(n, weight))
    found["product of densities"] = of_densities(views, y)
    found["ours"] = model.predict_proba(beside(views, "X_test").astype(np.float64))
    for name, mean, shape in (
        ("mean 1", 1, experts.SHAPE),
        ("mean 1/V", 1 / n, experts.SHAPE),
        ("shape 1", n**-0.5, 1),
        ("shape 16", n**-0.5, 16),
    ):
        given = np.full(n, mean), np.full(n, shape), log_prior
        found[f"ours, prior of {name}"] = product(
            single, calibrate(said, codes, *given, fixed=one_shot)[0]
        )
    if one_shot:
        weights = weighed_anyway(said, codes, log_prior)
        found["ours, weighed anyway"] = product(single, weights)
    return found, model


def weighed_anyway(said, codes, log_prior) -> np.ndarray:
    """Weigh views that have one sample a class, although their weights are fixed."""
    n = len(said)
    means, shapes = np.full(n, n**-0.5), np.full(n, experts.SHAPE)
    return calibrate(said, codes, means, shapes, log_prior)[0]


def seconds(fit) -> float:
    begin = time.perf_counter()
    fit()
    return time.perf_counter() - begin


def fit_ratio(views: Views, y: np.ndarray, n_repeats: int) -> float:
    """Return how long a fit takes relative to fits of the views alone: the median of pairs."""
    model, X = aligner_of(views), beside(views, "X")
    singles = [(clone(a), X[:, columns]) for _, a, columns in model.views]
    ratios = []
    for _ in range(n_repeats):
        together = seconds(lambda: clone(model).fit(X, y))
        ratios.append(together / sum(seconds(lambda a=a, x=x: a.fit(x, y)) for a, x in singles))
    return float(np.median(ratios))


def variants(views: Views, y: np.ndarray, model: MultiViewAligner, seed: int):
    """Return probabilities of test rows and weights: without half of a view, and with a third."""
    rng = np.random.default_rng(seed)
    first, second = views
    X_test = beside(views, "X_test").astype(np.float64)
    half = rng.permutation(len(X_test))[: len(X_test) // 2]
    X_test[half, : views[first].X.shape[1]] = np.nan
    found = {f"half of the rows lack {first}": (model.predict_proba(X_test), model.view_weights_)}
    noise = [rng.normal(size=(len(rows), 64)) for rows in views[first][:2]]
    third = {
        "noise beside them": View(*(part.astype(np.float32) for part in noise), views[first].table),
        f"{second} twice": views[second],
    }
    for name, view in third.items():
        more = views | {"third": view}
        fitted, (*heard, one_shot) = heard_by(
            lambda more=more: aligner_of(more).fit(beside(more, "X"), y)
        )
        proba = fitted.predict_proba(beside(more, "X_test").astype(np.float64))
        found[name] = proba, fitted.view_weights_
        way, weights = "V^-1/2", np.full(len(more), len(more) ** -0.5)
        if one_shot:  # it has those
            way, weights = "weighed anyway", weighed_anyway(*heard)
        found[f"{name}, {way}"] = product(alone(fitted, more), weights), weights
    return found


def measure(draw, folder: Path, n_shots: int, n_draws: int, n_repeats: int) -> None:
    """Print the table of a pair of feature sets."""
    results, weights, ratios = defaultdict(list), defaultdict(list), []
    for seed in range(n_draws):
        views, y, y_test = draw(folder, n_shots, seed)
        found, model = ways(views, y)
        weights["ours"].append(model.view_weights_)
        for name, (proba, weight) in variants(views, y, model, seed).items():
            found[name] = proba
            weights[name].append(weight)
        codes = np.searchsorted(model.classes_, y_test)
        for name, proba in found.items():
            quality = evaluate(proba, codes)
            results[name].append([100 * quality["accuracy"], quality["log_loss"], quality["ece"]])
        ratios.append(fit_ratio(views, y, n_repeats))
    print(f"\n{draw.__name__}, {n_shots} a class: accuracy, log-loss, calibration error, weights")
    for name, values in results.items():
        (accuracy, log_loss, ece), spread = np.mean(values, axis=0), np.std(values, axis=0)[0]
        line = f"  {name:<33} {accuracy:6.2f} ± {spread:4.2f} {log_loss:7.3f} {ece:6.3f}"
        if name in weights:
            line += "  " + " ".join(f"{w:.2f}" for w in np.mean(weights[name], axis=0))
        print(line)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"  fit: {np.mean(ratios):.2f} times the fits of its views ({spread})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for draw in (music, digits):
        for n_shots in args.shots:
            measure(draw, args.folder, n_shots, args.draws, args.repeats)


if __name__ == "__main__":
    main()
