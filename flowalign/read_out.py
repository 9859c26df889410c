"""The classifying half of the aligner: what a row and its state at the stop say of the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from flowalign import inputs, ode, parameters, sphere, stopping
from flowalign.flow_transformer import Block, FlowTransformer
from flowalign.held_out import NO_SAMPLES
from flowalign.stopping import ReadOut

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.gaussian.posterior import ClassPosterior


class FlowClassifier(FlowTransformer, ClassifierMixin):
    """Reads the classes out of rows and their states: scores, probabilities, labels."""

    if TYPE_CHECKING:  # set by the constructor and by fit
        logit_scale: float | str
        class_embeddings_: NDArray[Any]
        stop_source_: str | None
        stop_scores_: dict[str, NDArray[Any]] | None
        support_scores_: NDArray[np.float32] | None
        unknown_label: Any
        unknown_rate: float
        _classifier: ClassPosterior | None

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict the label of each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n,)
            Labels out of `classes_`, the first of equal ones; or `unknown_label`, if there is one,
            for rows whose :meth:`score_samples` is below `unknown_threshold_`.
        """
        scores, refused = self._scores(self._read_out(scaled=False)), self._refused()
        codes = self._at_stop(X, lambda block: refused(block.x, scores(block).argmax(dim=1)))
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
            `logit_scale_` times the sum of the cosine similarity to the class embedding at the stop
            and of `posterior_weight_` times the log-probability that the model of the classes gave
            to the row before it moved. For two classes of shape (n,): the value of ``classes_[1]``
            minus that of ``classes_[0]``.
        """
        read_out = self._read_out()
        two = len(self.classes_) == 2
        of = self._scores(read_out, common=not two)
        scores = self._at_stop(X, lambda block: read_out.logit_scale * of(block))
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
        of = self._scores(read_out)
        return self._at_stop(X, lambda block: (read_out.logit_scale * of(block)).softmax(dim=1))

    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """How much each row looks like any known class, rather than like none of them.

        It does not depend on the steps.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n,)
            Of the best class, the log-density over that of a class that is not known, as weighed by
            the evidence; in a joint space with the evidence of its class embedding. High for rows
            of known classes. Only the order of rows means something, and `unknown_threshold_`.
            Without samples it is 100 times the largest cosine to a class embedding.

        See Also
        --------
        flowalign.gaussian.GaussianModel.log_relative_density : The ratio alone.
        """
        score = self._score()
        return self._at_stop(X, lambda block: score(block.x), n_steps=0)

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
        refused = self._refused()
        for block, scores in self._staged(X, scaled=False):
            yield self._labels(refused(block.x, scores.argmax(dim=1)).cpu().numpy())

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
        for block, scores in self._staged(X):
            yield scores.softmax(dim=1).cpu().numpy().astype(block.dtype)

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
        return self._read_out_at(self.stop_time_).logit_scale

    @property
    def posterior_weight_(self) -> float:
        """Weight of the log-probabilities of the model in the scores now; 0 for zero steps."""
        check_is_fitted(self)
        return self._read_out_at(self.stop_time_, scaled=False).posterior_weight

    def _read_out(self, *, scaled: bool = True) -> ReadOut:
        check_is_fitted(self)
        parameters.check_predict_parameters(self.get_params(deep=False))
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
        return found if automatic else found._replace(logit_scale=self.logit_scale)

    @property
    def unknown_threshold_(self) -> float:
        """Score of samples below which `predict` refuses a row, if `unknown_label` is set."""
        check_is_fitted(self)
        if self.support_scores_ is None or not len(self.support_scores_):
            return -np.inf
        return float(np.quantile(self.support_scores_, self.unknown_rate))

    def _scores(self, read_out: ReadOut, *, common: bool = False) -> Callable[[Block], Tensor]:
        """What reads scores, (n, C) and not yet scaled, out of a block.

        What all classes have in common changes neither labels nor probabilities, and would take the
        digits of what they do not: it is left out unless asked for.
        """
        weight = read_out.posterior_weight
        log_proba = self._before("log_proba") if weight else None

        def scores(block: Block) -> Tensor:
            x, goals = block.x, self._targets(block.x)
            if block.moved:  # cosines are the same in the coordinates of the field
                x, goals = block.states[-1], block.field.rotate(goals)
            result = sphere.contrasts(x, goals)
            if common:
                mean = sphere.directions(goals).mean(dim=0)
                result += (sphere.directions(x) @ mean)[:, None]
            return result if log_proba is None else result + weight * log_proba(block.x)

        return scores

    def _before(self, method: str) -> Callable[[Tensor], Tensor]:
        """What the model of the classes says of rows before they move, in any dtype."""
        classifier = self._classifier
        assert classifier is not None

        def say(x: Tensor) -> Tensor:
            nonlocal classifier
            if classifier.dtype != x.dtype:
                classifier = classifier.to(x.dtype)
            return getattr(classifier, method)(x)

        return say

    def _score(self) -> Callable[[Tensor], Tensor]:
        """What tells how much rows, (n, d), look like any known class, (n,)."""
        check_is_fitted(self)
        if self._classifier is not None:
            return self._before("score")

        def largest_cosine(x: Tensor) -> Tensor:
            cosines = sphere.cosine_similarities(x, self._targets(x))
            return sphere.CLIP_SCALE * cosines.amax(dim=1)

        return largest_cosine

    def _refused(self) -> Callable[[Tensor, Tensor], Tensor]:
        """What makes the codes of rows that look like no class -1, if these have a label."""
        check_is_fitted(self)
        parameters.check_unknown_label(self.unknown_label, self.classes_)
        if self.unknown_label is None:
            return lambda _, codes: codes
        score, threshold = self._score(), self.unknown_threshold_
        return lambda x, codes: torch.where(score(x) < threshold, -1, codes)

    def _labels(self, codes: NDArray[np.int64]) -> NDArray[Any]:
        if self.unknown_label is None:
            return self.classes_[codes]
        return np.concatenate([self.classes_, np.array([self.unknown_label])])[codes]

    def _targets(self, x: Tensor) -> Tensor:
        return self._tensor(self.class_embeddings_).to(x.dtype)

    @torch.inference_mode()
    def _staged(
        self, X: ArrayLike, *, scaled: bool = True
    ) -> Iterator[tuple[Block, Tensor]]:
        """Yield states, and scaled scores, after 0, 1, 2, ... steps."""
        log_proba = None
        for k, state in enumerate(self.staged_transform(X)):
            read_out = self._read_out_at(ode.grid(k, self.step_size)[-1], scaled=scaled)
            x = self._tensor(state)
            if k == 0:
                first = x
            scores = sphere.contrasts(x, self._targets(x))
            if read_out.posterior_weight:
                if log_proba is None:
                    log_proba = self._before("log_proba")(first)
                scores.add_(log_proba, alpha=read_out.posterior_weight)
            block = Block(0, state.dtype, first, self.velocity_field_, x[None], False)
            yield block, read_out.logit_scale * scores
