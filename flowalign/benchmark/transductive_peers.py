"""Peers that classify a pool of unlabelled rows as a whole, each as its paper says unless noted.

They are :class:`~flowalign.benchmark.unlabeled_peer.TransductivePeer`: rows outside the pool have
no answer. Where a paper chooses on validation data, the support set serves here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import gammaln, log_softmax, polygamma, psi, softmax

from flowalign import blocks
from flowalign.benchmark.peer import cosine_logits
from flowalign.benchmark.unlabeled_peer import UNKNOWN, TransductivePeer

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_NEIGHBORS = 3


def neighbors(rows: NDArray[Any], n_neighbors: int = N_NEIGHBORS) -> csr_matrix:
    """Cosines of unit rows, (N, d), to their nearest others: a sparse matrix, (N, N).

    It is made symmetric by the mean with its transpose; negative cosines count as zero.
    """
    n, k = len(rows), min(n_neighbors, len(rows) - 1)
    nearest = np.empty((n, k), dtype=np.intp)
    cosines = np.empty((n, k), dtype=rows.dtype)
    for part in blocks.slices(n):
        similarity = rows[part] @ rows.T
        own = np.arange(n)[part]
        similarity[np.arange(len(own)), own] = -np.inf
        nearest[part] = np.argpartition(similarity, n - k, axis=1)[:, n - k :]
        cosines[part] = np.take_along_axis(similarity, nearest[part], axis=1)
    starts = np.arange(0, n * k + 1, k) if k else np.zeros(n + 1, dtype=np.intp)
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

    def _estimate(
        self,
        rows: NDArray[Any],
        known: NDArray[Any],
        classes: NDArray[Any],
        anchors: Gaussians,
        **setting: float,
    ) -> Gaussians:
        raise NotImplementedError

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
        anchors = anchors_of(rows, classes, text)
        prior, to_others, logits = self.text_weight * zero_shot[asked], shared[asked], classes
        for _ in range(self.n_rounds):
            gaussians = self._estimate(rows, known, classes, anchors, **setting)
            evidence = gaussians.log_density(rows[asked]) + prior
            for _ in range(self.n_steps):
                logits = evidence + to_others @ classes
                classes[asked] = softmax(logits, axis=1)
        return logits


def anchors_of(rows: NDArray[Any], shares: NDArray[Any], text: NDArray[Any]) -> Gaussians:
    """Gaussians about the text, (C, d), with the spread of rows that belong to it by shares."""
    return Gaussians(text, spread(rows, shares, text) / shares.sum(axis=0)[:, None])


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
    """

    candidates: ClassVar = {"gamma": (0.002, 0.01, 0.02, 0.2)}
    usual: ClassVar = {"gamma": 0.02}
    n_folds: ClassVar[int] = 2
    text_weight: ClassVar[float] = 0.5

    def __init__(self, gamma: float | str = "auto") -> None:
        self.gamma = gamma

    def _estimate(
        self,
        rows: NDArray[Any],
        known: NDArray[Any],
        classes: NDArray[Any],
        anchors: Gaussians,
        **setting: float,
    ) -> Gaussians:
        asked = known == UNKNOWN
        weights = np.where(asked, 1 / asked.sum(), setting["gamma"] / max(1, (~asked).sum()))
        shares = weights[:, None] * classes
        means = shares.T.astype(rows.dtype) @ rows / shares.sum(axis=0)[:, None]
        variances = spread(rows, shares, means).sum(axis=0, keepdims=True) / weights.sum()
        return Gaussians(means, np.maximum(variances, SMALLEST_VARIANCE))


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

    def _estimate(
        self,
        rows: NDArray[Any],
        known: NDArray[Any],
        classes: NDArray[Any],
        anchors: Gaussians,
        **setting: float,
    ) -> Gaussians:
        totals = classes.sum(axis=0)[:, None] + self.alpha
        sums = classes.T.astype(rows.dtype) @ rows + self.alpha * anchors.means
        means = (sums / totals).astype(rows.dtype)
        about = anchors.variances + np.square(anchors.means - means)
        variances = (spread(rows, classes, means) + self.alpha * about) / totals
        return Gaussians(means, np.maximum(variances, SMALLEST_VARIANCE))


class EMDirichlet(TransductivePeer):
    """EM-Dirichlet [1]_: a mixture of Dirichlet distributions of zero-shot probabilities.

    A row is the softmax of its cosines to the text, sharpened by a temperature. Each class has a
    Dirichlet distribution of such rows. Labelled rows keep their class; the others get theirs by
    expectation-maximisation, whose logarithms of class shares are the paper's complexity term with
    as much weight as there are rows. Twenty rounds.

    Parameters
    ----------
    temperature : float or "auto"
        Factor of the cosines. A single sample a class: 30, the paper's.

    Notes
    -----
    Parameters of the distributions are found by Newton's method, guarded by a line search, in the
    place of the paper's majorants: both go to the only maximum. A class of a single row has none,
    so that the sum of its parameters is bounded.

    References
    ----------
    .. [1] S. Martin, Y. Huang, F. Shakeri, J.-C. Pesquet and I. Ben Ayed, "Transductive Zero-Shot
       and Few-Shot CLIP", CVPR 2024, arXiv 2405.18437.
    """

    candidates: ClassVar = {"temperature": (10.0, 30.0, 60.0, 100.0)}
    usual: ClassVar = {"temperature": 30.0}
    n_folds: ClassVar[int] = 2
    n_rounds: ClassVar[int] = 20

    def __init__(self, temperature: float | str = "auto") -> None:
        self.temperature = temperature

    def _solve(
        self,
        rows: NDArray[Any],
        known: NDArray[Any],
        text: NDArray[Any],
        shared: None,
        **setting: float,
    ) -> NDArray[Any]:
        asked = known == UNKNOWN
        cosines = (rows @ text.T).astype(np.float64)
        log_rows = log_softmax(setting["temperature"] * cosines, axis=1)
        classes = np.eye(len(text))[known]
        logits = log_rows[asked]
        parameters = np.ones((len(text), len(text)))
        for _ in range(self.n_rounds):
            classes[asked] = softmax(logits, axis=1)
            totals = classes.sum(axis=0)
            parameters = dirichlet(classes.T @ log_rows / totals[:, None], parameters)
            constants = gammaln(parameters.sum(axis=1)) - gammaln(parameters).sum(axis=1)
            logits = log_rows[asked] @ (parameters - 1).T + constants + np.log(totals / len(rows))
        return logits


MOST_CONCENTRATED = 1e4  # sum of a Dirichlet distribution's parameters


def dirichlet(log_means: NDArray[Any], parameters: NDArray[Any], n_steps: int = 2) -> NDArray[Any]:
    """Take steps towards the most likely parameters, (C, K), from others.

    ``log_means``, (C, K), are means of the logarithms of the rows of each class.
    """

    def likelihood(a: NDArray[Any]) -> NDArray[Any]:
        inside = (a > 0).all(axis=1) & (a.sum(axis=1) < MOST_CONCENTRATED)
        a = np.where(inside[:, None], a, 1.0)
        value = gammaln(a.sum(axis=1)) - gammaln(a).sum(axis=1) + (a * log_means).sum(axis=1)
        return np.where(inside, value, -np.inf)

    for _ in range(n_steps):
        total = parameters.sum(axis=1, keepdims=True)
        slope = psi(total) - psi(parameters) + log_means
        own, common = polygamma(1, parameters), polygamma(1, total)
        shift = (slope / own).sum(axis=1, keepdims=True)
        shift = shift / (1 / common - (1 / own).sum(axis=1, keepdims=True))
        step = (slope + shift) / own
        now, length = likelihood(parameters), np.ones(len(parameters))
        for _ in range(20):
            worse = likelihood(parameters + length[:, None] * step) < now
            if not worse.any():
                break
            length[worse] /= 2
        length[worse] = 0
        parameters = parameters + length[:, None] * step
    return parameters
