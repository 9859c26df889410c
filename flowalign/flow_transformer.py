"""The solving half of the aligner: from new features, in blocks, to the stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from flowalign import blocks, inputs, ode, parameters
from flowalign.fields import kind_of
from flowalign.fitted_arrays import FittedArray
from flowalign.gaussian.field import GaussianField, Start
from flowalign.gaussian.posterior import PosteriorMean
from flowalign.row_blocks import RowBlocks
from flowalign.solved_rows import SolvedRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.fields import VelocityField
    from flowalign.gaussian import GaussianModel
    from flowalign.gaussian.posterior import Classifier
    from flowalign.gaussian.unlabeled import Assigned
    from flowalign.unlabeled_rows import UnlabeledRows


NOT_PICKLED = {
    "_tensors_on", "_classifier", "_same_basis", "_starts_alike", "_pool", "_assigned",
}  # fmt: skip
"""What belongs to a machine or to the data of a fit, or follows from the rest."""


class FlowTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Solves from new features to the stop; what is read out there is for others to say.

    Rows are solved in blocks of bounded memory. Nothing here changes the estimator.
    """

    class_embeddings_ = FittedArray()
    class_prior_ = FittedArray()
    support_scores_ = FittedArray()
    unlabeled_weight_ = FittedArray()
    class_agreement_ = FittedArray()
    _class_vectors = FittedArray()

    if TYPE_CHECKING:  # set by the constructor and by fit
        _arrays: dict[str, Any]
        _tensors_on: str | None
        n_steps: int | str
        step_size: float | str
        solver: str
        _stop: float | None
        _kind: str
        _normalize: bool
        classes_: NDArray[Any]
        velocity_field_: VelocityField
        gaussian_model_: GaussianModel | None
        _inductive_model: GaussianModel | None
        _classifier: Classifier | None
        _same_basis: bool
        _starts_alike: bool
        _pool: UnlabeledRows | None
        _assigned: Assigned | None
        n_features_in_: int
        device_: str

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...  # noqa: D102

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
        return self._at_stop(X, lambda rows: rows.last)

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
        in memory. Stages are steps of `step_size`, or of 0.1 if that is "auto".

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.

        Yields
        ------
        ndarray of shape (n, d)
        """
        yield from self._trajectory(X, ode.max_steps(self._stage_size), self._stage_size)

    @property
    def n_steps_(self) -> int:
        """Steps that `predict` takes now."""
        self._check_attributes()
        if not parameters.is_auto(self.n_steps):
            return self.n_steps  # type: ignore[return-value]
        if self._stop is None:
            raise NotFittedError(
                "n_steps='auto' was set after a fit with a number, in which no stop was chosen. "
                "Fit again, or set a number."
            )
        return ode.nearest_step(self._stop, self.step_size_)

    @property
    def step_size_(self) -> float:
        """Length of the steps that `predict` takes now."""
        self._check_attributes()
        if not parameters.is_auto(self.step_size):
            return self.step_size  # type: ignore[return-value]
        coarse = kind_of(self._kind).coarse_step
        if not parameters.is_auto(self.n_steps) or self._stop is None or coarse is None:
            return ode.STEP_SIZE
        # As few equal steps as are short enough.
        return self._stop / math.ceil(self._stop / coarse - 1e-9) if self._stop else coarse

    @property
    def _stage_size(self) -> float:
        """Length of the steps from stage to stage: that of the candidates for the stop."""
        size = self.step_size
        return ode.STEP_SIZE if parameters.is_auto(size) else size  # type: ignore[return-value]

    @property
    def stop_time_(self) -> float:
        """Time at which `predict` stops now."""
        return ode.grid(self.n_steps_, self.step_size_)[-1]

    def _check_attributes(self) -> None:
        """Check that there are attributes which follow from fit and parameters.

        What shows an estimator asks for them, whatever its parameters are now: AttributeError.
        """
        check_is_fitted(self)
        try:
            parameters.check_predict_parameters(self.get_params(deep=False))
        except (TypeError, ValueError) as error:
            raise AttributeError(str(error)) from error

    @property
    def _n_features_out(self) -> int:
        return self.n_features_in_

    def _at_stop(
        self, X: ArrayLike, read: Callable[[SolvedRows], Tensor], n_steps: int | None = None
    ) -> Any:
        """Read something out of every row at the stop, or after a number of steps."""
        return self._read(*self._features(X), read, n_steps)

    def _read(
        self,
        features: NDArray[Any] | Tensor,
        zeros_allowed: bool,
        read: Callable[[SolvedRows], Tensor],
        n_steps: int | None = None,
        first: int = 0,
    ) -> Any:
        """Do that with features that were checked, whose first row has this number.

        What is read of tensors is a tensor where they are.
        """
        n_steps = self.n_steps_ if n_steps is None else n_steps
        solved = self._solve(features, zeros_allowed, n_steps, last_only=True, first=first)
        return _collected(features, ((rows.start, read(rows)) for rows in solved), self.device_)

    def _trajectory(self, X: ArrayLike, n_steps: int, step_size: float | None = None) -> Any:
        features, zeros_allowed = self._features(X)
        solved = self._solve(features, zeros_allowed, n_steps, last_only=False, step_size=step_size)
        by_row = ((rows.start, rows.trajectory.movedim(1, 0)) for rows in solved)
        states = _collected(features, by_row, self.device_)
        return states.movedim(0, 1) if isinstance(states, Tensor) else np.moveaxis(states, 0, 1)

    def _features(self, X: Any) -> tuple[NDArray[Any] | Tensor, bool]:
        """Check new features; where scikit-learn dispatches on arrays, tensors stay tensors."""
        if not (isinstance(X, Tensor) and get_config()["array_api_dispatch"]):
            # A look on the host would take as long as a GPU's products: it looks at its blocks.
            on_device = hasattr(self, "device_") and torch.device(self.device_).type == "cuda"
            return self._check_X(X, finite=not on_device)
        check_is_fitted(self)
        parameters.check_predict_parameters(self.get_params(deep=False))
        features = inputs.float_tensor(X, "X")
        validate_data(self, features, reset=False, skip_check_array=True)  # the width
        return features, not X.is_floating_point()

    def _check_X(self, X: Any, *, finite: bool = True) -> tuple[NDArray[Any], bool]:
        """Return new features in the form of those of the fit, not yet normalised.

        The second value says whether rows of zeros are allowed among them.
        """
        check_is_fitted(self)
        parameters.check_predict_parameters(self.get_params(deep=False))
        array = inputs.as_numpy(X, "X")
        checks: dict[str, Any] = {"dtype": inputs.float_dtypes(array), "ensure_all_finite": finite}
        if (given := inputs.named(X, array)) is array:
            features = validate_data(self, array, reset=False, **checks)
        else:
            validate_data(self, given, reset=False, skip_check_array=True)  # names and width
            features = check_array(array, estimator=self, input_name="X", **checks)
        return features, inputs.holds_integers(array)

    @torch.inference_mode()
    def _solve(
        self,
        features: NDArray[Any] | Tensor,
        zeros_allowed: bool,
        n_steps: int,
        *,
        last_only: bool,
        step_size: float | None = None,
        first: int = 0,
    ) -> Iterator[SolvedRows]:
        """Solve for a bounded number of rows at a time, whatever the number of all."""
        field, classifier = self.velocity_field_, self._classifier
        row_size = max(len(self.classes_), field.row_size)
        device, dtype = torch.device(self.device_), self._dtype(features)
        if dtype == torch.float64:
            field = copy.deepcopy(field).double()
            classifier = classifier and classifier.to(dtype)
        times = ode.grid(n_steps, self.step_size_ if step_size is None else step_size)
        targets = torch.tensor(self._arrays["class_embeddings_"], dtype=dtype, device=device)
        goals = field.rotate(targets)
        parts = RowBlocks(
            features,
            device,
            dtype,
            normalize=self._normalize,
            zeros_allowed=zeros_allowed,
            rows=blocks.state_rows(row_size * dtype.itemsize, device.type),
            first=first,
        )
        for start, x in parts:
            states, told = x[None], None
            if n_steps:
                z, initial = field.rotate(x), None
                if self._starts_alike:
                    assert isinstance(field, GaussianField)
                    told = field.start(z)
                    initial = field.velocity(z.new_zeros(()), z, told)
                elif self._same_basis:
                    told = Start(z)
                states = ode.integrate(
                    field.velocity,
                    z,
                    times,
                    self.solver,
                    singular_end=field.singular_end,
                    last_only=last_only,
                    first=initial,
                )
            parts.note(
                states[-1].isfinite(),
                f"The flow left the range of {dtype} before n_steps={n_steps}; take fewer steps, "
                "or bring the features to a common scale.",
            )
            yield SolvedRows(
                start, x, states, n_steps > 0, field, targets, goals, classifier, parts, told
            )

    def _dtype(self, features: NDArray[Any] | Tensor) -> torch.dtype:
        """Return that of the states: float64 stays float64, but on devices that lack it."""
        wide = str(features.dtype).removeprefix("torch.") == "float64"
        narrow = torch.device(self.device_).type == "mps"
        return torch.float64 if wide and not narrow else torch.float32

    def _make_classifier(self) -> Classifier | None:
        """Make what the model says of rows before they move, in float32, where the field is.

        It follows from what is fitted, so that it is neither pickled nor stored.
        """
        self._same_basis = self._starts_alike = False
        if self.gaussian_model_ is None:
            return None
        like = self.gaussian_model_.within.basis
        given = self._arrays["class_embeddings_"], np.log(self._arrays["class_prior_"])
        targets, log_prior = (torch.tensor(array).to(like) for array in given)
        models = (self.gaussian_model_, self._inductive_model)
        parts = [model.classifier(targets, log_prior) for model in models if model is not None]
        classifier: Classifier = parts[0] if len(parts) == 1 else PosteriorMean(*parts)
        classifier = classifier.to(torch.float32).to(torch.device(self.device_))
        one, other = classifier.field, self.velocity_field_
        if isinstance(one, GaussianField) and isinstance(other, GaussianField):
            self._same_basis = torch.equal(one.basis, other.basis)
            self._starts_alike = self._same_basis and one.starts_as(other)
        return classifier

    def __getstate__(self) -> dict[str, Any]:
        left_out = {
            "_tensors_on",
            "_classifier",
            "_same_basis",
            "_starts_alike",
            "_pool",
            "_assigned",
        }
        return {k: v for k, v in super().__getstate__().items() if k not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "velocity_field_"):
            # Pickles of field and model open on the CPU, and stay there if the device is not here.
            try:
                device = parameters.check_device(self.device_)
            except ValueError:
                device, self.device_ = torch.device("cpu"), "cpu"
            self.velocity_field_.to(device)
            if self.gaussian_model_ is not None:
                self.gaussian_model_ = self.gaussian_model_.to(device)
            if self._inductive_model is not None:
                self._inductive_model = self._inductive_model.to(device)
            self._classifier = self._make_classifier()
            self._pool = self._assigned = None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.array_api_support = True
        return tags


def _collected(
    features: NDArray[Any] | Tensor, parts: Iterator[tuple[int, Tensor]], device: str
) -> Any:
    """Put what was read of blocks of rows together, in the dtype of the features if it is a float.

    Of tensors it stays where they are. Of arrays, one value for a row stays on the device until all
    are there; more go home block by block, so that they need no room on it.
    """
    tensors, result = isinstance(features, Tensor), torch.empty(0)
    for start, values in parts:
        if start == 0:
            dtype = values.dtype
            if values.is_floating_point():
                dtype = getattr(torch, str(features.dtype).removeprefix("torch."))
            place = features.device if tensors else device if values.ndim == 1 else "cpu"
            if torch.device(place).type == "mps" and dtype == torch.float64:
                place = "cpu"
            result = torch.empty((len(features), *values.shape[1:]), dtype=dtype, device=place)
        result[start : start + len(values)] = values
    return result if tensors else result.cpu().numpy()
