"""TransCLIP and StatA: mixtures of Gaussians that take in a pool of unlabelled rows as a whole.

Each minimises its paper's objective, and notes what is ours. Neither has been compared with the
published code. No figure of the papers has been reproduced, since their features are not at hand.
Neither has an answer for rows outside the pool.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import log_softmax, softmax

from flowalign import blocks
from flowalign.benchmark.peer import cosine_logits
from flowalign.benchmark.unlabeled_peer import UNKNOWN, TransductivePeer

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_NEIGHBORS = 3


def neighbors(rows: NDArray[Any], n_neighbors: int = N_NEIGHBORS) -> csr_matrix:
    """Return cosines of unit rows, (N, d), N > 1, to their nearest others: sparse, (N, N).

    The matrix is the mean of itself and its transpose, so it is symmetric. Negative cosines count
    as zero.
    """
    n, k = len(rows), min(n_neighbors, len(rows) - 1)
    nearest = np.empty((n, k), dtype=np.intp)
    cosines = np.empty((n, k), dtype=rows.dtype)
    for part in blocks.slices(n):
        similarity = rows[part] @ rows.T
        taken, each = np.arange(n)[part], np.arange(len(similarity))  # first the row itself
        for j in range(k):
            similarity[each, taken] = -np.inf
            taken = similarity.argmax(axis=1)
            nearest[part, j], cosines[part, j] = taken, similarity[each, taken]
    starts = np.arange(0, n * k + 1, k)
    graph = csr_matrix((np.maximum(cosines, 0).ravel(), nearest.ravel(), starts), shape=(n, n))
    return (graph + graph.T) / 2


class Gaussians(NamedTuple):
    """A Gaussian for each class: means, (C, d), and diagonals of the covariances, (C or 1, d)."""

    means: NDArray[Any]
    variances: NDArray[Any]

    def log_density(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return logarithms of the densities, (n, C), up to a constant."""
        precision = (1 / self.variances).astype(rows.dtype)
        weights = (self.means * precision).astype(rows.dtype)
        offsets = (self.means * weights).sum(axis=1) + np.log(self.variances).sum(axis=1)
        return rows @ weights.T - (np.square(rows) @ precision.T + offsets) / 2


SMALLEST_VARIANCE = 1e-6  # for a feature that is equal in all rows


class GaussianPeer(TransductivePeer):
    """Base of TransCLIP and StatA: assigns rows to Gaussians, and fits Gaussians to these rows."""

    text_weight: ClassVar[float]
    n_rounds: ClassVar[int] = 10
    n_steps: ClassVar[int] = 5

    def _prepare(self, rows: NDArray[Any]) -> csr_matrix:
        return neighbors(rows)

    @abstractmethod
    def _estimator(
        self,
        rows: NDArray[Any],
        known: NDArray[Any],
        classes: NDArray[Any],
        text: NDArray[Any],
        **setting: float,
    ) -> Callable[[NDArray[Any]], Gaussians]:
        """Return a function from classes, (N, C), to Gaussians; `classes` are the first ones."""

    def _solve(
        self,
        rows: NDArray[Any],
        known: NDArray[Any],
        text: NDArray[Any],
        shared: csr_matrix,
        **setting: float,
    ) -> NDArray[Any]:
        asked = known == UNKNOWN
        zero_shot = log_softmax(cosine_logits(text, rows), axis=1)
        classes = np.eye(len(text), dtype=rows.dtype)[known]
        classes[asked] = np.exp(zero_shot[asked])
        estimate = self._estimator(rows, known, classes, text, **setting)
        prior, to_others, logits = self.text_weight * zero_shot[asked], shared[asked], classes
        for _ in range(self.n_rounds):
            evidence = estimate(classes).log_density(rows[asked]) + prior
            for _ in range(self.n_steps):
                logits = evidence + to_others @ classes
                classes[asked] = softmax(logits, axis=1)
        return logits


def shared_spread(rows: NDArray[Any], weights: NDArray[Any], classes: NDArray[Any]) -> Gaussians:
    """Fit Gaussians with a common diagonal to rows with weights, (N,), and classes, (N, C)."""
    shares = weights[:, None] * classes
    masses = shares.sum(axis=0)
    means = shares.T.astype(rows.dtype) @ rows / masses[:, None]
    variances = weights @ np.square(rows) - masses @ np.square(means)
    variances = variances[None] / weights.sum()
    return Gaussians(means.astype(rows.dtype), np.maximum(variances, SMALLEST_VARIANCE))


def anchored(
    rows: NDArray[Any], alpha: float, anchors: Gaussians, classes: NDArray[Any]
) -> Gaussians:
    """Fit Gaussians to rows with classes, (N, C); each anchor counts as ``alpha`` more rows."""
    totals = classes.sum(axis=0)[:, None] + alpha
    sums = classes.T.astype(rows.dtype) @ rows + alpha * anchors.means
    means = (sums / totals).astype(rows.dtype)
    about = anchors.variances + np.square(anchors.means - means)
    variances = (spread(rows, classes, means) + alpha * about) / totals
    return Gaussians(means, np.maximum(variances, SMALLEST_VARIANCE))


def spread(rows: NDArray[Any], shares: NDArray[Any], means: NDArray[Any]) -> NDArray[Any]:
    """Return sums, (C, d), of squared deviations from each mean, weighted by shares, (N, C)."""
    shares = shares.astype(rows.dtype)
    sums, squares = shares.T @ rows, shares.T @ np.square(rows)
    return squares - 2 * means * sums + np.square(means) * shares.sum(axis=0)[:, None]


class TransCLIP(GaussianPeer):
    """TransCLIP [1]_, its form for few shots: a Gaussian mixture with neighbours and text.

    The rows of the pool get classes z, and the classes get means and one diagonal covariance. They
    minimise a sum of three terms: the negative log-likelihood of the rows, in which labelled rows
    have the weight ``gamma`` in all and the pool 1; minus the agreement of z between each row and
    its 3 nearest neighbours, weighted by their cosine; and the divergence of z from zero-shot
    classification, in which the text has the weight 0.5. Ten rounds have five steps in z and one in
    the Gaussians each.

    Parameters
    ----------
    gamma : float or "auto"
        Weight of all labelled rows, where the whole pool has 1. With a single sample a class: 0.02.

    Notes
    -----
    The paper chooses `gamma` on validation data. Two things are ours: the neighbours' affinity is
    symmetric and leaves out the row itself, and the first Gaussians are those of the labelled rows
    and of the pool's zero-shot classes.

    References
    ----------
    .. [1] M. Zanella, B. Gérin and I. Ben Ayed, "Boosting Vision-Language Models with
       Transduction", NeurIPS 2024, arXiv 2406.01837.

    Examples
    --------
    >>> from flowalign.benchmark.gaussian_peers import TransCLIP
    >>> from flowalign.datasets import make_cross_modal
    >>> data = make_cross_modal(random_state=0)
    >>> peer = TransCLIP().fit(
    ...     data.X_train, data.y_train, data.class_embeddings, X_unlabeled=data.X_test
    ... )
    >>> peer.transduction_proba_.shape == (len(data.X_test), len(peer.classes_))
    True
    """

    candidates: ClassVar = {"gamma": (0.002, 0.01, 0.02, 0.2)}
    usual: ClassVar = {"gamma": 0.02}
    n_folds: ClassVar[int] = 2
    text_weight: ClassVar[float] = 0.5

    def __init__(self, gamma: float | str = "auto") -> None:
        self.gamma = gamma

    def _estimator(
        self,
        rows: NDArray[Any],
        known: NDArray[Any],
        classes: NDArray[Any],
        text: NDArray[Any],
        **setting: float,
    ) -> Callable[[NDArray[Any]], Gaussians]:
        asked = known == UNKNOWN
        n_labelled = (~asked).sum()
        weights = np.where(asked, 1 / asked.sum(), setting["gamma"] / n_labelled)
        return partial(shared_spread, rows, weights)


class StatA(GaussianPeer):
    """StatA [1]_: a Gaussian mixture whose classes are pulled to anchors at their text.

    The anchor of a class is a Gaussian about its text. Its spread is that of the labelled rows of
    the class and of the rows that zero-shot classification gives to the class. Each class has a
    covariance of its own. The objective of TransCLIP gets one more term: the divergence of each
    class's Gaussian from its anchor, times a weight. So the anchor counts as that many rows of its
    class, and a class without rows in the pool stays near its text.

    Parameters
    ----------
    alpha : float
        Weight of the anchors; 1 in the paper.

    Notes
    -----
    The paper has no labelled rows. Their part is ours: they count like rows of the pool whose class
    is certain. There is nothing to choose. The weight of the text is 1 too.

    References
    ----------
    .. [1] M. Zanella, C. Fuchs, C. De Vleeschouwer and I. Ben Ayed, "Realistic Test-Time Adaptation
       of Vision-Language Models", CVPR 2025, arXiv 2501.03729.
    """

    text_weight: ClassVar[float] = 1.0

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def _estimator(
        self,
        rows: NDArray[Any],
        known: NDArray[Any],
        classes: NDArray[Any],
        text: NDArray[Any],
        **setting: float,
    ) -> Callable[[NDArray[Any]], Gaussians]:
        variances = spread(rows, classes, text) / classes.sum(axis=0)[:, None]
        return partial(anchored, rows, self.alpha, Gaussians(text, variances))
