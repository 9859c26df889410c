"""What a fitted flow says about new features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from flowalign import ode, spaces, stopping, validation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.fields import VelocityField

BLOCK_BYTES = 2**22  # of the widest array per state: fits a cache, and bounds the memory


class FlowPrediction(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin):
    """The predicting half of the aligner: solve from new features to the stop and read out.

    Rows are solved in blocks of bounded memory. Nothing here changes the estimator.
    """

    if TYPE_CHECKING:  # set by the constructor and by fit
        n_steps: int | str
        step_size: float
        solver: str
        logit_scale: float | str
        stop_source_: str | None
        stop_scores_: dict[str, NDArray[Any]] | None
        _stop: float | None
        _normalize: bool
        classes_: NDArray[Any]
        class_embeddings_: NDArray[Any]
        velocity_field_: VelocityField
        n_features_in_: int
        device_: str

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...  # noqa: D102

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

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Aligned features: where the flow has carried each row at the stop time.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (n, d)
            In the feature space, not normalised again.
        """
        return self._at_stop(X, lambda x: x)

    def trajectory(self, X: ArrayLike) -> NDArray[Any]:
        """Every state from the (normalised) features to the stop.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Returns
        -------
        ndarray of shape (steps + 1, n, d)
            ``trajectory(X)[-1]`` is ``transform(X)``.
        """
        return self._trajectory(X, self.n_steps_)

    def staged_transform(self, X: ArrayLike) -> Iterator[NDArray[Any]]:
        """Yield the aligned features after 0, 1, 2, ... steps, to the end of the flow.

        Like the other staged methods it solves once, whatever `n_steps`, and keeps all states of X
        in memory.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Yields
        ------
        ndarray of shape (n, d)
        """
        yield from self._trajectory(X, validation.max_steps(self.step_size))

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

    @property
    def n_steps_(self) -> int:
        """Steps that `predict` takes now."""
        check_is_fitted(self)
        try:
            validation.check_solver_parameters(self.get_params(deep=False))
        except (TypeError, ValueError) as error:
            # What shows an estimator asks for its attributes, whatever its parameters are now.
            raise AttributeError(str(error)) from error
        if not validation.is_auto(self.n_steps):
            return self.n_steps  # type: ignore[return-value]
        if self._stop is None:
            raise NotFittedError(
                "n_steps='auto' was set after a fit with a number, in which no stop was chosen. "
                "Fit again, or set a number."
            )
        return stopping.nearest_step(self._stop, self.step_size)

    @property
    def stop_time_(self) -> float:
        """Time at which `predict` stops now."""
        return ode.grid(self.n_steps_, self.step_size)[-1]

    @property
    def logit_scale_(self) -> float:
        """Inverse temperature that `predict_proba` uses now."""
        check_is_fitted(self)
        return self._scale_at(self.stop_time_)

    def _scale_at(self, time: float) -> float:
        if not validation.is_auto(self.logit_scale):
            return self.logit_scale  # type: ignore[return-value]
        if self.stop_source_ is None:
            raise NotFittedError(
                "logit_scale='auto' was set after a fit with a number, in which nothing was "
                "calibrated. Fit again, or set a number."
            )
        return stopping.scale_at(time, self.stop_scores_)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_in_

    def _at_stop(self, X: ArrayLike, read_out: Callable[[Tensor], Tensor]) -> NDArray[Any]:
        """Read something out of the states at the stop time, block by block."""
        features, zeros_allowed = self._check_X(X)
        result = np.empty(0)
        for start, dtype, state in self._blocks(
            features, zeros_allowed, self.n_steps_, last_only=True
        ):
            values = read_out(state).cpu().numpy()
            if start == 0:
                dtype = dtype if values.dtype.kind == "f" else values.dtype
                result = np.empty((len(features), *values.shape[1:]), dtype)
            result[start : start + len(values)] = values
        return result

    def _trajectory(self, X: ArrayLike, n_steps: int) -> NDArray[Any]:
        features, zeros_allowed = self._check_X(X)
        result = np.empty(0)
        for start, dtype, states in self._blocks(features, zeros_allowed, n_steps, last_only=False):
            if start == 0:
                result = np.empty((len(states), *features.shape), dtype)
            result[:, start : start + states.shape[1]] = states.cpu().numpy()
        return result

    def _check_X(self, X: Any) -> tuple[NDArray[Any], bool]:
        """Return new features in the form of those of the fit, not yet normalised.

        The second value says whether rows of zeros are allowed among them.
        """
        check_is_fitted(self)
        validation.check_solver_parameters(self.get_params(deep=False))
        X = validation.as_numpy(X)
        features = validate_data(self, X, reset=False, dtype=validation.float_dtypes(X))
        return features, validation.holds_integers(X)

    def _normalized(
        self,
        features: NDArray[Any],
        normalize: bool,
        zeros_allowed: bool,
        name: str = "X",
        first: int = 0,
    ) -> NDArray[Any]:
        if not normalize:
            return features
        return spaces.unit_rows(features, name, zeros_allowed=zeros_allowed, first=first)

    @torch.inference_mode()
    def _blocks(
        self, features: NDArray[Any], zeros_allowed: bool, n_steps: int, *, last_only: bool
    ) -> Iterator[tuple[int, np.dtype[Any], Tensor]]:
        """Solve for a bounded number of rows at a time, whatever the number of all.

        Yields the number of the first row, the dtype that results should have, and states of shape
        (n_steps + 1, rows, d), or the last one alone, (rows, d).
        """
        field = self.velocity_field_
        width = max(len(self.classes_), field.width)
        rows = max(1, BLOCK_BYTES // (width * features.dtype.itemsize))
        times = ode.grid(n_steps, self.step_size)
        for start in range(0, len(features), rows):
            part = self._normalized(
                features[start : start + rows], self._normalize, zeros_allowed, "X", start
            )
            block = self._tensor(part)
            if block.dtype == torch.float64 and field is self.velocity_field_:
                field = copy.deepcopy(field).double()
            states = ode.integrate(
                field.velocity,
                field.encode(block),
                times,
                self.solver,
                singular_end=field.singular_end,
                last_only=last_only,
            )
            if not torch.isfinite(states[-1]).all():
                raise ValueError(
                    f"The flow left the range of {states.dtype} before n_steps={n_steps}; take "
                    "fewer steps, or bring the features to a common scale."
                )
            if last_only:
                result = field.decode(states[-1]) if n_steps else block
            else:
                # The first state is the block as it came, free of any change of coordinates.
                result = torch.stack([block, *(field.decode(state) for state in states[1:])])
            yield start, part.dtype, result

    def _best(self, x: Tensor) -> Tensor:
        return self._contrasts(x).argmax(dim=1)

    def _proba(self, x: Tensor, scale: float) -> Tensor:
        return (scale * self._contrasts(x)).softmax(dim=1)

    def _contrasts(self, x: Tensor) -> Tensor:
        """Cosines less their mean over the classes, with all their digits."""
        return spaces.directions(x) @ spaces.contrasts(self._targets(x)).T

    def _cosines(self, x: Tensor) -> Tensor:
        """Cosines in the order of the contrasts, but for those that rounding makes equal."""
        mean = spaces.directions(x) @ spaces.directions(self._targets(x)).mean(dim=0)
        return self._contrasts(x) + mean[:, None]

    def _targets(self, x: Tensor) -> Tensor:
        return self._tensor(self.class_embeddings_).to(x.dtype)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        """Copy to the device; float64 stays float64 on the CPU only."""
        dtype = torch.float64 if self.device_ == "cpu" and array.dtype == np.float64 else None
        return torch.tensor(array, dtype=dtype or torch.float32, device=self.device_)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "velocity_field_"):
            # The field's pickle opens on the CPU, and stays there if its device is not here.
            try:
                self.velocity_field_.to(validation.check_device(self.device_))
            except ValueError:
                self.device_ = "cpu"

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
