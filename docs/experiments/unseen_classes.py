"""Measures how well classes are found that have a name and no samples, among all others.

    python docs/experiments/unseen_classes.py FOLDER [--shots 1 4 16] [--draws 3] [--share 0.33]
        [--rejected | --drawn]

For every feature set in FOLDER (see ``feature_sets.py``) and draw, a share of the classes has no
samples. Test rows of all classes are told apart among all classes: accuracy in percent on rows of
classes with samples, and without, their harmonic mean (all of generalised zero-shot learning), and
the mean accuracy of a class. Of the default aligner, to which all classes are alike; of one that is
told by ``class_prior`` that a class without samples is twice as likely as another ("twice"); of
zero steps; and of a logistic regression that is given the samples, and of each other class as many
rows as the aligner is asked to sample ("drawn").

With ``--rejected`` instead, ways to favour the classes without samples by what the model knows:
their densities as wide as they are uncertain, and factors that are chosen on the samples, each
class left out as a whole. With ``--drawn``, logistic regressions on rows from elsewhere: the
expected mean of a class, and a network's flow backwards from its embedding. Nothing is chosen on
test data.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import feature_sets
import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from flowalign import FlowMatchingAligner, ode, path, sphere
from flowalign.gaussian.field import log_t_density
from flowalign.sphere import CLIP_SCALE

BIASES = np.linspace(-5, 15, 81)
N_DRAWN = 32


def said(codes, y, unseen):
    """Accuracy on rows of classes with samples and without, harmonic mean, mean over classes."""
    recalls = np.array([np.mean(codes[y == c] == c) for c in np.unique(y)])
    rows = unseen[y]
    s, u = np.mean(codes[~rows] == y[~rows]), np.mean(codes[rows] == y[rows])
    return 100 * np.array([s, u, 2 * s * u / max(s + u, 1e-9), recalls.mean()])


def taught(X, y, drawn, codes, X_test):
    """What a logistic regression says that was given samples and drawn rows."""
    model = LogisticRegression(C=10, class_weight="balanced", max_iter=300)
    rows = np.concatenate([X, drawn]).astype(np.float64)
    return model.fit(rows, np.concatenate([y, codes])).predict(X_test)


def usual(aligner, twice, X, y, X_test, unseen, seed):
    names = np.flatnonzero(unseen)
    drawn = aligner.sample(N_DRAWN, names, random_state=seed)
    yield "default", aligner.predict(X_test)
    yield "twice", twice.predict(X_test)
    yield "zero-shot", aligner.set_params(n_steps=0).predict(X_test)
    yield "drawn", taught(X, y, *drawn, X_test)


def rejected(aligner, twice, X, y, X_test, unseen, seed):
    model, classifier = aligner.gaussian_model_, aligner._classifier
    scores = aligner.decision_function(X_test)
    assert scores.ndim == 2
    yield "default", scores.argmax(axis=1)
    yield "twice", (scores + np.log(2) * unseen).argmax(axis=1)
    x = torch.tensor(X_test)
    field = classifier.field
    z, start = field.rotate(x), x.new_zeros(())
    distances = field.distances(z, field.means, field.variance(start))
    own = 1 + model.class_means.covariance.diagonal().float()
    widening = torch.where(torch.from_numpy(unseen), own / own[~unseen].mean(), 1)
    wide = log_t_density(distances / widening, field.config["tail"])
    wide = wide - X.shape[1] / 2 * widening.log()
    gain = wide - log_t_density(distances, field.config["tail"])
    yield "wide", (scores + classifier.temperature * gain.numpy()).argmax(axis=1)
    for name, bias in chosen(aligner, X, y, unseen).items():
        yield name, (scores + bias * unseen).argmax(axis=1)


def chosen(aligner, X, y, unseen):
    """Log-odds for classes without samples that do best by the samples."""
    model, field = aligner.gaussian_model_, aligner._classifier.field
    evidence, P = model.evidence, model.class_means.covariance
    x, codes = torch.tensor(X), torch.tensor(y)
    twin, start = model.without_each(field, x, codes), x.new_zeros(())
    counts = model.statistics.counts[codes]
    # A class as a whole: its mean with the weight of all its samples.
    left = 1 - counts * P[codes, codes]
    residuals = model.statistics.means - model.class_means.means
    as_class = replace(
        twin,
        shift=(counts[:, None] * P[codes] / left[:, None]).float(),
        residuals=(residuals @ model.within.basis)[codes].float(),
    )

    def heard(twin):
        z = twin.rotate(x)
        raw, centred = field.text_cosines(z, twin.middles(start))
        density = log_t_density(twin.distances(start, z), float(model.within.tail))
        text = CLIP_SCALE * (evidence.text * raw + evidence.centred_text * centred)
        return (evidence.density * density + text).numpy()

    rows = np.arange(len(y))
    by_name = np.tile(unseen, (len(y), 1))
    by_name[rows, y] = True
    weights = 1 / counts.numpy()
    kept = weights < 1
    if not kept.any():
        return {}
    sides = [(heard(as_class), by_name, weights), (heard(twin), unseen, weights * kept)]
    said = np.empty((len(BIASES), 2, 2))
    for i, bias in enumerate(BIASES):
        for j, (scores, which, weight) in enumerate(sides):
            log_p = log_softmax(scores + bias * which, axis=1)[rows, y]
            said[i, j] = [np.average(v, weights=weight) for v in (log_p, np.exp(log_p))]
    log_p, p = said[..., 0], said[..., 1]
    share = np.array([unseen.mean(), 1 - unseen.mean()])
    best = {
        "likelihood": log_p @ share,
        "likelihood of halves": log_p.sum(axis=1),
        "harmonic mean": -(1 / p).sum(axis=1),
        "harmonic mean, shares": -(1 / p) @ share,
    }
    return {name: BIASES[value.argmax()] for name, value in best.items()}


def drawn(aligner, twice, X, y, X_test, unseen, seed):
    names, n = np.flatnonzero(unseen), N_DRAWN
    means = aligner.gaussian_model_.class_means.means.numpy()[unseen]
    yield "model", taught(X, y, *aligner.sample(n, names, random_state=seed), X_test)
    yield "means", taught(X, y, sphere.unit_rows(means, "means"), names, X_test)
    network = FlowMatchingAligner(
        aligner.class_embeddings,
        velocity_field="mlp",
        n_steps=5,
        logit_scale=1,
        device="cpu",
        random_state=seed,
    ).fit(X, y)
    codes = np.repeat(names, n)
    targets = torch.tensor(network.class_embeddings_)[codes]
    eps = torch.randn(targets.shape, generator=torch.Generator().manual_seed(seed))
    for end in (0.999, 0.9, 0.5):
        size = network.noise * path.rms(torch.tensor(X)) * np.sqrt(end * (1 - end))
        times = np.linspace(0, end, 51).tolist()

        def backwards(t, x, end=end):
            return -network.velocity_field_(end - t, x)

        with torch.inference_mode():
            rows = ode.integrate(backwards, targets + size * eps, times, last_only=True)[-1]
        rows = sphere.unit_rows(rows.numpy(), "rows")
        yield f"network from {end}", taught(X, y, rows, codes, X_test)


def measure(path, n_shots, seed, share, ways):
    X_all, y_all, table, X_test, y_test = feature_sets.load(path)
    X, y = feature_sets.draw(X_all, y_all, n_shots, seed)
    rng, n_classes = np.random.default_rng(1000 + seed), len(table.classes)
    unseen = np.zeros(n_classes, dtype=bool)
    unseen[rng.permutation(n_classes)[: max(1, round(share * n_classes))]] = True
    X, y = sphere.unit_rows(X[~unseen[y]], "X"), y[~unseen[y]]
    X_test = sphere.unit_rows(X_test, "X_test")
    aligner = FlowMatchingAligner(table, device="cpu").fit(X, y)
    prior = np.where(unseen, 2, 1) / (n_classes + unseen.sum())
    twice = FlowMatchingAligner(table, class_prior=prior, device="cpu").fit(X, y)
    found = ways(aligner, twice, X, y, X_test, unseen, seed)
    return {name: said(codes, y_test, unseen) for name, codes in found}


def shown(figures) -> str:
    return " ".join(f"{v:5.1f}" for v in figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--share", type=float, default=1 / 3)
    parser.add_argument("--rejected", dest="ways", action="store_const", const=rejected)
    parser.add_argument("--drawn", dest="ways", action="store_const", const=drawn)
    args = parser.parse_args()
    for n_shots in args.shots:
        sets = defaultdict(list)
        for file in sorted(args.folder.glob("*.npz")):
            draws = [
                measure(file, n_shots, seed, args.share, args.ways or usual)
                for seed in range(args.draws)
            ]
            for name in draws[0]:
                sets[name].append(np.mean([draw[name] for draw in draws], axis=0))
            line = "  ".join(f"{name} {shown(rows[-1])}" for name, rows in sets.items())
            print(f"{n_shots:3} {file.stem:22} {line}", flush=True)
        for name, rows in sets.items():
            print(f"{n_shots:3} {name:24} {shown(np.mean(rows, axis=0))}")


if __name__ == "__main__":
    main()
