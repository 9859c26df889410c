"""The paper's velocity field: a residual network modulated by time, trained by flow matching."""

from flowalign.network.field import MLPField

__all__ = ["MLPField"]
