"""The classifying half of the aligner: what the states at the stop say of the classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sklearn.base import ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from flowalign import calibration, inputs, ode, parameters, sphere
from flowalign.flow_transformer import FlowTransformer
from flowalign.held_out import NO_SAMPLES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class FlowClassifier(FlowTransformer, ClassifierMixin):
    """Reads cosines to the class embeddings out of the states: scores, probabilities, labels."""

    if TYPE_CHECKING:  # set by the constructor and by fit
        logit_scale: float | str
        class_embeddings_: NDArray[Any]
        stop_source_: str | None
        stop_scores_: dict[str, NDArray[Any]] | None

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict the label of each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n,)
            Labels out of `classes_`; the first of equally similar ones.
        """
        codes = self._at_stop(X, self._best)
        return self.classes_[codes]

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Scaled cosine similarity to each class embedding at the stop time.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n, C)
            `logit_scale_` times the cosine similarity. For two classes of shape (n,): the value of
            ``classes_[1]`` minus that of ``classes_[0]``.
        """
        check_is_fitted(self)
        two = len(self.classes_) == 2
        cosines = self._contrasts if two else self._cosines
        scores = self._at_stop(X, lambda x: self.logit_scale_ * cosines(x))
        return scores[:, 1] - scores[:, 0] if two else scores

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Softmax of the scaled cosine similarities; calibrated if `logit_scale` is "auto".

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n, C)
            Rows sum to one; columns follow `classes_`.
        """
        return self._at_stop(X, lambda x: self._proba(x, self.logit_scale_))

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
        for state in self.staged_transform(X):
            yield self.classes_[self._best(self._tensor(state)).cpu().numpy()]

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
        for k, state in enumerate(self.staged_transform(X)):
            scale = self._scale_at(ode.grid(k, self.step_size)[-1])
            yield self._proba(self._tensor(state), scale).cpu().numpy().astype(state.dtype)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Share of right predictions.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.
        y : array-like of shape (n,)
            Their labels.
        sample_weight : array-like of shape (n,) or None, default=None
            What each sample counts for.

        Returns
        -------
        float
        """
        labels = inputs.as_numpy(y, "y")
        return super().score(X, labels, inputs.as_numpy(sample_weight, "sample_weight"))

    @property
    def logit_scale_(self) -> float:
        """Inverse temperature that `predict_proba` uses now."""
        check_is_fitted(self)
        return self._scale_at(self.stop_time_)

    def _scale_at(self, time: float) -> float:
        if not parameters.is_auto(self.logit_scale):
            return self.logit_scale  # type: ignore[return-value]
        if self.stop_source_ is None:
            raise NotFittedError(
                "logit_scale='auto' was set after a fit with a number, in which nothing was "
                "calibrated. Fit again, or set a number."
            )
        zero_shot = self.stop_source_ == NO_SAMPLES
        otherwise = calibration.CLIP_SCALE if zero_shot else calibration.PRIOR_SCALE
        return calibration.scale_at(time, self.stop_scores_, otherwise)

    def _best(self, x: Tensor) -> Tensor:
        return self._contrasts(x).argmax(dim=1)

    def _proba(self, x: Tensor, scale: float) -> Tensor:
        return (scale * self._contrasts(x)).softmax(dim=1)

    def _contrasts(self, x: Tensor) -> Tensor:
        return sphere.contrasts(x, self._targets(x))

    def _cosines(self, x: Tensor) -> Tensor:
        """Cosines in the order of the contrasts, but for those that rounding makes equal."""
        mean = sphere.directions(x) @ sphere.directions(self._targets(x)).mean(dim=0)
        return self._contrasts(x) + mean[:, None]

    def _targets(self, x: Tensor) -> Tensor:
        return self._tensor(self.class_embeddings_).to(x.dtype)
