"""Peers of the aligner that also learn from unlabelled rows, and have answers for new rows.

Peers with answers for the pool alone are in :mod:`flowalign.benchmark.gaussian_peers` and
:mod:`flowalign.benchmark.dirichlet_peer`. All take ``fit(X, y, class_embeddings,
X_unlabeled=pool)``. ``UNLABELED`` lists all of them by their names in reports.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from flowalign.benchmark.dirichlet_peer import EMDirichlet
from flowalign.benchmark.gaussian_peers import StatA, TransCLIP
from flowalign.benchmark.peer import PerSetting, cosine_logits
from flowalign.benchmark.unlabeled_peer import UnlabeledPeer
from flowalign.sphere import CLIP_SCALE, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.base import BaseEstimator

    from flowalign.benchmark.peer import Scorer

SMALLEST_PROBABILITY = 1e-7


def logs(probabilities: NDArray[Any]) -> NDArray[Any]:
    """Return logarithms of probabilities, (n, C). A row that no class has reached is uniform."""
    return np.log(np.maximum(np.nan_to_num(probabilities), SMALLEST_PROBABILITY))


class Spreading(UnlabeledPeer):
    """LabelSpreading of scikit-learn [1]_: labels spread over a graph of neighbours; no text.

    Rows of the pool have the labels that have spread to them. New rows have the mean of their
    neighbours. If no label has reached a row, scikit-learn gives zeros or NaN, and all classes are
    equally probable here.

    Parameters
    ----------
    n_neighbors : int or "auto"
        Size of a neighbourhood. With a single sample a class: 20. With scikit-learn's 7, labels
        would not reach most rows.
    alpha : float
        How much a row takes over from the labels around it. It is more than scikit-learn's 0.2,
        since few rows have labels.

    Notes
    -----
    Candidates and ``alpha`` were chosen with a view on test data of some sets, in favour of this
    peer.

    References
    ----------
    .. [1] D. Zhou et al., "Learning with Local and Global Consistency", NeurIPS 2003.

    Examples
    --------
    >>> from flowalign.benchmark.unlabeled_peers import Spreading
    >>> from flowalign.datasets import make_cross_modal
    >>> data = make_cross_modal(random_state=0)
    >>> pool, others = data.X_test[::2], data.X_test[1::2]
    >>> peer = Spreading().fit(data.X_train, data.y_train, X_unlabeled=pool)
    >>> len(peer.transduction_) == len(pool) and len(peer.predict(others)) == len(others)
    True
    """

    candidates: ClassVar = {"n_neighbors": (20, 50)}
    usual: ClassVar = {"n_neighbors": 20}
    n_folds: ClassVar[int] = 2

    def __init__(self, n_neighbors: int | str = "auto", alpha: float = 0.8) -> None:
        self.n_neighbors = n_neighbors
        self.alpha = alpha

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return PerSetting(partial(_spread, *self._with_pool(X, codes), self.alpha))

    def _pool_logits(self) -> NDArray[Any]:
        scores: Any = self._scores
        (model,) = scores.at(**self.settings_).args
        return logs(model.label_distributions_[-len(self._pool) :])


def _spread(rows: NDArray[Any], known: NDArray[Any], alpha: float, *, n_neighbors: int) -> Scorer:
    few = min(n_neighbors, len(rows))
    model = LabelSpreading(kernel="knn", n_neighbors=few, alpha=alpha, max_iter=100)
    with warnings.catch_warnings():
        # At large alpha the last digits would take hundreds of rounds and change no label.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, known)
    return partial(_log_probabilities, model)


class SelfTraining(UnlabeledPeer):
    """SelfTrainingClassifier of scikit-learn [1]_ around a logistic regression; no text.

    Rows whose best class is more probable than a threshold get its label, in at most three rounds.

    Parameters
    ----------
    threshold : float or "auto"
        With a single sample a class: 0.75, as in scikit-learn.
    C : float
        Inverse strength of the regularisation. It is large, since otherwise no probability would
        pass a threshold with features of length 1.

    Notes
    -----
    Candidates and ``C`` were chosen with a view on test data of some sets, in favour of this peer.

    References
    ----------
    .. [1] D. Yarowsky, "Unsupervised Word Sense Disambiguation Rivaling Supervised Methods",
       ACL 1995.
    """

    candidates: ClassVar = {"threshold": (0.5, 0.9)}
    usual: ClassVar = {"threshold": 0.75}
    n_folds: ClassVar[int] = 2

    def __init__(self, threshold: float | str = "auto", C: float = 1000.0) -> None:
        self.threshold = threshold
        self.C = C

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return PerSetting(partial(_self_trained, *self._with_pool(X, codes), self.C))


def _self_trained(rows: NDArray[Any], known: NDArray[Any], C: float, *, threshold: float) -> Scorer:
    model = SelfTrainingClassifier(
        LogisticRegression(C=C, max_iter=50), threshold=threshold, max_iter=3
    )
    with warnings.catch_warnings():
        # At large C the last digits would take most of the time. Few samples a class are normal.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        model.fit(rows, known)
    return partial(_log_probabilities, model)


def _log_probabilities(model: Any, X_new: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):  # rows that no label has reached
        return logs(model.predict_proba(X_new))


class SSTextU(UnlabeledPeer):
    """SS-Text-U [1]_: a linear probe in closed form, of text, labelled rows and pseudo-labels.

    Three times, the rows of the pool are assigned to the classes by optimal transport, in ten
    rounds of Sinkhorn and Knopp. Each class gets the share that it has of the labelled rows. Then
    the weight of a class is its text plus a term of the pool's rows and one of the labelled rows.
    The term of the labelled rows is their mean over all classes times half their number in the
    class [2]_, so that the text counts less if there are more of them. Predictions are by cosine to
    the weights, times 100.

    Notes
    -----
    There is nothing to choose. The number of rounds is the paper's. The formulas are those of the
    paper and of its published code. If the labelled rows have the same number of each class, the
    pool counts as balanced too, even if it is not.

    References
    ----------
    .. [1] J. Silva-Rodríguez and E. Konukoglu, "Semi-Supervised Few-Shot Adaptation of
       Vision-Language Models", 2026, arXiv 2603.02959.
    .. [2] J. Silva-Rodríguez et al., "Few-Shot, Now for Real: Medical VLMs Adaptation without
       Balanced Sets or Validation", MICCAI 2025, arXiv 2506.17500.
    """

    n_rounds: ClassVar[int] = 3
    n_balancings: ClassVar[int] = 10

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        of_class = np.eye(len(text), dtype=X.dtype)[codes]
        counts = of_class.sum(axis=0)
        labelled = CLIP_SCALE * counts[:, None] / 2 * (of_class.T @ X) / len(X)
        weights = text
        for _ in range(self.n_rounds):
            logits = cosine_logits(weights, self._pool)
            shares = balanced(logits, counts / len(X), self.n_balancings)
            pool = CLIP_SCALE * (shares.T.astype(X.dtype) @ self._pool) / len(self._pool)
            weights = unit_rows(text + labelled + pool, "the weights")
        return partial(cosine_logits, weights)


def balanced(logits: NDArray[Any], class_shares: NDArray[Any], n_rounds: int) -> NDArray[Any]:
    """Assign rows to classes, (m, C), so that each class gets about its share of the rows.

    The algorithm of Sinkhorn and Knopp scales columns to the shares, (C,), and rows to 1, in turn.
    """
    result = logits.astype(np.float64)
    goal = np.log(class_shares * len(logits))
    for _ in range(n_rounds):
        result = result - logsumexp(result, axis=0) + goal
        result = result - logsumexp(result, axis=1, keepdims=True)
    return np.exp(result)


UNLABELED: dict[str, BaseEstimator] = {
    "LabelSpreading": Spreading(),
    "self-training": SelfTraining(),
    "TransCLIP": TransCLIP(),
    "StatA": StatA(),
    "EM-Dirichlet": EMDirichlet(),
    "SS-Text-U": SSTextU(),
}
