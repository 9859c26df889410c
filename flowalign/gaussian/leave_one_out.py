r"""The closed-form flow of every support sample in a model that was fitted without it.

Leaving a sample out changes the Gaussian model by little: its class means by multiples of one
vector, its covariance by one rank. So the whole flow of n samples through n models takes five
products of (n, d) by (d, C) a step instead of two. It equals refitting n models, except that these
stay fixed: the spreads of the means (a, b), the ridge and the least variance of the covariance, the
targets, the weights of text and samples.

Left-out models are estimated in float64, like the model; the flow itself runs in float32, like any
field. Shapes as in :mod:`flowalign.gaussian.model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.linalg import vecdot

from flowalign import path
from flowalign.gaussian.field import GaussianField


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    r"""The twin of a field whose row i belongs to the model without sample i.

    It can be solved like a field, but only for these rows. With :math:`P` the
    covariance of the means, y the class of sample i and :math:`r = x_i - \hat\mu_y`,

    .. math::

        \hat\mu_c^{(-i)} = \hat\mu_c - \frac{P_{cy}}{1 - P_{yy}}\, r, \qquad
        W^{(-i)} = W - \alpha_i\, \rho_i \rho_i^T,

    where :math:`\rho_i = x_i - M_y` and :math:`\alpha_i = n_y / (n_y - 1)`; for the only sample of
    its class :math:`\rho_i = r` and :math:`\alpha_i = s / (1 - P_{yy})`, s the share of such
    classes. On the path the covariance is then :math:`S(t)` less
    :math:`(1 - t)^2 \alpha_i \rho_i \rho_i^T` over the divisor of the scatter, whose inverse
    follows by Sherman and Morrison. In a set with both kinds of classes a sample of a larger one
    leaves the single samples' share of the scatter as it is, an approximation.

    Attributes
    ----------
    field : GaussianField
        Of the model with all samples; the tensors below are in its coordinates, on its device and
        in its dtype.
    shift : Tensor of shape (m, C)
        :math:`P_{cy} / (1 - P_{yy})`, for the m samples that are left out.
    residuals, deviations : Tensor of shape (m, d)
        r and :math:`\rho`.
    downdates : Tensor of shape (m,)
        :math:`\alpha` over the divisor of the scatter.
    """

    field: GaussianField
    shift: Tensor
    residuals: Tensor
    deviations: Tensor
    downdates: Tensor
    singular_end: ClassVar[bool] = GaussianField.singular_end

    def to(self, device: torch.device) -> LeaveOneOut:
        """Move to the device of its field."""
        return LeaveOneOut(**{name: part.to(device) for name, part in vars(self).items()})

    def rotate(self, x: Tensor) -> Tensor:
        """From the feature space to the field's coordinates."""
        return self.field.rotate(x)

    def rotate_back(self, z: Tensor) -> Tensor:
        """From the field's coordinates to the feature space."""
        return self.field.rotate_back(z)

    def distances(self, t: Tensor, z: Tensor) -> Tensor:
        """Squared Mahalanobis distances, (m, C), of states ``z``, (m, d), to all classes."""
        return self._distances(z, self.field.centres(t), *self._inverse(t), 1 - t)

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity, (m, d), at time ``t``, 0-dimensional; row i is a state of sample i."""
        t = t.clamp(max=1 - path.T_MIN)
        centres, inverse = self.field.centres(t), self._inverse(t)
        distances = self._distances(z, centres, *inverse, 1 - t)
        weights = self._log_weights(t, z, distances).softmax(dim=1)
        # The field in another form, since S' = -2 / (1 - t) S + sigma^2 I: without the noise a
        # straight line to the expected target.
        velocity = torch.addmm(z, weights, self.field.targets, beta=-1).div_(1 - t)
        noise = self.field.config["noise_std"] ** 2 / 2
        if noise:
            width, whitened, gain = inverse
            shift = (1 - t) * vecdot(weights, self.shift)
            off_centre = torch.addmm(z, weights, centres, alpha=-1)
            off_centre.addcmul_(self.residuals, shift[:, None])
            along = noise * gain * vecdot(whitened, off_centre)
            velocity.addcdiv_(off_centre, width, value=noise)
            velocity.addcmul_(whitened, along[:, None])
        return velocity

    def posterior(self, t: Tensor, x: Tensor) -> Tensor:
        """Class weights, (m, C), at positions ``x``, (m, d), in the feature space."""
        return self.log_weights(t, x).softmax(dim=1)

    def log_weights(self, t: Tensor, x: Tensor) -> Tensor:
        """Logarithms of the class weights, (m, C), up to a number for each row."""
        z, t = self.rotate(x), t.clamp(max=1 - path.T_MIN)
        return self._log_weights(t, z, self.distances(t, z))

    def middles(self, t: Tensor) -> Tensor:
        """Middle of the classes in the model of each sample: (m, d)."""
        shift = (1 - t) * self.shift.mean(dim=1, keepdim=True)
        return self.field.centres(t).mean(dim=0) - shift * self.residuals

    def _log_weights(self, t: Tensor, z: Tensor, distances: Tensor) -> Tensor:
        return self.field.weigh(distances, z, self.middles(t))

    def _inverse(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse covariance of each row: 1 / width, (d,), and gain, (m,), times v v^T, (m, d)."""
        width = self.field.variance(t)
        whitened = self.deviations / width
        downdates = (1 - t) ** 2 * self.downdates
        # The ridge keeps the denominator positive.
        return width, whitened, downdates / (1 - downdates * vecdot(whitened, self.deviations))

    def _distances(
        self,
        z: Tensor,
        centres: Tensor,
        width: Tensor,
        whitened: Tensor,
        gain: Tensor,
        left: Tensor,
    ) -> Tensor:
        middle = centres.mean(dim=0)  # what cancels should not take the digits of what does not
        z, centres = z - middle, centres - middle
        shift, narrow = left * self.shift, centres / width
        residuals = self.residuals / width
        distances = torch.addmm(vecdot(narrow, centres), z, narrow.T, alpha=-2)
        distances.add_(vecdot(z / width, z)[:, None])
        # The means are elsewhere by multiples of the residual.
        along = torch.addmm(vecdot(residuals, z)[:, None], residuals, centres.T, alpha=-1)
        length = vecdot(residuals, self.residuals)[:, None]
        distances.add_(along.mul_(2).addcmul_(shift, length).mul_(shift))
        # The covariance is narrower along the deviation.
        across = torch.addmm(vecdot(whitened, z)[:, None], whitened, centres.T, alpha=-1)
        across.addcmul_(shift, vecdot(whitened, self.residuals)[:, None])
        return distances.addcmul_(across.square_(), gain[:, None])
