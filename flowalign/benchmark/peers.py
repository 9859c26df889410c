"""Peers of the aligner: what else classifies frozen features with a few samples a class.

All are scikit-learn classifiers with the aligner's ``fit(X, y, class_embeddings)``. Features and
text are scaled to length 1. Text that does not live in the space of the features is mapped into it
as the aligner maps it, by orthogonal Procrustes to the class means of the support set, so that all
methods see the same. Those that are trained by gradient descent are in
:mod:`flowalign.benchmark.adapters`.

A parameter of "auto" is chosen from its ``candidates``: on validation data if these are given, else
by cross-validation on the support set, else, where some class has a single sample, it is the value
in ``usual``, which the docstring gives. More hits are better; of equal ones the lower log-loss.
"""

from __future__ import annotations

import itertools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.validation import check_is_fitted, validate_data

from flowalign.class_embeddings import class_vectors
from flowalign.embedding_forms import as_class_embeddings
from flowalign.parameters import is_auto
from flowalign.spaces import class_means, place_targets
from flowalign.sphere import unit_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Scorer = Callable[..., NDArray[Any]]  # features (m, d), and settings, to logits (m, C)

LOGIT_SCALE = 100.0  # of zero-shot classification with CLIP


class Peer(ClassifierMixin, BaseEstimator, ABC):
    """What the peers share: checks, the text in the feature space, the choice of settings.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Those of the class embeddings, or of y if there are none.
    class_embeddings_ : ndarray of shape (C, d)
        In the feature space, of length 1; class means if there is no text.
    settings_ : dict
        Settings in use, chosen or given.
    chosen_on_ : {"validation data", "cross-validation", "nothing"}
        What settings of "auto" were chosen on.
    """

    candidates: ClassVar[dict[str, tuple[float, ...]]] = {}
    usual: ClassVar[dict[str, float]] = {}
    n_folds: ClassVar[int] = 4

    @abstractmethod
    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        """Learn from unit features, (n, d), their classes and unit text, (C, d)."""

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        class_embeddings: Any = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Peer:
        """Fit to labelled support samples.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.
        y : array-like of shape (n,)
            Labels.
        class_embeddings : as for :meth:`flowalign.FlowMatchingAligner.fit`
            None stands for the class means.
        X_val, y_val : array-like of shape (m, d) and (m,), or None
            What settings of "auto" are chosen on.

        Returns
        -------
        Peer
            The estimator itself.

        Raises
        ------
        ValueError
            If a class has no samples, which these methods have no answer to, or for input that the
            aligner refuses too.
        """
        features, labels = validate_data(self, X, y)
        X = unit_rows(features.astype(np.float32), "X")
        E, classes = None, np.unique(labels)
        if class_embeddings is not None:
            table = as_class_embeddings(class_embeddings, labels, fit_argument=True)
            E, classes = class_vectors(table, normalize=True), table.classes
        codes = np.searchsorted(classes, labels)
        if len(np.unique(codes)) < len(classes):
            raise ValueError(
                f"{type(self).__name__} needs a sample of each class: y has "
                f"{len(np.unique(codes))} of the {len(classes)} classes of class_embeddings."
            )
        self.classes_ = classes
        self.class_embeddings_ = _text(E, X, codes)
        self._scores = self._train(X, codes, self.class_embeddings_)
        self.chosen_on_, parts = "nothing", []
        if len(self._settings()) > 1:
            if X_val is not None:
                rows = unit_rows(np.asarray(X_val, dtype=np.float32), "X_val")
                parts = [(self._scores, rows, np.searchsorted(classes, np.asarray(y_val)))]
                self.chosen_on_ = "validation data"
            elif np.bincount(codes).min() > 1:
                parts = self._cross_fit(X, codes, E)
                self.chosen_on_ = "cross-validation"
        self.settings_ = self._choose(parts)
        if isinstance(self._scores, PerSetting):
            self._scores.at(**self.settings_)  # trained here, not when it is first asked
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Softmax of the logits: (n, C), columns as in `classes_`."""
        return softmax(self._logits(X), axis=1)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Label of the highest logit: (n,)."""
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]

    def _logits(self, X: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self)
        features = validate_data(self, X, reset=False)
        return self._scores(unit_rows(features.astype(np.float32), "X"), **self.settings_)

    def _cross_fit(
        self, X: NDArray[Any], codes: NDArray[Any], E: NDArray[Any] | None
    ) -> list[tuple[Scorer, NDArray[Any], NDArray[Any]]]:
        """Train without each fold; pair that with the fold."""
        folds = StratifiedKFold(
            min(self.n_folds, int(np.bincount(codes).min())), shuffle=True, random_state=0
        )
        return [
            (self._train(X[a], codes[a], _text(E, X[a], codes[a])), X[b], codes[b])
            for a, b in folds.split(X, codes)
        ]

    def _settings(self) -> list[dict[str, float]]:
        values = [
            self.candidates[name] if is_auto(getattr(self, name)) else (getattr(self, name),)
            for name in self.candidates
        ]
        return [
            dict(zip(self.candidates, setting, strict=True))
            for setting in itertools.product(*values)
        ]

    def _choose(self, parts: list[tuple[Scorer, NDArray[Any], NDArray[Any]]]) -> dict[str, float]:
        if not parts:
            given = {name: getattr(self, name) for name in self.candidates}
            return {k: self.usual[k] if is_auto(v) else v for k, v in given.items()}

        def quality(setting: dict[str, float]) -> tuple[int, float]:
            hits, log_likelihood = 0, 0.0
            for score, X, codes in parts:
                logits = score(X, **setting)
                hits += int((logits.argmax(axis=1) == codes).sum())
                right = np.take_along_axis(logits, codes[:, None], axis=1)[:, 0]
                log_likelihood += float((right - logsumexp(logits, axis=1)).sum())
            return hits, log_likelihood

        return max(self._settings(), key=quality)


def _text(E: NDArray[Any] | None, X: NDArray[Any], codes: NDArray[Any]) -> NDArray[Any]:
    """Class embeddings in the feature space, (C, d), unit rows; class means without any."""
    text = class_means(X, codes) if E is None else place_targets(E, X, codes, "auto")[0]
    return unit_rows(text.astype(X.dtype), "class_embeddings, mapped into the feature space,")


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
        Inverse strength of the regularisation. A single sample a class: 1, scikit-learn's.
    """

    candidates: ClassVar = {"C": (1.0, 10.0, 100.0, 1000.0)}
    usual: ClassVar = {"C": 1.0}

    def __init__(self, C: float | str = "auto") -> None:
        self.C = C

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return PerSetting(partial(_logistic, X, codes))


class PerSetting:
    """Logits of a method whose settings act in training: trained when a setting is asked for."""

    def __init__(self, learn: Callable[..., Scorer]) -> None:
        self.learn = learn
        self.learned: dict[tuple[float, ...], Scorer] = {}

    def __call__(self, X_new: NDArray[Any], **setting: float) -> NDArray[Any]:
        """Logits, (m, C), of features, (m, d), under a setting."""
        return self.at(**setting)(X_new)

    def at(self, **setting: float) -> Scorer:
        """Return what was trained under a setting."""
        key = tuple(setting.values())
        if key not in self.learned:
            self.learned[key] = self.learn(**setting)
        return self.learned[key]


def _logistic(X: NDArray[Any], codes: NDArray[Any], *, C: float) -> Scorer:
    with warnings.catch_warnings():
        # At large C the last digits would cost most of the time. Few samples a class are the rule.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        model = LogisticRegression(C=C, max_iter=150).fit(X, codes)
    weights, offsets = model.coef_, model.intercept_
    if len(weights) == 1:  # of two classes it keeps the second's
        weights, offsets = np.vstack([0 * weights, weights]), np.append(0 * offsets, offsets)
    return partial(linear_logits, weights, offsets)


class GDA(Peer):
    """GDA-CLIP [1]_: Gaussian discriminant analysis, blended with zero-shot classification.

    Classes share a covariance, whose inverse is that of Kubokawa and Srivastava as in the paper;
    with one sample a class the scatter is about the grand mean.

    Parameters
    ----------
    alpha : float or "auto"
        Weight of the discriminant beside the zero-shot logits; infinity leaves these out. A single
        sample a class: 1.

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
        # The inverse exists unless there is no scatter at all; then all directions are alike.
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
        Weight and sharpness of the votes. A single sample a class: 1 and 5.5, the paper's.

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


def cosine_logits(targets: NDArray[Any], X_new: NDArray[Any]) -> NDArray[Any]:
    """Cosine of unit rows, (m, d), with unit targets, (C, d), times 100."""
    return LOGIT_SCALE * X_new @ targets.T


def linear_logits(
    weights: NDArray[Any], offsets: NDArray[Any], X_new: NDArray[Any]
) -> NDArray[Any]:
    """Return the scores, (m, C), of weights, (C, d), and offsets, (C,)."""
    return X_new @ weights.T + offsets
