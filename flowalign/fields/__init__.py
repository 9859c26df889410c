"""Velocity fields: one a file, one protocol.

A field is a torch module called as ``velocity(t, x)``: ``x`` of shape (n, d) are positions in the
feature space, ``t`` is one time for all rows (0-dimensional, as in the solver) or one per row (n,),
as in training; the result are velocities of shape (n, d).
"""

from flowalign.fields.mlp import MLPField

__all__ = ["MLPField"]
