"""The predicting half of several views: from rows, some of which lack views, to classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)

from flowalign import blocks, experts, inputs, parameters
from flowalign.views import ViewPart, ViewRows, in_view, view_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.aligner import FlowMatchingAligner


class MultiViewClassifier(ClassifierMixin, TransformerMixin):
    """Multiplies what the aligners of views say of rows, over the views that each row has."""

    if TYPE_CHECKING:  # set by the constructor and by fit
        views: list[Any]
        unknown_label: Any
        unknown_rate: float
        classes_: NDArray[Any]
        class_prior_: NDArray[Any]
        view_weights_: NDArray[np.float64]
        views_: list[tuple[str, FlowMatchingAligner, Any]]
        _ratios: NDArray[np.float32]

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the label of each row.

        Parameters
        ----------
        X : array-like or frame of shape (n, d)
            Features of all views; NaN in all columns of a view that a row lacks.

        Returns
        -------
        ndarray of shape (n,)
            Labels out of `classes_`. If `unknown_label` is set, rows whose :meth:`score_samples` is
            too low get that label.
        """
        return self._labels_of(self._rows_of(X))

    def _labels_of(self, rows: list[ViewRows]) -> NDArray[Any]:
        codes = [self._log_joint(part, first).argmax(axis=1) for first, part in self._parts(rows)]
        found = np.concatenate(codes)
        if self.unknown_label is None:
            return self.classes_[found]
        found[self._scores(rows) < self._thresholds(rows)] = -1
        return parameters.labels_with_unknown(self.classes_, self.unknown_label)[found]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like or frame of shape (n, d)
            As of :meth:`predict`.

        Returns
        -------
        ndarray of shape (n, C)
            Rows sum to one; columns follow `classes_`.
        """
        return self._proba_of(self._rows_of(X))

    def _proba_of(self, rows: list[ViewRows]) -> NDArray[Any]:
        return self._collected(rows, lambda joint: softmax(joint, axis=1))

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Logarithm of :meth:`predict_proba`, finite for the smallest probabilities too.

        Parameters
        ----------
        X : array-like or frame of shape (n, d)
            As of :meth:`predict`.

        Returns
        -------
        ndarray of shape (n, C)
        """
        return self._collected(self._rows_of(X), lambda joint: log_softmax(joint, axis=1))

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Score of each class, whose softmax is its probability.

        Parameters
        ----------
        X : array-like or frame of shape (n, d)
            As of :meth:`predict`.

        Returns
        -------
        ndarray of shape (n, C)
            The log-probability of the prior, plus what each view adds to it, times the weight of
            the view. For two classes of shape (n,): the score of ``classes_[1]`` minus that of
            ``classes_[0]``.
        """
        scores = self._collected(self._rows_of(X), lambda joint: joint)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def score_samples(self, X: Any) -> NDArray[Any]:
        """How much each row looks like a known class: high if it does, low if it looks like none.

        Parameters
        ----------
        X : array-like or frame of shape (n, d)
            As of :meth:`predict`.

        Returns
        -------
        ndarray of shape (n,)
            For the best class, the sum over the views of a row of their evidence as in
            :meth:`FlowMatchingAligner.score_samples`, times their weights. Do not compare rows that
            lack a view with other rows.
        """
        return self._scores_of(self._rows_of(X))

    def _scores_of(self, rows: list[ViewRows]) -> NDArray[Any]:
        return self._scores(rows).astype(_dtype(rows))

    def transform(self, X: Any) -> NDArray[Any]:
        """Aligned features of all views, side by side.

        Parameters
        ----------
        X : array-like or frame of shape (n, d)
            As of :meth:`predict`.

        Returns
        -------
        ndarray of shape (n, sum of the widths of the views)
            NaN in the columns of views that a row lacks.
        """
        return self._aligned(self._rows_of(X))

    def _aligned(self, rows: list[ViewRows]) -> NDArray[Any]:
        aligned = [
            np.where(
                view.present[:, None],
                in_view(name, aligner._read, view.features, view.integers, lambda row: row.last),
                np.nan,
            )
            for (name, aligner, _), view in zip(self.views_, rows, strict=True)
        ]
        return np.hstack(aligned).astype(_dtype(rows), copy=False)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[Any]:
        """Names of the columns of :meth:`transform`: those of each view, behind its name.

        Parameters
        ----------
        input_features : array-like of str or None
            Names of the columns of X; not used but to be checked.

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        names = [
            f"{name}__{feature}"
            for name, aligner, _ in self.views_
            for feature in aligner.get_feature_names_out()
        ]
        return np.array(names, dtype=object)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Share of right predictions.

        Parameters
        ----------
        X : array-like or frame of shape (n, d)
            As of :meth:`predict`.
        y : array-like of shape (n,)
            Their labels.
        sample_weight : array-like of shape (n,) or None, default=None
            Weight of each sample.

        Returns
        -------
        float
        """
        labels = inputs.as_numpy(y, "y")
        return super().score(X, labels, inputs.as_numpy(sample_weight, "sample_weight"))

    @property
    def support_scores_(self) -> NDArray[np.float32]:
        """Scores of support samples that have all views, by models without them, ascending."""
        return self._support_scores(np.ones(len(self.view_weights_), dtype=bool))

    @property
    def unknown_threshold_(self) -> float:
        """Score below which `predict` refuses a row that has all views."""
        try:
            parameters.check_labels(self.get_params(deep=False))
        except (TypeError, ValueError) as error:  # shown whatever the parameters are now
            raise AttributeError(str(error)) from error
        return self._threshold(self.support_scores_)

    def _support_scores(self, present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Scores, by these views alone, of support samples that have them, ascending."""
        ratios = self._ratios[:, present]
        ratios = ratios[~np.isnan(ratios[:, :, 0]).any(axis=1)]
        scores = (self.view_weights_[present, None] * ratios).sum(axis=1).max(axis=1)
        return np.sort(scores).astype(np.float32)

    def _threshold(self, support_scores: NDArray[np.float32]) -> float:
        if not len(support_scores):
            return -np.inf
        return float(np.quantile(support_scores, self.unknown_rate))

    def _thresholds(self, rows: list[ViewRows]) -> NDArray[np.float64]:
        """Return the threshold of each row, (n,)."""
        present = np.stack([view.present for view in rows], axis=1)
        patterns, which = np.unique(present, axis=0, return_inverse=True)
        found = [self._threshold(self._support_scores(pattern)) for pattern in patterns]
        return np.array(found)[which.ravel()]

    def _scores(self, rows: list[ViewRows]) -> NDArray[np.float64]:
        scores = []
        for first, part in self._parts(rows):
            total = np.zeros((len(part[0].present), len(self.classes_)))
            for weight, (name, aligner, _), view in zip(
                self.view_weights_, self.views_, part, strict=True
            ):
                given = view.features, view.integers, lambda row: row.ratios, 0
                ratios = in_view(name, aligner._read, *given, first=first)
                total += weight * np.where(view.present[:, None], ratios, 0)
            scores.append(total.max(axis=1))
        return np.concatenate(scores)

    def _said(self, part: list[ViewRows], first: int) -> Iterator[NDArray[np.float64]]:
        """Yield what each view adds to the log-probabilities, (n, C); 0 for rows that lack it."""
        for weight, (name, aligner, _), view in zip(
            self.view_weights_, self.views_, part, strict=True
        ):
            said = in_view(name, aligner._log_proba, view.features, view.integers, first=first)
            said = experts.beyond_prior(said, aligner.class_prior_)
            yield weight * np.where(view.present[:, None], said, 0)

    def _log_joint(self, part: list[ViewRows], first: int) -> NDArray[np.float64]:
        """Log-probabilities of the classes, (n, C), up to a number for each row."""
        total = np.tile(np.log(self.class_prior_), (len(part[0].present), 1))
        for said in self._said(part, first):
            total += said
        return total

    def _collected(
        self,
        rows: list[ViewRows],
        read: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    ) -> NDArray[Any]:
        found = [read(self._log_joint(part, first)) for first, part in self._parts(rows)]
        return np.concatenate(found).astype(_dtype(rows), copy=False)

    def _parts(self, rows: list[ViewRows]) -> Iterator[tuple[int, list[ViewRows]]]:
        """Cut rows into parts of bounded memory; with the number of the first row."""
        row_bytes = 8 * len(self.classes_)
        for part in blocks.slices(len(rows[0].present), max(1, blocks.STREAM_BYTES // row_bytes)):
            yield part.start, [view[part] for view in rows]

    def _rows_of(self, X: Any) -> list[ViewRows]:
        """Check new rows, and return them as the views have them."""
        check_is_fitted(self)
        parameters.check_labels(self.get_params(deep=False))
        parameters.check_unknown_label(self.unknown_label, self.classes_)
        rows = view_rows(self._check_X(X), self._view_parts())
        if not len(rows[0].present):
            raise ValueError("X has 0 sample(s), and at least one is required.")
        return rows

    def _view_parts(self) -> list[ViewPart]:
        """Name, columns and width of each fitted view."""
        return [(name, columns, view.n_features_in_) for name, view, columns in self.views_]

    def _unlabeled(self, X_unlabeled: Any, parts: list[ViewPart]) -> list[ViewRows]:
        try:
            X = self._check_X(X_unlabeled)
        except (TypeError, ValueError) as error:
            raise type(error)(f"X_unlabeled must have columns like X: {error}") from error
        return view_rows(X, parts, "X_unlabeled")

    def _answer_to_none(self, method: str, X: Any) -> NDArray[Any]:
        """Return what a method says of zero rows: of the width and dtype that it has for others."""
        validate_data(self, X, reset=False, skip_check_array=True)
        arrays = [aligner.class_embeddings_[:1] for _, aligner, _ in self.views_]
        one = [ViewRows(a, np.ones(1, dtype=bool), True, None) for a in arrays]
        answers = {
            "predict": self._labels_of,
            "predict_proba": self._proba_of,
            "score_samples": self._scores_of,
            "transform": self._aligned,
        }
        found = answers[method](one)[:0]
        wide = found.dtype.kind == "f" and np.asarray(X).dtype != np.float32
        return found.astype(np.float64) if wide else found

    def _check_X(self, X: Any, *, reset: bool = False) -> Any:
        """Check the names and number of columns; frames stay frames."""
        several = isinstance(X, Mapping) or (
            isinstance(X, list | tuple) and any(len(getattr(part, "shape", ())) > 1 for part in X)
        )
        if several and not hasattr(X, "shape"):  # as some sparse matrices, which are mappings, have
            raise ValueError(
                f"X must have the columns of all views side by side, got a {type(X).__name__} of "
                "several arrays; put them together with numpy.hstack, or in a DataFrame."
            )
        if inputs.column_names(X) is not None:
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        return validate_data(
            self,
            inputs.as_numpy(X, "X"),
            reset=reset,
            dtype="numeric",
            ensure_all_finite="allow-nan",
            ensure_min_samples=0,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _dtype(rows: list[ViewRows]) -> np.dtype[Any]:
    """Return the dtype of results: as wide as the widest features."""
    return np.result_type(*(view.features for view in rows))
