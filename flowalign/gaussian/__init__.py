"""The closed form: a Gaussian model of the classes, and its exact velocity field.

From samples to a field: :mod:`~flowalign.gaussian.statistics` of the samples, the class
:mod:`~flowalign.gaussian.means` and the :mod:`~flowalign.gaussian.covariance` estimated from them,
the :mod:`~flowalign.gaussian.model` that they make, in joint spaces the weights of its
:mod:`~flowalign.gaussian.evidence`, and its :mod:`~flowalign.gaussian.field`.
"""

from flowalign.gaussian.field import GaussianField
from flowalign.gaussian.model import GaussianModel

__all__ = ["GaussianField", "GaussianModel"]
