r"""The closed-form flow of every support sample in a model that was fitted without it.

Leaving a sample out changes the Gaussian model by little: its class means by multiples of one
vector, its covariance by one rank. So the whole flow of n samples through n models costs about
three times that through one, and is exact up to what is held: the spreads of the means (a, b), the
ridge and the rotation of the covariance, the targets, the balance of text and samples.

All tensors are float64; shapes as in :mod:`flowalign.class_model`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
        z = X[rows] @ basis
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
        centres, width = self._centres(t), self._width(t)
        middle = centres.mean(dim=0)  # what cancels should not take the digits of what does not
        z, centres = z - middle, centres - middle
        shift = (1 - t) * self.shift
        whitened, residuals = z / width, self.residuals / width
        squares = (whitened * z).sum(dim=1)[:, None] + (centres / width * centres).sum(dim=1)
        along = (residuals * z).sum(dim=1)[:, None] - residuals @ centres.T
        length = (residuals * self.residuals).sum(dim=1)[:, None]
        distances = squares - 2 * whitened @ centres.T + 2 * shift * along + shift.square() * length
        # So far in the covariance of all samples. Along the deviation it is narrower without one.
        deviations, gain = self._inverse_update(t, width)
        across = (deviations * z).sum(dim=1)[:, None] - deviations @ centres.T
        across = across + shift * (deviations * self.residuals).sum(dim=1)[:, None]
        return distances + gain * across.square()

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity, (m, d), at time ``t``, 0-dimensional; row i is a state of sample i."""
        t = t.clamp(max=1 - path.T_MIN)
        distances = self.distances(t, z)
        tail = self.config["tail"]
        density = -distances / 2 if tail is None else log_t_density(distances, tail)
        weights = self._class_weights(density, z)
        # The field in another form: S' = -2 / (1 - t) S + sigma^2 I, without the noise a straight
        # line to the expected target.
        velocity = (weights @ self.targets - z) / (1 - t)
        if not self.config["noise_std"]:
            return velocity
        width = self._width(t)
        shift = (1 - t) * (weights * self.shift).sum(dim=1, keepdim=True)
        off_centre = z - weights @ self._centres(t) + shift * self.residuals
        deviations, gain = self._inverse_update(t, width)
        along = (deviations * off_centre).sum(dim=1, keepdim=True)
        whitened = off_centre / width + gain * along * deviations
        return velocity + self.config["noise_std"] ** 2 / 2 * whitened

    def _inverse_update(self, t: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors v, (m, d), and factors g, (m, 1), such that a row's inverse has g v v^T more."""
        downdates = (1 - t) ** 2 * self.downdates
        whitened = self.deviations / width
        # The ridge keeps the denominator positive.
        gain = downdates / (1 - downdates * (whitened * self.deviations).sum(dim=1))
        return whitened, gain[:, None]
