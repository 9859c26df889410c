"""Peers of the aligner: other methods that classify frozen features with a few samples a class.

All are scikit-learn classifiers with the aligner's ``fit(X, y, class_embeddings)``. Features and
text are scaled to length 1. Text of another space is mapped into the space of the features as by
the aligner, by orthogonal Procrustes to the class means of the support set, so that all methods see
the same text. Peers that are trained by gradient descent are in
:mod:`flowalign.benchmark.adapters`.

A parameter of "auto" is chosen from its ``candidates``: on validation data if they are given, else
by cross-validation on the support set. If some class has a single sample, cross-validation is not
possible, and the value in ``usual`` is taken, which the docstring gives. More hits are better, and
with equal hits the lower log-loss.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from flowalign.benchmark.peer import Peer, PerSetting, cosine_logits, linear_logits
from flowalign.spaces import class_means
from flowalign.sphere import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.benchmark.peer import Scorer


class ZeroShot(Peer):
    """Cosine similarity to the embeddings of the class names, times 100 [1]_.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language
       Supervision", ICML 2021.

    Examples
    --------
    >>> from flowalign.benchmark.peers import ZeroShot
    >>> from flowalign.datasets import make_cross_modal
    >>> data = make_cross_modal(random_state=0)
    >>> peer = ZeroShot().fit(data.X_train, data.y_train, data.class_embeddings)
    >>> peer.predict_proba(data.X_test).shape == (len(data.X_test), len(peer.classes_))
    True
    """

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return partial(cosine_logits, text)


class NearestClassMean(Peer):
    """Cosine similarity to the mean of each class, times 100: prototypes [1]_ without training.

    References
    ----------
    .. [1] J. Snell, K. Swersky and R. Zemel, "Prototypical Networks for Few-shot Learning",
       NeurIPS 2017.
    """

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return partial(cosine_logits, unit_rows(class_means(X, codes), "the class means"))


class LinearProbe(Peer):
    """Logistic regression of scikit-learn on the features; no text.

    Parameters
    ----------
    C : float or "auto"
        Inverse strength of the regularisation. With a single sample a class: 1, as in scikit-learn.
    """

    candidates: ClassVar = {"C": (1.0, 10.0, 100.0, 1000.0)}
    usual: ClassVar = {"C": 1.0}

    def __init__(self, C: float | str = "auto") -> None:
        self.C = C

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return PerSetting(partial(logistic, X, codes))


def logistic(X: NDArray[Any], codes: NDArray[Any], *, C: float) -> Scorer:
    """Fit scikit-learn's logistic regression to unit rows, (n, d); return its scores."""
    with warnings.catch_warnings():
        # At large C the last digits would take most of the time. Few samples a class are normal.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        model = LogisticRegression(C=C, max_iter=150).fit(X, codes)
    weights, offsets = model.coef_, model.intercept_
    if len(weights) == 1:  # with two classes, scikit-learn keeps the weights of the second alone
        weights, offsets = np.vstack([0 * weights, weights]), np.append(0 * offsets, offsets)
    return partial(linear_logits, weights, offsets)


class GDA(Peer):
    """GDA-CLIP [1]_: Gaussian discriminant analysis, blended with zero-shot classification.

    Classes share a covariance. Its inverse is that of Kubokawa and Srivastava, as in the paper.
    With one sample a class the scatter is about the mean of all samples.

    Parameters
    ----------
    alpha : float or "auto"
        Weight of the discriminant, where the zero-shot logits have 1; infinity leaves out the
        zero-shot logits. With a single sample a class: 1.

    References
    ----------
    .. [1] Z. Wang et al., "A Hard-to-Beat Baseline for Training-Free CLIP-Based Adaptation",
       ICLR 2024, arXiv 2402.04087.
    """

    candidates: ClassVar = {"alpha": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)}
    usual: ClassVar = {"alpha": 1.0}

    def __init__(self, alpha: float | str = "auto") -> None:
        self.alpha = alpha

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        n, d = X.shape
        means = class_means(X, codes)
        residuals = X - (means[codes] if n > len(means) else X.mean(axis=0))
        scatter = residuals.T @ residuals
        ridge = np.trace(scatter) / max(1, n - 1)
        # The inverse exists unless there is no scatter at all; then all directions are equal.
        scatter[np.diag_indices(d)] += ridge or 1.0
        weights = d * np.linalg.solve(scatter, means.T)
        offsets = -(weights * means.T).sum(axis=0) / 2
        return partial(_discriminant, weights.T, offsets, text)


def _discriminant(
    weights: NDArray[Any],
    offsets: NDArray[Any],
    text: NDArray[Any],
    X_new: NDArray[Any],
    alpha: float,
) -> NDArray[Any]:
    logits = linear_logits(weights, offsets, X_new)
    return logits if np.isinf(alpha) else cosine_logits(text, X_new) + alpha * logits


class TipAdapter(Peer):
    """Tip-Adapter [1]_ without training: zero-shot logits plus votes of the support samples.

    A sample at cosine similarity a votes for its class with ``alpha * exp(-beta * (1 - a))``.

    Parameters
    ----------
    alpha, beta : float or "auto"
        Weight and sharpness of the votes. With a single sample a class: 1 and 5.5, as in the paper.

    References
    ----------
    .. [1] R. Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot
       Classification", ECCV 2022, arXiv 2207.09519.
    """

    candidates: ClassVar = {"alpha": (0.3, 1.0, 3.0, 10.0, 30.0, 100.0), "beta": (1.0, 5.5, 20.0)}
    usual: ClassVar = {"alpha": 1.0, "beta": 5.5}

    def __init__(self, alpha: float | str = "auto", beta: float | str = "auto") -> None:
        self.alpha = alpha
        self.beta = beta

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return partial(_votes, self._keys(X, codes, text), codes, text)

    def _keys(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> NDArray[Any]:
        return X


def _votes(
    keys: NDArray[Any],
    codes: NDArray[Any],
    text: NDArray[Any],
    X_new: NDArray[Any],
    alpha: float,
    beta: float,
) -> NDArray[Any]:
    values = np.eye(len(text), dtype=keys.dtype)[codes]
    return cosine_logits(text, X_new) + alpha * (np.exp(-beta * (1 - X_new @ keys.T)) @ values)
