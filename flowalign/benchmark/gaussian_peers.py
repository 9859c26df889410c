"""TransCLIP and StatA: mixtures of Gaussians that take in a pool of unlabelled rows as a whole.

Each minimises its paper's objective; what is ours is noted. Neither has been compared with the
published code, nor has a figure of the papers been made again, which takes their features. Rows
outside the pool have no answer.
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
    """Cosines of unit rows, (N, d), to their nearest others: a sparse matrix, (N, N), of N > 1.

    It is made symmetric by the mean with its transpose; negative cosines count as zero.
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
        """Logarithms of the densities, (n, C), but for a constant."""
        precision = (1 / self.variances).astype(rows.dtype)
        weights = (self.means * precision).astype(rows.dtype)
        offsets = (self.means * weights).sum(axis=1) + np.log(self.variances).sum(axis=1)
        return rows @ weights.T - (np.square(rows) @ precision.T + offsets) / 2


SMALLEST_VARIANCE = 1e-6  # of a feature that is the same in all rows


class GaussianPeer(TransductivePeer):
    """What TransCLIP and StatA share: how the classes of rows follow from Gaussians, and back."""

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
        """Return what makes Gaussians of classes, (N, C). Those that are given are the first."""

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
    """Gaussians with one diagonal in common, of rows with weights, (N,), and classes, (N, C)."""
    shares = weights[:, None] * classes
    masses = shares.sum(axis=0)
    means = shares.T.astype(rows.dtype) @ rows / masses[:, None]
    variances = weights @ np.square(rows) - masses @ np.square(means)
    variances = variances[None] / weights.sum()
    return Gaussians(means.astype(rows.dtype), np.maximum(variances, SMALLEST_VARIANCE))


def anchored(
    rows: NDArray[Any], alpha: float, anchors: Gaussians, classes: NDArray[Any]
) -> Gaussians:
    """Gaussians of rows with classes, (N, C), each with ``alpha`` rows of its anchor beside."""
    totals = classes.sum(axis=0)[:, None] + alpha
    sums = classes.T.astype(rows.dtype) @ rows + alpha * anchors.means
    means = (sums / totals).astype(rows.dtype)
    about = anchors.variances + np.square(anchors.means - means)
    variances = (spread(rows, classes, means) + alpha * about) / totals
    return Gaussians(means, np.maximum(variances, SMALLEST_VARIANCE))


def spread(rows: NDArray[Any], shares: NDArray[Any], means: NDArray[Any]) -> NDArray[Any]:
    """Sum of squared deviations from each mean, (C, d), of rows weighted by shares, (N, C)."""
    shares = shares.astype(rows.dtype)
    sums, squares = shares.T @ rows, shares.T @ np.square(rows)
    return squares - 2 * means * sums + np.square(means) * shares.sum(axis=0)[:, None]


class TransCLIP(GaussianPeer):
    """TransCLIP [1]_, its form for few shots: a Gaussian mixture that neighbours and text hold.

    Rows of the pool get their classes, z, and the classes their means and one diagonal covariance,
    by minimising the negative log-likelihood of the rows, of which labelled ones have the weight
    ``gamma`` in all and the pool 1, minus the agreement of z between each row and its 3 nearest
    neighbours, weighted by their cosine, plus the divergence of z from zero-shot classification, of
    which the text has the weight 0.5. Ten rounds of five steps in z and one in the Gaussians.

    Parameters
    ----------
    gamma : float or "auto"
        Weight of all labelled rows beside all of the pool. A single sample a class: 0.02.

    Notes
    -----
    The paper chooses `gamma` on validation data. Ours are the symmetric form of the neighbours'
    affinity, which leaves out a row itself, and the start: Gaussians of the labelled rows and of
    the pool's zero-shot classes.

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
    """StatA [1]_: a Gaussian mixture whose classes are drawn to anchors that the text gives.

    The anchor of a class is a Gaussian about its text, with the spread of the labelled rows of the
    class and of those that zero-shot classification gives to it. The divergence of each class's
    Gaussian from its anchor is added with a weight to what TransCLIP minimises, and each class has
    a covariance of its own. So the anchor counts as that many rows of its class: a class without
    rows in the pool stays near its text.

    Parameters
    ----------
    alpha : float
        Weight of the anchors; the paper's is 1.

    Notes
    -----
    The paper is about no labels. Ours is how labelled rows enter: they count like rows of the pool
    whose class is certain. There is nothing to choose; the weight of the text is 1 too.

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
