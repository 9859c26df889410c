"""Velocity fields: one a file, one protocol.

A field is a torch module called as ``velocity_field(t, x)``: ``x`` of shape (n, d) are positions in
the feature space, ``t`` is one time for all rows, 0-dimensional, as in the solver; the result are
velocities of shape (n, d). A field that is trained also takes one time per row, (n,).
"""

from flowalign.fields.base import VelocityField
from flowalign.fields.gaussian import GaussianField
from flowalign.fields.mlp import MLPField

__all__ = ["GaussianField", "MLPField", "VelocityField"]
