r"""The closed-form flow of every support sample in a model that was fitted without it.

Leaving a sample out changes the Gaussian model by little: its class means by multiples of one
vector, its covariance by one rank. So the whole flow of n samples through n models takes five
products of (n, d) by (d, C) a step instead of two, and is exact up to what is held: the spreads of
the means (a, b), the ridge and the least variance of the covariance, the targets, the balance of
text and samples.

Estimated in float64 like the model; the flow itself is at home in float32, as any field is. Shapes
as in :mod:`flowalign.class_model`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.linalg import vecdot

from flowalign import path
from flowalign.class_model import Covariance, MeansPosterior, Support
from flowalign.fields.gaussian import GaussianField, log_t_density


class LeaveOneOutField(GaussianField):
    r"""Velocity field whose row i belongs to the model without support sample ``rows[i]``.

    With :math:`P` the covariance of the means, y the class of sample i and
    :math:`r = x_i - \hat\mu_y`,

    .. math::

        \hat\mu_c^{(-i)} = \hat\mu_c - \frac{P_{cy}}{1 - P_{yy}}\, r, \qquad
        W^{(-i)} = W - \alpha_i\, \rho_i \rho_i^T,

    where :math:`\rho_i = x_i - M_y` and :math:`\alpha_i = n_y / (n_y - 1)`; for the only sample of
    its class :math:`\rho_i = r` and :math:`\alpha_i = s / (1 - P_{yy})`, s the share of such
    classes. On the path the covariance is then :math:`S(t)` less
    :math:`(1 - t)^2 \alpha_i \rho_i \rho_i^T` over the divisor of the scatter, whose inverse
    follows by Sherman and Morrison. In a set with both kinds of classes a sample of a larger one
    leaves the single samples' share of the scatter as it is, an approximation.

    Parameters
    ----------
    basis, variances, means, targets, log_prior, noise_std, text_weight, tail
        Of the model with all samples, as in :class:`flowalign.fields.GaussianField`.
    rows : Tensor of shape (m,), int64
        The support samples.
    shift : Tensor of shape (m, C)
        :math:`P_{cy} / (1 - P_{yy})`.
    residuals, deviations : Tensor of shape (m, d)
        r and :math:`\rho`, in the field's coordinates.
    downdates : Tensor of shape (m,)
        :math:`\alpha` over the divisor of the scatter.
    """

    def __init__(
        self,
        basis: Tensor,
        variances: Tensor,
        means: Tensor,
        targets: Tensor,
        log_prior: Tensor,
        rows: Tensor,
        shift: Tensor,
        residuals: Tensor,
        deviations: Tensor,
        downdates: Tensor,
        **numbers: Any,
    ) -> None:
        super().__init__(basis, variances, means, targets, log_prior, **numbers)
        self.register_buffer("rows", rows)
        self.register_buffer("shift", shift)
        self.register_buffer("residuals", residuals)
        self.register_buffer("deviations", deviations)
        self.register_buffer("downdates", downdates)

    rows: Tensor
    shift: Tensor
    residuals: Tensor
    deviations: Tensor
    downdates: Tensor

    @classmethod
    def of(
        cls,
        X: Tensor,
        codes: Tensor,
        targets: Tensor,
        support: Support,
        means: MeansPosterior,
        covariance: Covariance,
        log_prior: Tensor,
        rows: Tensor,
        *,
        noise_std: float,
    ) -> LeaveOneOutField:
        """Take samples ``rows`` of ``X``, (n, d), out of a fitted model, each alone."""
        basis, y, place = covariance.basis, codes[rows], support.rows[rows]
        centres = means.means @ basis
        remaining = 1 - means.covariance[y, y]
        z = X[rows].double() @ basis
        residuals = z - centres[y]
        count = support.counts[place]
        alone = count == 1
        own = z - (support.means @ basis)[place]
        alpha = torch.where(
            alone, covariance.single_share / remaining, count / (count - 1).clamp_min(1)
        )
        return cls(
            basis,
            covariance.variances,
            centres,
            targets @ basis,
            log_prior,
            rows,
            means.covariance[y] / remaining[:, None],
            residuals,
            torch.where(alone[:, None], residuals, own),
            alpha / covariance.divisor,
            noise_std=noise_std,
        )

    def whole(self) -> GaussianField:
        """Field of the model with all samples."""
        return GaussianField(
            self.basis, self.variances, self.means, self.targets, self.log_prior, **self.config
        )

    def select(self, index: Tensor, targets: Tensor | None = None) -> LeaveOneOutField:
        """Keep some of the samples, and perhaps move the targets, (C, d) in the feature space."""
        per_row = ("rows", "shift", "residuals", "deviations", "downdates")
        changes = {name: getattr(self, name)[index] for name in per_row}
        if targets is not None:
            changes["targets"] = self.encode(targets)
        return self.replace(**changes)

    def distances(self, t: Tensor, z: Tensor) -> Tensor:
        """Squared Mahalanobis distances, (m, C), of states ``z``, (m, d), to all classes."""
        return self._distances(z, self._centres(t), *self._inverse(t), 1 - t)

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity, (m, d), at time ``t``, 0-dimensional; row i is a state of sample i."""
        t = t.clamp(max=1 - path.T_MIN)
        centres, inverse = self._centres(t), self._inverse(t)
        weights = self._row_posterior(z, self._distances(z, centres, *inverse, 1 - t))
        # The field in another form, since S' = -2 / (1 - t) S + sigma^2 I: without the noise a
        # straight line to the expected target.
        velocity = torch.addmm(z, weights, self.targets, beta=-1).div_(1 - t)
        noise = self.config["noise_std"] ** 2 / 2
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
        z = self.encode(x)
        return self._row_posterior(z, self.distances(t.clamp(max=1 - path.T_MIN), z))

    def _row_posterior(self, z: Tensor, distances: Tensor) -> Tensor:
        tail = self.config["tail"]
        density = distances.mul_(-0.5) if tail is None else log_t_density(distances, tail)
        return self._class_weights(density, z)

    def _inverse(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse covariance of each row: 1 / width, (d,), and gain, (m,), times v v^T, (m, d)."""
        width = self._width(t)
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
