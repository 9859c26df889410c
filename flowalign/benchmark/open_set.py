"""None of these: how well methods recognise rows of unknown classes.

A random half of the classes is held out of class embeddings and support set. Test rows of these
classes are foreign. All test rows get a score, which should be high for known classes. The area
under the ROC curve is the chance that a known row scores above a foreign one. The false positive
rate at a recall of 95 % is the share of foreign rows above the threshold that 95 % of known rows
pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import softmax
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.metrics.pairwise import euclidean_distances

from flowalign.aligner import FlowMatchingAligner
from flowalign.benchmark.feature_sets import FeatureSet
from flowalign.benchmark.store import Task, cells, collect
from flowalign.benchmark.summary import OURS
from flowalign.spaces import class_means
from flowalign.sphere import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECALL = 0.95
SCORES = (OURS, "largest probability", "MCM", "Mahalanobis", "relative Mahalanobis")
"""The scores that are compared: ``score_samples`` of the aligner, which is the same for both
fields; the largest value of its ``predict_proba``; and three scores of others."""


def held_out_classes(n_classes: int, seed: int) -> NDArray[np.int64]:
    """Draw half of the classes (the smaller half of an odd number); return them sorted."""
    return np.sort(np.random.default_rng(seed).permutation(n_classes)[: n_classes // 2])


def auroc(scores: NDArray[Any], known: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve of scores, (m,), which should be high for known rows.

    >>> auroc(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.5
    """
    return float(roc_auc_score(known, scores))


def fpr_at_recall(scores: NDArray[Any], known: NDArray[np.bool_], recall: float = RECALL) -> float:
    """Return the share of foreign rows above the threshold that `recall` of known rows pass.

    >>> fpr_at_recall(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, False, True, False]))
    0.5
    """
    passed, found, _ = roc_curve(known, scores, drop_intermediate=False)
    return float(passed[np.argmax(found >= recall)])


def largest_matching(X: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """Maximum concept matching [1]_: the largest softmax of cosines to class embeddings.

    The temperature is 1, as in the paper. Features, (m, d), and class embeddings, (C, d), are unit
    rows.

    References
    ----------
    .. [1] Y. Ming et al., "Delving into Out-of-Distribution Detection with Vision-Language
       Representations", NeurIPS 2022, arXiv 2211.13445.
    """
    return softmax(X @ targets.T, axis=1).max(axis=1)


def mahalanobis(
    X: NDArray[Any], support: NDArray[Any], codes: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mahalanobis [1]_ and relative Mahalanobis [2]_ scores of features, (m, d): (m,) each.

    The first is minus the squared distance to the nearest class mean under the covariance within
    classes. The second adds the squared distance to the mean of all samples under the covariance of
    all samples. With one sample a class, both use the covariance of all samples.

    There are mostly fewer samples than coordinates, so both covariances are widened by the mean
    variance of a coordinate. This is ours. If each covariance were shrunk by itself, as by
    scikit-learn's ``OAS``, the difference would be one of two regularisers, and relative
    Mahalanobis would have 5 points less with 16 samples.

    References
    ----------
    .. [1] K. Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
       Adversarial Attacks", NeurIPS 2018, arXiv 1807.03888.
    .. [2] J. Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
       arXiv 2106.09022, 2021.
    """
    _, codes = np.unique(codes, return_inverse=True)
    means, grand = class_means(support, codes), support.mean(axis=0, keepdims=True)
    about_grand = support - grand
    within = support - means[codes] if len(support) > len(means) else about_grand
    ridge = np.square(about_grand).mean() or 1.0  # without any scatter all directions are equal
    nearest = _squared_distances(X, means, within, ridge).min(axis=1)
    return -nearest, _squared_distances(X, grand, about_grand, ridge)[:, 0] - nearest


def _squared_distances(
    X: NDArray[Any], centres: NDArray[Any], residuals: NDArray[Any], ridge: float
) -> NDArray[Any]:
    """Return squared distances, (m, C), of rows to centres under the widened covariance."""
    covariance = residuals.T @ residuals / len(residuals) + ridge * np.eye(X.shape[1])
    root = np.linalg.cholesky(covariance)
    whitened = (solve_triangular(root, rows.T, lower=True).T for rows in (X, centres))
    return euclidean_distances(*whitened, squared=True)


@dataclass(frozen=True)
class OpenSet(Task):
    """All scores on one draw."""

    unit = "open set"

    @property
    def identity(self) -> list[Any]:
        """The scores have no parameters."""
        return []

    def measure(self, data: FeatureSet) -> dict[str, Any]:
        """Score test rows after a fit to half of the classes.

        Returns
        -------
        dict
            ``n_samples``; ``held_out``, a list of classes; ``auroc`` and ``fpr95`` of each score;
            ``refused``, the share of known test rows below the aligner's default
            ``unknown_threshold_``.
        """
        table = data.class_embeddings
        held_out = held_out_classes(len(table.classes), self.seed)
        known = ~np.isin(data.y_test, held_out)
        if known.all() or not known.any():
            raise ValueError("an open set needs test rows of known and of held-out classes")
        rows = data.draw(self.n_shots, self.seed)
        rows = rows[~np.isin(data.y_train[rows], held_out)]
        X, y = data.X_train[rows], data.y_train[rows]
        model = FlowMatchingAligner(random_state=self.seed)
        model.fit(X, y, table.subset(np.setdiff1d(table.classes, held_out)))
        # In float64, since in float32 many certain rows would have a probability of exactly 1.
        X_test = data.X_test.astype(np.float64)
        ours, sure = model.score_samples(X_test), model.predict_proba(X_test).max(axis=1)
        X, X_test = unit_rows(X.astype(np.float64), "X_train"), unit_rows(X_test, "X_test")
        targets = unit_rows(model.class_embeddings_, "class_embeddings")
        every = (ours, sure, largest_matching(X_test, targets), *mahalanobis(X_test, X, y))
        scores = dict(zip(SCORES, every, strict=True))
        return {
            "n_samples": len(rows),
            "held_out": held_out.tolist(),
            "auroc": {name: auroc(values, known) for name, values in scores.items()},
            "fpr95": {name: fpr_at_recall(values, known) for name, values in scores.items()},
            "refused": float(np.mean(ours[known] < model.unknown_threshold_)),
        }


def run_open_set(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    shots: Sequence[int] = (1, 4, 16),
    n_seeds: int = 3,
    n_jobs: int | None = -1,
    verbose: int = 1,
) -> list[dict[str, Any]]:
    """Hold out half of the classes, and keep a row of each draw in ``out/rows.jsonl``.

    Parameters
    ----------
    paths, out, shots, n_seeds, n_jobs, verbose
        As for :func:`flowalign.benchmark.run`, which may use the same folder. Each draw holds out
        other classes, so all draws are made.

    Returns
    -------
    list of dict
        The rows: ``set``, ``n_shots``, ``seed``, ``method`` ("open set"), and the results of
        :meth:`OpenSet.measure`, or ``error`` if it failed.
    """
    tasks = (OpenSet(*cell, "open set") for _, cell in cells(paths, shots, n_seeds))
    return collect(tasks, out, n_jobs=n_jobs, verbose=verbose)


def by_score(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each score, for :func:`flowalign.benchmark.summary.summarise`."""
    for row in rows:
        for name in SCORES:
            one = {key: row[key] for key in ("set", "n_shots", "seed")} | {"method": name}
            if "error" in row:
                yield one | {"error": row["error"]}
            else:
                measured = {"auroc": row["auroc"][name], "fpr95": row["fpr95"][name]}
                yield one | measured | {"refused": row["refused"]}
