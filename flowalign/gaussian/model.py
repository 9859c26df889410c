r"""The Gaussian model of the classes, and everything made from it.

.. math::

    x \mid c \sim N(\mu_c, \Sigma), \qquad
    \mu \sim \text{Gaussian process over the class embeddings}

estimated by empirical Bayes from few samples: the class means in :mod:`flowalign.gaussian.means`,
the covariance in :mod:`flowalign.gaussian.covariance`. Its tensors are float64, on the device of
the fit, in the feature space; variances of class means are in units of :math:`\Sigma`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from flowalign.gaussian.covariance import Covariance, estimate_covariance
from flowalign.gaussian.evidence import Evidence
from flowalign.gaussian.field import GaussianField, log_t_density
from flowalign.gaussian.leave_one_out import LeaveOneOut
from flowalign.gaussian.means import MeansPosterior, estimate_means
from flowalign.gaussian.novelty import with_unseen_class
from flowalign.gaussian.posterior import ClassPosterior
from flowalign.gaussian.sampling import draw
from flowalign.gaussian.statistics import ClassStatistics
from flowalign.inputs import as_numpy
from flowalign.sphere import CLIP_SCALE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MAX_NOISE_RATIO = 4.0
"""Largest ratio of the noise's variance to a variance within classes.

Noise widens a class in its narrow directions before it shrinks, at first at a rate of half this
ratio less one. At a ratio of 4 a first Euler step of 0.1 overshoots by 2 percent, at 10 by 7, at
100 by 88. Smaller variances are raised: noise then acts as the regulariser that it is meant to be.
"""

PARTS = {"statistics": ClassStatistics, "class_means": MeansPosterior, "within": Covariance}


@dataclass(frozen=True, eq=False)
class GaussianModel:
    r"""The Gaussian model of the classes after a fit; ``aligner.gaussian_model_``.

    Attributes
    ----------
    statistics : flowalign.gaussian.statistics.ClassStatistics
        What the model was estimated from: ``counts`` (C,), ``sums`` (C, d) and ``scatter``. The
        statistics of two parts of the data add up.
    class_means : flowalign.gaussian.means.MeansPosterior
        Estimates of the class means: expected ``means`` (C, d) and their ``covariance`` (C, C) in
        units of :math:`\Sigma`, whose diagonal is small for classes with many samples and large for
        classes without. ``text_spread`` and ``residual_spread`` are the variances between classes
        that the names explain and do not explain.
    within : flowalign.gaussian.covariance.Covariance
        :math:`\Sigma`, by its eigenvectors ``basis`` (d, d) and eigenvalues ``variances`` (d,).
    evidence : flowalign.gaussian.evidence.Evidence or None
        Weights of the samples (``density``) and, in a joint space, of the class embeddings
        (``text``, ``centred_text``); None before they are weighed.

    Notes
    -----
    Give it features as the field sees them: of length 1, if the aligner normalises. A pickle holds
    numpy arrays and opens on the CPU; an aligner moves the model to its device.

    Examples
    --------
    A class that has a name and no samples:

    >>> import numpy as np
    >>> from flowalign import FlowMatchingAligner
    >>> from flowalign.datasets import few_shot, make_cross_modal
    >>> data = make_cross_modal(random_state=0)
    >>> X, y = few_shot(data.X_train, data.y_train, n_shots=4, random_state=0)
    >>> known = y != data.class_names[0]
    >>> aligner = FlowMatchingAligner(data.class_embeddings).fit(X[known], y[known])
    >>> means = aligner.gaussian_model_.class_means
    >>> share = means.text_spread / (means.text_spread + means.residual_spread)
    >>> bool(0 < share <= 1)  # of the spread between class means, what the names explain
    True
    >>> uncertainty = means.covariance.diagonal()  # in units of the variance within classes
    >>> bool(uncertainty[0] > 2 * uncertainty[1:].max())
    True

    and how likely it finds new rows under each class:

    >>> rows = data.X_test[:5] / np.linalg.norm(data.X_test[:5], axis=1, keepdims=True)
    >>> aligner.gaussian_model_.log_density(rows).shape == (5, len(aligner.classes_))
    True
    """

    statistics: ClassStatistics
    class_means: MeansPosterior
    within: Covariance
    evidence: Evidence | None = None

    @classmethod
    def of(cls, statistics: ClassStatistics, E: Tensor | None = None) -> GaussianModel:
        """Estimate the model from statistics and class embeddings, (C, e), if there is text."""
        if not statistics.n:
            raise ValueError("statistics have no samples; a model needs one at least.")
        if E is not None and len(E) != len(statistics.counts):
            raise ValueError(
                f"E must have one embedding for each of the {len(statistics.counts)} classes of "
                f"the statistics, got {len(E)}."
            )
        means, precision = estimate_means(statistics, E)
        return cls(statistics, means, estimate_covariance(statistics, means, precision))

    def field(self, targets: Tensor, log_prior: Tensor, *, noise_std: float = 0.0) -> GaussianField:
        """Velocity field that carries each class to its target.

        Parameters
        ----------
        targets : Tensor of shape (C, d)
            In the feature space. With evidence, they are the class embeddings.
        log_prior : Tensor of shape (C,)
            Log-probabilities of the classes.
        noise_std : float
            Size of the noise on the path per coordinate.

        Returns
        -------
        GaussianField
            In float64. Unless text is evidence it is the exact minimiser of the flow matching loss.
        """
        if self.evidence is not None and self.evidence.heeds_text:
            field = self.classifier(targets, log_prior).field
            assert isinstance(field, GaussianField)
        else:
            basis, variances = self.within.basis, self.within.variances
            field = GaussianField(
                basis, variances, self.class_means.means @ basis, targets @ basis, log_prior
            )
        variances = field.variances.clamp_min(noise_std**2 / MAX_NOISE_RATIO)
        return field.replace(variances=variances, noise_std=noise_std)

    def classifier(self, targets: Tensor, log_prior: Tensor) -> ClassPosterior:
        """Class probabilities of rows before they move, from density and text as weighed.

        Parameters
        ----------
        targets : Tensor of shape (C, d)
            Class embeddings; they count in a joint space only.
        log_prior : Tensor of shape (C,)
            Log-probabilities of the classes.

        Raises
        ------
        ValueError
            If the model has no evidence, which comes with a fit.
        """
        if self.evidence is None:
            raise ValueError("The model has no evidence; a classifier needs some.")
        # At the temperature of the density: softer weights would let classes blend all along a
        # flow. Dividing by beta leaves the order of the classes as weighed.
        beta, text, centred_text = self.evidence
        basis = self.within.basis
        field = GaussianField(
            basis,
            self.within.variances,
            self.class_means.means @ basis,
            targets @ basis,
            log_prior / beta,
            text_weight=CLIP_SCALE * text / beta,
            centred_text_weight=CLIP_SCALE * centred_text / beta,
            tail=float(self.within.tail),
        )
        means = self.class_means
        unseen = means.common_variance + means.text_spread + means.residual_spread
        uncertainty = torch.cat([means.covariance.diagonal(), basis.new_full((1,), unseen)])
        return ClassPosterior(field, beta, means.common @ basis, 1 + uncertainty)

    def without_each(self, field: GaussianField, x: Tensor, codes: Tensor) -> LeaveOneOut:
        """Twin of a field of this model, for samples that are left out of it one at a time.

        Parameters
        ----------
        field : GaussianField
            Of this model, in any dtype.
        x : Tensor of shape (m, d)
            Some of the samples behind the statistics.
        codes : Tensor of shape (m,), int64
            Their classes.
        """
        basis, covariance = self.within.basis, self.class_means.covariance
        remaining = 1 - covariance[codes, codes]
        z = x.double() @ basis
        residuals = z - (self.class_means.means @ basis)[codes]
        count = self.statistics.counts[codes]
        alone = count == 1
        own = z - (self.statistics.means @ basis)[codes]
        alpha = torch.where(
            alone, self.within.single_share / remaining, count / (count - 1).clamp_min(1)
        )
        dtype = field.basis.dtype
        return LeaveOneOut(
            field,
            (covariance[codes] / remaining[:, None]).to(dtype),
            residuals.to(dtype),
            torch.where(alone[:, None], residuals, own).to(dtype),
            (alpha / self.within.divisor).to(dtype),
        )

    def log_density(self, X: ArrayLike | Tensor) -> Tensor:
        r"""Log-density of each class at new rows: the predictive, a normalised multivariate t.

        With :math:`\nu` degrees of freedom and P the covariance of the means, that of class c is

        .. math::

            t_\nu\left(x;\ \hat\mu_c,\ \tfrac{\nu + d}{\nu} (1 + P_{cc})\, \Sigma\right),
            \qquad \nu = \max(n - 1, 1):

        wider if the mean of the class is less certain, and with tails because the covariance is an
        estimate.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)

        Returns
        -------
        Tensor of shape (n, C)
            float64, on the device of the model.

        Raises
        ------
        ValueError
            If X is not of the width of the features, or not finite.
        """
        variances, tail = self.within.variances, float(self.within.tail)
        d = len(variances)
        array = X if torch.is_tensor(X) else np.array(as_numpy(X, "X"), dtype=np.float64)
        x = torch.as_tensor(array, device=variances.device).double()
        if x.ndim != 2 or x.shape[1] != d:
            raise ValueError(f"X must be rows of {d} features, got shape {tuple(x.shape)}.")
        if not bool(x.isfinite().all()):
            raise ValueError("X contains NaN or infinity; drop those rows.")
        # About the common mean, so that what cancels does not take the digits of what does not.
        scale = self.within.basis / variances.sqrt()
        z, centres = (
            (rows - self.class_means.common) @ scale for rows in (x, self.class_means.means)
        )
        distances = torch.addmm(centres.square().sum(dim=1), z, centres.T, alpha=-2)
        distances += z.square().sum(dim=1)[:, None]
        widening = 1 + self.class_means.covariance.diagonal()
        norm = math.lgamma(tail / 2) - math.lgamma((tail - d) / 2)
        norm -= (d * math.log(math.pi * tail) + float(variances.log().sum())) / 2
        return log_t_density(distances / widening, tail) - d / 2 * widening.log() + norm

    def log_relative_density(self, X: ArrayLike | Tensor) -> Tensor:
        """Log-density of the best class minus that of a class never seen, for new rows.

        High for rows that look like a known class. Below 0 a row looks more like a new class than
        like any known one. :mod:`flowalign.gaussian.novelty` has the equations.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)

        Returns
        -------
        Tensor of shape (n,)
            float64, on the device of the model.

        Raises
        ------
        ValueError
            If X is not of the width of the features, or not finite.
        """
        density = with_unseen_class(self).log_density(X)
        return density[:, :-1].amax(dim=1) - density[:, -1]

    def sample(self, codes: ArrayLike, random_state: Any = None) -> Tensor:
        """Draw rows of classes; :mod:`flowalign.gaussian.sampling` has the equations.

        Parameters
        ----------
        codes : array-like of int, of shape (n,)
            The class of each row, from 0 to C - 1.
        random_state : int, RandomState instance or None

        Returns
        -------
        Tensor of shape (n, d)
            float64, on the device of the model.
        """
        classes = torch.as_tensor(codes, dtype=torch.int64, device=self.within.basis.device)
        return draw(self, classes, check_random_state(random_state))

    def to(self, device: torch.device) -> GaussianModel:
        """Move to a device; to the CPU instead of one that lacks float64."""
        place = torch.device("cpu") if device.type == "mps" else device
        parts = {}
        for name in PARTS:
            part = getattr(self, name)
            tensors = {k: v.to(place) for k, v in vars(part).items() if isinstance(v, Tensor)}
            parts[name] = dataclasses.replace(part, **tensors)
        return dataclasses.replace(self, **parts)

    def __repr__(self) -> str:
        n_classes, width = self.statistics.sums.shape
        return f"GaussianModel({self.statistics.n} samples, {n_classes} classes, {width} features)"

    def __getstate__(self) -> dict[str, Any]:
        """Numbers and numpy arrays, by the names of their parts: ``"within.basis"``, and so on."""
        state: dict[str, Any] = {}
        for name in PARTS:
            for key, value in vars(getattr(self, name)).items():
                state[f"{name}.{key}"] = value.cpu().numpy() if torch.is_tensor(value) else value
        if self.evidence is not None:
            state |= {f"evidence.{k}": v for k, v in self.evidence._asdict().items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, cls in PARTS.items():
            values = {f.name: state[f"{name}.{f.name}"] for f in dataclasses.fields(cls)}
            # np.array copies: arrays from a memory map are read-only, which torch does not know.
            tensors = {k: torch.from_numpy(np.array(v)) for k, v in values.items() if np.ndim(v)}
            object.__setattr__(self, name, cls(**values | tensors))
        weights: dict[str, Any] = {k: state.get(f"evidence.{k}") for k in Evidence._fields}
        known = None not in weights.values()
        object.__setattr__(self, "evidence", Evidence(**weights) if known else None)
