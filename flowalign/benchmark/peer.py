"""The base of all peers: how they are fitted, and how they choose settings on support data."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.validation import check_is_fitted, validate_data

from flowalign.class_embeddings import class_vectors
from flowalign.embedding_forms import as_class_embeddings
from flowalign.parameters import is_auto
from flowalign.spaces import class_means, place_targets
from flowalign.sphere import CLIP_SCALE, unit_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Scorer = Callable[..., NDArray[Any]]  # features (m, d), and settings, to logits (m, C)


class Peer(ClassifierMixin, BaseEstimator, ABC):
    """Base of all peers: checks, the text in the feature space, the choice of settings.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        The labels of the class embeddings, or those of `y` if there are none.
    class_embeddings_ : ndarray of shape (C, d)
        Class embeddings in the feature space, of length 1; class means if there is no text.
    settings_ : dict
        Settings in use, chosen or given.
    chosen_on_ : {"validation data", "cross-validation", "nothing"}
        The data on which settings of "auto" were chosen.
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
            The data on which settings of "auto" are chosen.

        Returns
        -------
        Peer
            The estimator itself.

        Raises
        ------
        ValueError
            If a class has no samples, or for input that the aligner refuses too.
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
        self.class_embeddings_ = text_of(E, X, codes)
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
            self._scores.at(**self.settings_)  # train now, not at the first prediction
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the softmax of the logits, (n, C), with columns as in `classes_`."""
        return softmax(self._logits(X), axis=1)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label of the highest logit, (n,)."""
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]

    def _logits(self, X: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self)
        features = validate_data(self, X, reset=False)
        return self._scores(unit_rows(features.astype(np.float32), "X"), **self.settings_)

    def _cross_fit(
        self, X: NDArray[Any], codes: NDArray[Any], E: NDArray[Any] | None
    ) -> list[tuple[Scorer, NDArray[Any], NDArray[Any]]]:
        """Train without each fold; yield the scorer and the fold."""
        return [
            (self._train(X[a], codes[a], text_of(E, X[a], codes[a])), X[b], codes[b])
            for a, b in self._folds(X, codes)
        ]

    def _folds(self, X: NDArray[Any], codes: NDArray[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield rows to train on and rows left out; each class is in both."""
        n_folds = min(self.n_folds, int(np.bincount(codes).min()))
        return StratifiedKFold(n_folds, shuffle=True, random_state=0).split(X, codes)

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


def text_of(E: NDArray[Any] | None, X: NDArray[Any], codes: NDArray[Any]) -> NDArray[Any]:
    """Return class embeddings in the feature space, (C, d), unit rows; class means without text."""
    M = class_means(X, codes)
    text = M if E is None else place_targets(E, M, np.unique(codes), "auto")[0]
    return unit_rows(text.astype(X.dtype), "class_embeddings, mapped into the feature space,")


class PerSetting:
    """Logits of a method whose settings act in training; a setting is trained at its first use."""

    def __init__(self, learn: Callable[..., Scorer]) -> None:
        self.learn = learn
        self.learned: dict[tuple[float, ...], Scorer] = {}

    def __call__(self, X_new: NDArray[Any], **setting: float) -> NDArray[Any]:
        """Return the logits, (m, C), of features, (m, d), under a setting."""
        return self.at(**setting)(X_new)

    def at(self, **setting: float) -> Scorer:
        """Return the scorer that was trained under a setting."""
        key = tuple(setting.values())
        if key not in self.learned:
            self.learned[key] = self.learn(**setting)
        return self.learned[key]


def cosine_logits(targets: NDArray[Any], X_new: NDArray[Any]) -> NDArray[Any]:
    """Return the cosines of unit rows, (m, d), with unit targets, (C, d), times 100."""
    return CLIP_SCALE * X_new @ targets.T


def linear_logits(
    weights: NDArray[Any], offsets: NDArray[Any], X_new: NDArray[Any]
) -> NDArray[Any]:
    """Return the scores, (m, C), of weights, (C, d), and offsets, (C,)."""
    return X_new @ weights.T + offsets
