r"""The exact field of a Gaussian model, in closed form.

Let the features of class :math:`c` be :math:`N(\mu_c, \Sigma)` with one covariance for all, let
them travel to the target :math:`e_c`, and let :math:`\sigma` be the size of the noise per
coordinate. On the path of :mod:`flowalign.path` class :math:`c` is then Gaussian at every time,

.. math::

    x_t \mid c &\sim N(m_c(t), S(t)), \\
    m_c(t) &= (1 - t)\, \mu_c + t\, e_c, \qquad
    S(t) = (1 - t)^2\, \Sigma + \sigma^2 t (1 - t)\, I,

and the minimiser of the flow matching loss, :math:`v(t, x) = E[u_t \mid x_t = x]`, is

.. math::

    v(t, x) &= \sum_c p(c \mid x, t) \left[ e_c - \mu_c
        + \tfrac{1}{2} S'(t)\, S(t)^{-1} (x - m_c(t)) \right], \\
    p(c \mid x, t) &\propto \pi_c\, N(x;\, m_c(t), S(t)).

The eigenvectors of :math:`\Sigma` are those of :math:`S(t)` at every time. In their coordinates a
step costs two products, of (n, d) by (d, C) and of (n, C) by (C, d), and a third with text.

Two additions make a design of the minimiser, and both act on :math:`p` alone. In a space that
features and class embeddings share, the evidence of zero-shot classification is added to the
log-weights, :math:`\omega \cos(x, e_c)`; and since the covariance is an estimate, the density has
there the heavier tails of a multivariate t.

``docs/theory.rst`` derives all of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from flowalign import path
from flowalign.fields.base import VelocityField
from flowalign.sphere import cosine_similarities

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_NUMBER = 1e18  # in a file; its square has a place in float32


class GaussianField(VelocityField):
    """Velocity field of Gaussian classes with one covariance, each travelling to its target.

    Parameters
    ----------
    basis : Tensor of shape (d, d)
        Orthonormal eigenvectors of the covariance as columns: the field's own coordinates.
    variances : Tensor of shape (d,)
        Its eigenvalues, all positive.
    means : Tensor of shape (C, d)
        Class means, in the field's coordinates.
    targets : Tensor of shape (C, d)
        Where each class travels, in the field's coordinates.
    log_prior : Tensor of shape (C,)
        Log-probabilities of the classes.
    noise_std : float
        Size of the noise on the path per coordinate.
    text_weight : float
        Weight of the cosine between a state and a target in the log-weights; 0 leaves it out.
    tail : float or None
        Tail of the density, which is ``(1 + D ** 2 / tail) ** (-tail / 2)`` at a Mahalanobis
        distance of D: that of a multivariate t. None is its limit, the Gaussian.

    Notes
    -----
    At time 1 the model has no width left, so the field is evaluated at ``1 - path.T_MIN`` at most.
    It takes one time for all rows; ``torch.vmap`` gives it one per row.
    """

    singular_end = True

    def __init__(
        self,
        basis: Tensor,
        variances: Tensor,
        means: Tensor,
        targets: Tensor,
        log_prior: Tensor,
        *,
        noise_std: float = 0.0,
        text_weight: float = 0.0,
        tail: float | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "noise_std": float(noise_std),
            "text_weight": float(text_weight),
            "tail": None if tail is None else float(tail),
        }
        # Of one layout, so that a field that was stored gives the same result to the last bit.
        self.register_buffer("basis", basis.contiguous())
        self.register_buffer("variances", variances.contiguous())
        self.register_buffer("means", means.contiguous())
        self.register_buffer("targets", targets.contiguous())
        self.register_buffer("log_prior", log_prior.contiguous())

    basis: Tensor
    variances: Tensor
    means: Tensor
    targets: Tensor
    log_prior: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate into the eigenbasis of the covariance."""
        return x @ self.basis

    def rotate_back(self, z: Tensor) -> Tensor:
        """Rotate back into the feature space."""
        return z @ self.basis.T

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity, (n, d), at time ``t``, 0-dimensional, and positions ``z``, (n, d)."""
        if t.ndim > 0:
            raise ValueError(
                f"t must be one time for all rows, got shape {tuple(t.shape)}; use torch.vmap for "
                "one per row."
            )
        t = t.clamp(max=1 - path.T_MIN)
        centres, variance = self.centres(t), self.variance(t)
        growth = self._variance_rate(t) / (2 * variance)
        displacement = self.targets - self.means - growth * centres
        return torch.addmm(growth * z, self._posterior(z, centres, variance), displacement)

    def posterior(self, t: Tensor, x: Tensor) -> Tensor:
        """Class weights p(c | x, t), (n, C), at positions ``x``, (n, d), in the feature space."""
        t = t.clamp(max=1 - path.T_MIN)
        return self._posterior(self.rotate(x), self.centres(t), self.variance(t))

    @property
    def row_size(self) -> int:
        """Features or classes, whichever are more."""
        return max(self.means.shape)

    def centres(self, t: Tensor) -> Tensor:
        """m_c(t), the mean of each class: (C, d)."""
        return torch.lerp(self.means, self.targets, t.to(self.means.dtype))

    def variance(self, t: Tensor) -> Tensor:
        """S(t), the variance of a class in each coordinate: (d,)."""
        return (1 - t) ** 2 * self.variances + self.config["noise_std"] ** 2 * t * (1 - t)

    def _variance_rate(self, t: Tensor) -> Tensor:
        """S'(t): (d,)."""
        return self.config["noise_std"] ** 2 * (1 - 2 * t) - 2 * (1 - t) * self.variances

    def _posterior(self, z: Tensor, centres: Tensor, variance: Tensor) -> Tensor:
        # All is taken relative to the middle of the classes: what cancels in the comparison of
        # classes would otherwise take the digits of what does not.
        middle = centres.mean(dim=0)
        z_m, centres = z - middle, centres - middle
        whitened = centres / variance
        log_density = torch.addmm(-(whitened * centres).sum(dim=1) / 2, z_m, whitened.T)
        if self.config["tail"] is not None:
            distances = (z_m.square() @ (1 / variance))[:, None] - 2 * log_density
            log_density = log_t_density(distances, self.config["tail"])
        return self.class_weights(log_density, z)

    def class_weights(self, log_density: Tensor, z: Tensor) -> Tensor:
        """p(c | x, t), (n, C), from the log-densities of the classes; these are overwritten."""
        if self.config["text_weight"]:
            cosines = cosine_similarities(z, self.targets)
            log_density.add_(cosines, alpha=self.config["text_weight"])
        return log_density.add_(self.log_prior).softmax(dim=1)

    def replace(self, **changes: Any) -> Self:
        """Another field with some of the constructor's arguments changed."""
        return type(self)(**dict(self.named_buffers()) | self.config | changes)

    @classmethod
    def check(
        cls, config: dict[str, Any], weights: dict[str, NDArray[Any]], n_classes: int, width: int
    ) -> None:
        """Raise ValueError unless these numbers and arrays make a field."""
        numbers = [v for k, v in config.items() if (k, v) != ("tail", None)]
        if (
            set(config) != {"noise_std", "text_weight", "tail"}
            or not all(type(v) is float and 0 <= v < MAX_NUMBER for v in numbers)
            or config["tail"] == 0
        ):
            raise ValueError(f"field.config is {config}.")
        centres = (n_classes, width)
        cls.check_shapes(
            weights,
            {
                "basis": (width, width),
                "variances": (width,),
                "means": centres,
                "targets": centres,
                "log_prior": (n_classes,),
            },
        )

    def _rebuild(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        self.__init__(**weights, **config)  # type: ignore[misc]


def log_t_density(distances: Tensor, tail: float) -> Tensor:
    """Log-density of a multivariate t, up to a constant, at squared Mahalanobis distances.

    In d dimensions it has ``tail - d`` degrees of freedom. It tends to the Gaussian,
    ``-distances / 2``.
    """
    return torch.log1p(distances.clamp_min(0) / tail) * (-tail / 2)
