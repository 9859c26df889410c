"""What a velocity field is: the protocol that all of them follow, and the table of their kinds.

A field is a torch module called as ``velocity_field(t, x)``: ``x`` of shape (n, d) are positions in
the feature space, ``t`` is one time for all rows, 0-dimensional, as in the solver; the result are
velocities of shape (n, d). A field that is trained also takes one time per row, (n,).
:class:`flowalign.gaussian.GaussianField` and :class:`flowalign.network.MLPField` are such fields.
"""

from flowalign.fields.base import KINDS, UNTRAINED, Fitted, Flow, Kind, VelocityField, kind_of

__all__ = ["KINDS", "UNTRAINED", "Fitted", "Flow", "Kind", "VelocityField", "kind_of"]
