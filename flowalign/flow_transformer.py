"""The solving half of the aligner: from new features, in blocks, to the stop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from flowalign import blocks, inputs, ode, parameters, sphere

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.fields import VelocityField
    from flowalign.gaussian import GaussianModel


# Of features that are not normalised: the field is float32, and variances are squares.
LARGEST = 1e18


class FlowTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Solves from new features to the stop; what is read out there is for others to say.

    Rows are solved in blocks of bounded memory. Nothing here changes the estimator.
    """

    if TYPE_CHECKING:  # set by the constructor and by fit
        n_steps: int | str
        step_size: float
        solver: str
        _stop: float | None
        _normalize: bool
        classes_: NDArray[Any]
        velocity_field_: VelocityField
        gaussian_model_: GaussianModel | None
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
        yield from self._trajectory(X, ode.max_steps(self.step_size))

    @property
    def n_steps_(self) -> int:
        """Steps that `predict` takes now."""
        check_is_fitted(self)
        try:
            parameters.check_solver_parameters(self.get_params(deep=False))
        except (TypeError, ValueError) as error:
            # What shows an estimator asks for its attributes, whatever its parameters are now.
            raise AttributeError(str(error)) from error
        if not parameters.is_auto(self.n_steps):
            return self.n_steps  # type: ignore[return-value]
        if self._stop is None:
            raise NotFittedError(
                "n_steps='auto' was set after a fit with a number, in which no stop was chosen. "
                "Fit again, or set a number."
            )
        return ode.nearest_step(self._stop, self.step_size)

    @property
    def stop_time_(self) -> float:
        """Time at which `predict` stops now."""
        return ode.grid(self.n_steps_, self.step_size)[-1]

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
        parameters.check_solver_parameters(self.get_params(deep=False))
        array = inputs.as_numpy(X, "X")
        checks: dict[str, Any] = {"dtype": inputs.float_dtypes(array)}
        if (given := inputs.named(X, array)) is array:
            features = validate_data(self, array, reset=False, **checks)
        else:
            validate_data(self, given, reset=False, skip_check_array=True)  # names and width
            features = check_array(array, estimator=self, input_name="X", **checks)
        return features, inputs.holds_integers(array)

    def _normalized(
        self,
        features: NDArray[Any],
        normalize: bool,
        zeros_allowed: bool,
        name: str = "X",
        first: int = 0,
    ) -> NDArray[Any]:
        if not normalize:
            largest = max(features.max(initial=0), -features.min(initial=0))
            if largest > LARGEST:
                raise ValueError(
                    f"{name} has values up to {largest:.1e}, whose squares are no float32 numbers; "
                    f"bring them below {LARGEST:.0e}, or use normalize=True."
                )
            return features
        return sphere.unit_rows(features, name, zeros_allowed=zeros_allowed, first=first)

    @torch.inference_mode()
    def _blocks(
        self, features: NDArray[Any], zeros_allowed: bool, n_steps: int, *, last_only: bool
    ) -> Iterator[tuple[int, np.dtype[Any], Tensor]]:
        """Solve for a bounded number of rows at a time, whatever the number of all.

        Yields the number of the first row, the dtype that results should have, and states of shape
        (n_steps + 1, rows, d), or the last one alone, (rows, d).
        """
        field = self.velocity_field_
        row_size = max(len(self.classes_), field.row_size)
        device = torch.device(self.device_).type
        rows = blocks.state_rows(row_size * features.dtype.itemsize, device)
        times = ode.grid(n_steps, self.step_size)
        for block_rows in blocks.slices(len(features), rows):
            start = block_rows.start
            part = self._normalized(
                features[block_rows], self._normalize, zeros_allowed, "X", start
            )
            block = self._tensor(part)
            if block.dtype == torch.float64 and field is self.velocity_field_:
                field = copy.deepcopy(field).double()
            states = ode.solve(field, block, times, self.solver, last_only=last_only)
            if not torch.isfinite(states[-1]).all():
                raise ValueError(
                    f"The flow left the range of {states.dtype} before n_steps={n_steps}; take "
                    "fewer steps, or bring the features to a common scale."
                )
            if last_only:
                result = field.rotate_back(states[-1]) if n_steps else block
            else:
                # The first state is the block as it came, free of any change of coordinates.
                result = torch.stack([block, *(field.rotate_back(state) for state in states[1:])])
            yield start, part.dtype, result

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        """Copy to the device; float64 stays float64 on the CPU only."""
        dtype = torch.float64 if self.device_ == "cpu" and array.dtype == np.float64 else None
        return torch.tensor(array, dtype=dtype or torch.float32, device=self.device_)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "velocity_field_"):
            # Pickles of field and model open on the CPU, and stay there if the device is not here.
            try:
                device = parameters.check_device(self.device_)
            except ValueError:
                self.device_ = "cpu"
                return
            self.velocity_field_.to(device)
            if self.gaussian_model_ is not None:
                self.gaussian_model_ = self.gaussian_model_.to(device)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
