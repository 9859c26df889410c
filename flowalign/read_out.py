"""The classifying half of the aligner: from a row and its state at the stop to its class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from flowalign import inputs, ode, parameters, sphere, stopping
from flowalign.flow_transformer import FlowTransformer
from flowalign.held_out import NO_SAMPLES
from flowalign.solved_rows import SolvedRows
from flowalign.stopping import ReadOut

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.gaussian.posterior import Classifier


class FlowClassifier(FlowTransformer, ClassifierMixin):
    """Reads the classes out of rows and their states: scores, probabilities, labels."""

    if TYPE_CHECKING:  # set by the constructor and by fit
        logit_scale: float | str
        stop_source_: str | None
        stop_scores_: dict[str, NDArray[Any]] | None
        unknown_label: Any
        unknown_rate: float
        _classifier: Classifier | None

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict the label of each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n,)
            Labels out of `classes_`, of equally good ones the first. If `unknown_label` is set,
            rows whose :meth:`score_samples` is below `unknown_threshold_` get that label.
        """
        read_out = self._read_out(scaled=False)
        codes = self._at_stop(X, lambda rows: self._codes(rows, self._scores(rows, read_out)))
        return self._labels(codes)

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Score of each class, whose softmax is its probability.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n, C)
            `logit_scale_` times the sum of two terms: the cosine to the class embedding at the
            stop, and `posterior_weight_` times the log-probability that the model of the classes
            gives to the row before it moves. For two classes of shape (n,): the score of
            ``classes_[1]`` minus that of ``classes_[0]``.
        """
        read_out = self._read_out()
        two = len(self.classes_) == 2

        def read(rows: SolvedRows) -> Tensor:
            scores = self._scores(rows, read_out)
            return read_out.logit_scale * (scores if two else scores + rows.common_cosine())

        scores = self._at_stop(X, read)
        return scores[:, 1] - scores[:, 0] if two else scores

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Softmax of the scores of the classes; calibrated if `logit_scale` is "auto".

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n, C)
            Rows sum to one; columns follow `classes_`.
        """
        read_out = self._read_out()
        return self._at_stop(X, lambda rows: self._proba(rows, read_out))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Logarithm of :meth:`predict_proba`, finite for the smallest probabilities too.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n, C)
        """
        return self._log_proba(*self._features(X))

    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """How much each row looks like a known class: high if it does, low if it looks like none.

        The score does not depend on the steps.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n,)
            The log-density of the best class minus that of a class never seen, times the weight of
            the density; in a joint space plus the weighted cosines to the embedding of the class.
            Compare scores with each other and with `unknown_threshold_`; their size has no other
            meaning. Without samples the score is 100 times the largest cosine to a class embedding.

        See Also
        --------
        flowalign.gaussian.GaussianModel.log_relative_density : The ratio alone.
        """
        return self._at_stop(X, lambda rows: rows.scores, n_steps=0)

    def staged_predict(self, X: ArrayLike) -> Iterator[NDArray[Any]]:
        """Yield the predicted labels after 0, 1, 2, ... steps.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Yields
        ------
        ndarray of shape (n,)
        """
        check_is_fitted(self)
        parameters.check_unknown_label(self.unknown_label, self.classes_)

        def read(rows: SolvedRows, read_out: ReadOut, step: int) -> Tensor:
            return self._codes(rows, self._scores(rows, read_out, step))

        yield from map(self._labels, self._staged(X, read, scaled=False))

    def staged_predict_proba(self, X: ArrayLike) -> Iterator[NDArray[Any]]:
        """Yield the class probabilities after 0, 1, 2, ... steps.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Yields
        ------
        ndarray of shape (n, C)
        """
        yield from self._staged(X, self._proba, scaled=True)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Share of right predictions.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.
        y : array-like of shape (n,)
            True labels.
        sample_weight : array-like of shape (n,) or None, default=None
            Weight of each sample.

        Returns
        -------
        float
        """
        labels, predicted = (inputs.as_numpy(part, "y") for part in (y, self.predict(X)))
        weights = inputs.as_numpy(sample_weight, "sample_weight")
        return float(accuracy_score(labels, predicted, sample_weight=weights))

    @property
    def logit_scale_(self) -> float:
        """What the scores are multiplied by now."""
        check_is_fitted(self)
        return self._read_out_at(self.stop_time_).logit_scale

    @property
    def posterior_weight_(self) -> float:
        """Weight of the log-probabilities of the model in the scores now; 0 for zero steps."""
        check_is_fitted(self)
        return self._read_out_at(self.stop_time_, scaled=False).posterior_weight

    def _read_out(self, *, scaled: bool = True) -> ReadOut:
        check_is_fitted(self)
        parameters.check_predict_parameters(self.get_params(deep=False))
        parameters.check_unknown_label(self.unknown_label, self.classes_)
        return self._read_out_at(self.stop_time_, scaled=scaled)

    def _read_out_at(self, time: float, *, scaled: bool = True) -> ReadOut:
        """How to read out a time; unless `scaled`, the temperature is of no concern."""
        automatic = parameters.is_auto(self.logit_scale)
        if self._classifier is not None and time > 0:
            otherwise = stopping.CALIBRATED
        else:
            zero_shot = self.stop_source_ == NO_SAMPLES
            otherwise = ReadOut(sphere.CLIP_SCALE if zero_shot else stopping.PRIOR_SCALE, 0.0)
            if scaled and automatic and self.stop_source_ is None:
                raise NotFittedError(
                    "logit_scale='auto' was set after a fit with a number, in which nothing was "
                    "calibrated. Fit again, or set a number."
                )
        found = stopping.read_out_at(time, self.stop_scores_, otherwise)
        if automatic:
            return found
        return found._replace(logit_scale=self.logit_scale)  # type: ignore[arg-type]

    @property
    def unknown_threshold_(self) -> float:
        """Score of samples below which `predict` refuses a row, if `unknown_label` is set."""
        self._check_attributes()
        scores = self._arrays["support_scores_"]
        if scores is None or not len(scores):
            return -np.inf
        return float(np.quantile(scores, self.unknown_rate))

    def _scores(self, rows: SolvedRows, read_out: ReadOut, step: int = -1) -> Tensor:
        """Scores of the classes after a step, (n, C), not yet scaled, less their common part.

        This changes neither labels nor probabilities, and would take the digits of what does.
        """
        scores = rows.contrasts(step)
        if read_out.posterior_weight:
            scores.add_(rows.log_proba, alpha=read_out.posterior_weight)
        return scores

    def _proba(self, rows: SolvedRows, read_out: ReadOut, step: int = -1) -> Tensor:
        return (read_out.logit_scale * self._scores(rows, read_out, step)).softmax(dim=1)

    def _log_proba(
        self, features: NDArray[Any] | Tensor, zeros_allowed: bool, first: int = 0
    ) -> Any:
        """Log-probabilities of features that were checked, whose first row has this number."""
        read_out = self._read_out()

        def read(rows: SolvedRows) -> Tensor:
            return (read_out.logit_scale * self._scores(rows, read_out)).log_softmax(dim=1)

        return self._read(features, zeros_allowed, read, first=first)

    def _codes(self, rows: SolvedRows, scores: Tensor) -> Tensor:
        """Classes of the best scores; -1 for rows like no class, if these have a label."""
        codes = scores.argmax(dim=1)
        if self.unknown_label is None:
            return codes
        return torch.where(rows.scores < self.unknown_threshold_, -1, codes)

    def _labels(self, codes: NDArray[np.int64] | Tensor) -> Any:
        """Labels of classes: of a tensor a tensor, unless it cannot hold them, as strings."""
        labels = self.classes_
        if self.unknown_label is not None:
            labels = parameters.labels_with_unknown(self.classes_, self.unknown_label)
        if isinstance(codes, Tensor):
            if labels.dtype.kind in "bif" or labels.dtype == np.uint8:
                return torch.tensor(labels, device=codes.device)[codes]
            codes = codes.cpu().numpy()
        return labels[codes]

    def _staged(
        self, X: ArrayLike, read: Callable[[SolvedRows, ReadOut, int], Tensor], *, scaled: bool
    ) -> Iterator[NDArray[Any]]:
        """Read something out of every row after 0, 1, 2, ... steps."""
        features, zeros_allowed = self._check_X(X)
        n_steps = ode.max_steps(self._stage_size)
        times = [ode.grid(k, self._stage_size)[-1] for k in range(n_steps + 1)]
        read_outs = [self._read_out_at(time, scaled=scaled) for time in times]
        stages: list[list[NDArray[Any]]] = [[] for _ in times]
        for rows in self._solve(
            features, zeros_allowed, n_steps, last_only=False, step_size=self._stage_size
        ):
            for step, (stage, read_out) in enumerate(zip(stages, read_outs, strict=True)):
                values = read(rows, read_out, step).cpu().numpy()
                dtype = features.dtype if values.dtype.kind == "f" else values.dtype
                stage.append(values.astype(dtype))
        yield from map(np.concatenate, stages)
