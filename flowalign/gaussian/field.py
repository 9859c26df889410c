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

Two additions make the field more than the minimiser, and both act on :math:`p` alone. In a joint
space the evidence of the text is added to the log-weights,

.. math:: \omega \cos(x, e_c) + \omega' \cos(x - m(t), e_c - \bar e),

the cosine of zero-shot classification, and the cosine relative to the middle of the classes,
:math:`m(t)`, and of their embeddings, :math:`\bar e` (:mod:`flowalign.gaussian.evidence`). And
since the covariance is an estimate, the density then has the heavier tails of a multivariate t.

``docs/theory.rst`` derives all of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.linalg import vector_norm

from flowalign import path
from flowalign.fields.base import VelocityField
from flowalign.sphere import directions

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_NUMBER = 1e18  # in a file; its square has a place in float32


class Start(NamedTuple):
    """What tells the classes apart before rows move.

    Attributes
    ----------
    z : Tensor of shape (n, d)
        Rows in the coordinates of the field.
    distances : Tensor of shape (n, C) or None
        Squared Mahalanobis distances to the class means, if they are known.
    text : Tensor of shape (n, C) or None
        Weighted evidence of the text, if there is any.
    """

    z: Tensor
    distances: Tensor | None = None
    text: Tensor | None = None


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
    centred_text_weight : float
        Weight of the cosine between both relative to their middles.
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
        centred_text_weight: float = 0.0,
        tail: float | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "noise_std": float(noise_std),
            "text_weight": float(text_weight),
            "centred_text_weight": float(centred_text_weight),
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

    def velocity(self, t: Tensor, z: Tensor, start: Start | None = None) -> Tensor:
        """Velocity, (n, d), at time ``t``, 0-dimensional, and positions ``z``, (n, d).

        At time 0, ``start`` may say what :meth:`start` says of them.
        """
        if t.ndim > 0:
            raise ValueError(
                f"t must be one time for all rows, got shape {tuple(t.shape)}; use torch.vmap for "
                "one per row."
            )
        t = t.clamp(max=1 - path.T_MIN)
        centres, variance = self.centres(t), self.variance(t)
        growth = self._variance_rate(t) / (2 * variance)
        displacement = self.targets - self.means - growth * centres
        if start is None:
            log_weights = self._log_weights(z, centres, variance)
        else:
            log_weights = self.weigh_start(start)
        return torch.addmm(growth * z, log_weights.softmax(dim=1), displacement)

    def start(self, z: Tensor) -> Start:
        """Return what tells the classes apart at time 0, at positions ``z``, (n, d).

        Fields of one model agree in it, whatever their noise, priors, tails and targets, as long as
        text is evidence for all of them or for none.
        """
        distances = self.distances(z, self.means, self.variances)
        if not self._hears_text:
            return Start(z, distances)
        text = self.add_text(torch.zeros_like(distances), z, self.means.mean(dim=0))
        return Start(z, distances, text)

    def weigh_start(self, start: Start) -> Tensor:
        """Log-weights of the classes at time 0, (n, C), up to a number for each row."""
        tail, distances = self.config["tail"], start.distances
        if distances is None:
            return self._log_weights(start.z, self.means, self.variances)
        density = distances * -0.5 if tail is None else log_t_density(distances, tail)
        if start.text is not None:
            density.add_(start.text)
        return density.add_(self.log_prior)

    def starts_as(self, other: GaussianField) -> bool:
        """Whether what :meth:`start` says is the same of both."""
        names = ["basis", "variances", "means", *(["targets"] if self._hears_text else [])]
        weights = ("text_weight", "centred_text_weight")
        return all(self.config[name] == other.config[name] for name in weights) and all(
            torch.equal(getattr(self, name), getattr(other, name)) for name in names
        )

    @property
    def _hears_text(self) -> bool:
        return bool(self.config["text_weight"] or self.config["centred_text_weight"])

    def posterior(self, t: Tensor, x: Tensor) -> Tensor:
        """Class weights p(c | x, t), (n, C), at positions ``x``, (n, d), in the feature space."""
        return self.log_weights(t, x).softmax(dim=1)

    def log_weights(self, t: Tensor, x: Tensor) -> Tensor:
        """Logarithms of the class weights, (n, C), up to a number for each row."""
        t = t.clamp(max=1 - path.T_MIN)
        return self._log_weights(self.rotate(x), self.centres(t), self.variance(t))

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

    def _log_weights(self, z: Tensor, centres: Tensor, variance: Tensor) -> Tensor:
        density = self.distances(z, centres, variance, common=self.config["tail"] is not None)
        return self.weigh(density, z, centres.mean(dim=0))

    @staticmethod
    def distances(z: Tensor, centres: Tensor, variance: Tensor, *, common: bool = True) -> Tensor:
        """Squared Mahalanobis distances, (n, C), of states ``z``, (n, d), to centres, (C, d).

        What those of a row have in common is left out if it does not matter.
        """
        # All is taken relative to the middle of the classes: what cancels in the comparison of
        # classes would otherwise take the digits of what does not.
        middle = centres.mean(dim=0)
        z, centres = z - middle, centres - middle
        whitened = centres / variance
        distances = torch.addmm((whitened * centres).sum(dim=1), z, whitened.T, alpha=-2)
        return distances.add_((z.square() @ (1 / variance))[:, None]) if common else distances

    def weigh(self, distances: Tensor, z: Tensor, middle: Tensor) -> Tensor:
        """Log-weights of the classes, (n, C), from distances to them; these are overwritten.

        ``middle``, (d,) or (n, d), is that of the classes at this time.
        """
        tail = self.config["tail"]
        density = distances.mul_(-0.5) if tail is None else log_t_density(distances, tail)
        return self.add_text(density, z, middle).add_(self.log_prior)

    def add_text(self, said: Tensor, z: Tensor, middle: Tensor) -> Tensor:
        """Add the evidence of the text for states ``z`` to log-weights, which are overwritten."""
        if self._hears_text:
            weights = self.config["text_weight"], self.config["centred_text_weight"]
            for weight, cosines in zip(weights, self.text_cosines(z, middle), strict=True):
                said.add_(cosines, alpha=weight)
        return said

    def text_cosines(self, z: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of states, (n, d), with the targets, as they are and both about their middles.

        Each is of shape (n, C); of the former what all classes share is left out.
        """
        units = directions(self.targets)
        contrasts = units - units.mean(dim=0)
        lengths = vector_norm(contrasts, dim=1)
        # Embeddings that agree in half of their digits differ by little but rounding.
        lengths.clamp_min_(torch.finfo(z.dtype).eps ** 0.5)
        products = z @ contrasts.T
        about_middle = products - middle @ contrasts.T
        return products / _lengths(z), about_middle.div_(_lengths(z - middle)).div_(lengths)

    def common_cosines(self, z: Tensor) -> Tensor:
        """Mean of the cosines of states, (n, d), with the targets: (n,)."""
        return directions(z) @ directions(self.targets).mean(dim=0)

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
            set(config) != {"noise_std", "text_weight", "centred_text_weight", "tail"}
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


def _lengths(x: Tensor) -> Tensor:
    """Lengths of rows, (n, 1), never 0."""
    return vector_norm(x, dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def log_t_density(distances: Tensor, tail: float) -> Tensor:
    """Log-density of a multivariate t, up to a constant, at squared Mahalanobis distances.

    In d dimensions it has ``tail - d`` degrees of freedom. It tends to the Gaussian,
    ``-distances / 2``.
    """
    return torch.log1p(distances.clamp_min(0) / tail) * (-tail / 2)
