"""EM-Dirichlet: a mixture over zero-shot probabilities that takes in a pool of unlabelled rows.

It has not been compared with the published code, and no figure of the paper has been reproduced.
It has no answer for rows outside the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import gammaln, log_softmax, polygamma, psi, softmax

from flowalign.benchmark.unlabeled_peer import UNKNOWN, TransductivePeer

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_SHARE = 1e-15  # least share of a class in the pool
MOST_CONCENTRATED = 1e4  # largest sum of a Dirichlet distribution's parameters


class EMDirichlet(TransductivePeer):
    """EM-Dirichlet [1]_: a mixture of Dirichlet distributions of zero-shot probabilities.

    A row is the softmax of its cosines to the text, sharpened by a temperature. Each class has a
    Dirichlet distribution of such rows. Labelled rows keep their class. Rows of the pool get a
    class by twenty rounds of expectation and maximisation. These prefer classes that are frequent
    in the pool, by the paper's complexity term.

    Parameters
    ----------
    temperature : float or "auto"
        Factor of the cosines. With a single sample a class: 30, as in the paper.

    Notes
    -----
    Newton's method, guarded by a line search, finds the parameters of the distributions. The paper
    uses majorants instead; both go to the only maximum. A class with a single row has no maximum,
    so the sum of its parameters is bounded. The complexity term has the weight that makes the
    rounds expectation-maximisation: the number of rows of the pool. The paper's pools have 75 rows
    of few classes. A weight five times as large is better for such pools and much worse for pools
    of all classes, and nothing tells beforehand which kind a pool is.

    References
    ----------
    .. [1] S. Martin, Y. Huang, F. Shakeri, J.-C. Pesquet and I. Ben Ayed, "Transductive Zero-Shot
       and Few-Shot CLIP", CVPR 2024, arXiv 2405.18437.
    """

    candidates: ClassVar = {"temperature": (10.0, 30.0, 60.0)}
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
            frequencies = np.log(np.maximum(classes[asked].mean(axis=0), SMALLEST_SHARE))
            logits = log_rows[asked] @ (parameters - 1).T + constants + frequencies
        return logits


def dirichlet(log_means: NDArray[Any], parameters: NDArray[Any], n_steps: int = 2) -> NDArray[Any]:
    """Take steps from given parameters, (C, K), towards the most likely ones.

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
