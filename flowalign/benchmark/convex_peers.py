"""Peers that solve one convex problem in which the text has a part.

ProLIP and TIMO are not here, since they need more than a feature set holds: the features before the
encoder's last projection, and several prompts of each class.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.linalg import solve

from flowalign.benchmark.peer import Peer, PerSetting
from flowalign.benchmark.peers import logistic
from flowalign.sphere import CLIP_SCALE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.benchmark.peer import Scorer


class ProKeR(Peer):
    r"""ProKeR [1]_: kernel ridge regression of the residuals of zero-shot classification.

    The scores :math:`f` minimise :math:`\sum_i |y_i - f(x_i)|^2 + \lambda |f - f_0|^2_H` over
    one-hot :math:`y`. :math:`f_0` are the cosines to the class embeddings, and :math:`H` is the
    space of the kernel :math:`k(x, x') = \exp(-\beta (1 - x^T x'))`. Then :math:`f(x) = f_0(x) +
    k(x, S) (K + \lambda I)^{-1} (Y - f_0(S))` for the support set :math:`S`. Logits are 100 times
    the scores, as for zero-shot classification.

    The published code has the same cosines, labels and kernel, but multiplies the second term by
    :math:`\lambda`, which does not give the minimum above. If the kernel matrix is the identity,
    the code's :math:`\lambda` has the effect of :math:`1 / \lambda` here. The candidates span the
    code's values of 0.01 to 10, read both ways. (The code chooses from 200 pairs, here it is 20.)

    Parameters
    ----------
    beta : float or "auto"
        Sharpness of the kernel. With a single sample a class: 3, as in the published code.
    ridge : float or "auto"
        :math:`\lambda`; the larger, the nearer to zero-shot. With a single sample a class: 20, for
        the published code's 0.05.

    References
    ----------
    .. [1] Y. Bendou et al., "ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large
       Vision-Language Models", CVPR 2025, arXiv 2501.11175.

    Examples
    --------
    >>> from flowalign.benchmark.convex_peers import ProKeR
    >>> from flowalign.datasets import make_cross_modal
    >>> data = make_cross_modal(random_state=0)
    >>> peer = ProKeR().fit(data.X_train, data.y_train, data.class_embeddings)
    >>> peer.predict_proba(data.X_test).shape == (len(data.X_test), len(peer.classes_))
    True
    """

    candidates: ClassVar = {"beta": (0.3, 1.0, 3.0, 10.0), "ridge": (0.01, 0.1, 1.0, 10.0, 100.0)}
    usual: ClassVar = {"beta": 3.0, "ridge": 20.0}

    def __init__(self, beta: float | str = "auto", ridge: float | str = "auto") -> None:
        self.beta = beta
        self.ridge = ridge

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return PerSetting(partial(_proximal, X, codes, text))


def _proximal(
    X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any], *, beta: float, ridge: float
) -> Scorer:
    residuals = np.eye(len(text), dtype=X.dtype)[codes] - X @ text.T
    system = _kernel(X, X, beta)
    system[np.diag_indices(len(X))] += ridge
    return partial(_corrected, X, text, solve(system, residuals, assume_a="pos"), beta)


def _corrected(
    X: NDArray[Any],
    text: NDArray[Any],
    weights: NDArray[Any],
    beta: float,
    X_new: NDArray[Any],
) -> NDArray[Any]:
    return CLIP_SCALE * (X_new @ text.T + _kernel(X_new, X, beta) @ weights)


def _kernel(A: NDArray[Any], B: NDArray[Any], beta: float) -> NDArray[Any]:
    return np.exp(-beta * (1 - A @ B.T))


class CrossModalProbe(Peer):
    """Cross-modal linear probe [1]_: class embeddings are also samples of a linear classifier.

    Logistic regression of scikit-learn on the features and the text together. An embedding counts
    as one sample of its class. The paper starts AdamW from the text and stops it early, on
    validation data. Here the optimum is found and its regularisation chosen, as for
    :class:`~flowalign.benchmark.peers.LinearProbe`. In a joint space, with one sample a class, the
    optimum can be below zero-shot. (In the published code half of each batch is text, so that an
    embedding weighs as much as all samples of its class.)

    Parameters
    ----------
    C : float or "auto"
        Inverse strength of the regularisation. With a single sample a class: 10,000, which equals
        scikit-learn's 1 for features that are multiplied by 100, as in the paper.

    References
    ----------
    .. [1] Z. Lin et al., "Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with
       Multimodal Models", CVPR 2023, arXiv 2301.06267.
    """

    candidates: ClassVar = {"C": (1.0, 10.0, 100.0, 1000.0, 10_000.0)}
    usual: ClassVar = {"C": 10_000.0}

    def __init__(self, C: float | str = "auto") -> None:
        self.C = C

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        rows = np.vstack([X, text])
        return PerSetting(partial(logistic, rows, np.append(codes, np.arange(len(text)))))
