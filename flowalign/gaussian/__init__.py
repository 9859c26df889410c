"""The closed form: a Gaussian model of the classes, and its exact velocity field.

From samples to a field: :mod:`~flowalign.gaussian.statistics` of the samples, the class
:mod:`~flowalign.gaussian.means` and the :mod:`~flowalign.gaussian.covariance` estimated from them,
the :mod:`~flowalign.gaussian.model` that they make, the weights of its
:mod:`~flowalign.gaussian.evidence` by the samples, each :mod:`~flowalign.gaussian.left_out`, and
its :mod:`~flowalign.gaussian.field`. What it says of a row before anything moves is its
:mod:`~flowalign.gaussian.posterior`, and whether the row is of any class, its
:mod:`~flowalign.gaussian.novelty`. It may take in rows that are
:mod:`~flowalign.gaussian.unlabeled`.
"""

from flowalign.gaussian.field import GaussianField
from flowalign.gaussian.model import GaussianModel

__all__ = ["GaussianField", "GaussianModel"]
