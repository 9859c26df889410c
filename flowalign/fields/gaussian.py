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
step costs two products of shapes (n, d) x (d, C) and (n, C) x (C, d).

Two additions make a design of the minimiser, and both act on :math:`p` alone. In a space that
features and class embeddings share, the evidence of zero-shot classification is added to the
log-weights, :math:`\omega \cos(x, e_c)`; and the covariance, being estimated, makes the density
there a multivariate t instead of a Gaussian.

``docs/theory.rst`` derives all of this.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowalign import path
from flowalign.fields.base import VelocityField
from flowalign.spaces import directions


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
    dof : float or None
        Degrees of freedom of the t density; None is the Gaussian.

    Notes
    -----
    At time 1 the model has no width left, so the field is evaluated at ``1 - path.T_MIN`` at most.
    It takes one time for all rows; ``torch.vmap`` gives it one per row.
    """

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
        dof: float | None = None,
    ) -> None:
        super().__init__()
        self.config = {"noise_std": noise_std, "text_weight": text_weight, "dof": dof}
        self.register_buffer("basis", basis)
        self.register_buffer("variances", variances)
        self.register_buffer("means", means)
        self.register_buffer("targets", targets)
        self.register_buffer("log_prior", log_prior)

    basis: Tensor
    variances: Tensor
    means: Tensor
    targets: Tensor
    log_prior: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """Rotate into the eigenbasis of the covariance."""
        return x @ self.basis

    def decode(self, z: Tensor) -> Tensor:
        """Rotate back into the feature space."""
        return z @ self.basis.T

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity, (n, d), at time ``t``, 0-dimensional, and positions ``z``, (n, d)."""
        t = t.clamp(max=1 - path.T_MIN)
        # S'(t) / (2 S(t)): how fast the width of a class grows, per coordinate.
        growth = self._width_rate(t) / (2 * self._width(t))
        displacement = self.targets - self.means - growth * self._class_centres(t)
        return torch.addmm(growth * z, self._posterior(t, z), displacement)

    def posterior(self, t: Tensor, x: Tensor) -> Tensor:
        """Class weights p(c | x, t), (n, C), at positions ``x``, (n, d), in the feature space."""
        return self._posterior(t.clamp(max=1 - path.T_MIN), self.encode(x))

    @property
    def width(self) -> int:
        """Features or classes, whichever are more."""
        return max(self.means.shape)

    def _class_centres(self, t: Tensor) -> Tensor:
        return torch.lerp(self.means, self.targets, t)

    def _width(self, t: Tensor) -> Tensor:
        """S(t), the variance of a class in each coordinate: (d,)."""
        return (1 - t) ** 2 * self.variances + self.config["noise_std"] ** 2 * t * (1 - t)

    def _width_rate(self, t: Tensor) -> Tensor:
        """S'(t): (d,)."""
        return self.config["noise_std"] ** 2 * (1 - 2 * t) - 2 * (1 - t) * self.variances

    def _posterior(self, t: Tensor, z: Tensor) -> Tensor:
        m, width = self._class_centres(t), self._width(t)
        # All is taken relative to the middle of the classes: what cancels in the comparison of
        # classes would otherwise take the digits of what does not.
        middle = m.mean(dim=0)
        m = m - middle
        whitened = m / width
        log_ratio = torch.addmm(-(whitened * m).sum(dim=1) / 2, z - middle, whitened.T)
        if self.config["dof"] is not None:
            distances = ((z - middle).square() @ (1 / width))[:, None] - 2 * log_ratio
            log_ratio = log_t_density(distances, self.config["dof"])
        if self.config["text_weight"]:
            cosines = directions(z) @ directions(self.targets).T
            log_ratio.add_(cosines, alpha=self.config["text_weight"])
        return (log_ratio + self.log_prior).softmax(dim=1)

    def _rebuild(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        self.__init__(**weights, **config)  # type: ignore[misc]


def log_t_density(distances: Tensor, dof: float) -> Tensor:
    """Log-density of the multivariate t, up to a constant, at squared Mahalanobis distances.

    The exponent is ``-dof / 2``: the predictive density of features whose covariance was estimated
    with ``dof`` degrees of freedom. It tends to the Gaussian, ``-distances / 2``.
    """
    return torch.log1p(distances.clamp_min(0) / dof) * (-dof / 2)
