r"""The noisy path from a feature to its class embedding, and its time derivative.

All functions are pure and work on torch tensors in the feature space. Shapes: ``x0``, ``x1`` and
``eps`` are (n, d); ``t`` is 0-dimensional or (n,). With :math:`\sigma` the absolute size of the
noise per coordinate (``noise_std``),

.. math::

    x_t &= (1 - t)\, x_0 + t\, x_1 + \sigma \sqrt{t (1 - t)}\, \varepsilon, \qquad
        \varepsilon \sim N(0, I) \\
    u_t &= \frac{\mathrm{d} x_t}{\mathrm{d} t}
         = x_1 - x_0 + \sigma \frac{1 - 2t}{2 \sqrt{t (1 - t)}}\, \varepsilon

Source: Jiang, Wang and Chen, "Exploring Cross-Modal Flows for Few-Shot Learning", ICLR 2026
(arXiv 2510.14543). There the noise has a fixed size; here it is a multiple of the size of the
features (:func:`rms`), so that one value means the same for every encoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

T_MIN = 1e-3
"""Distance from both ends of [0, 1] within which the noise of the target is frozen.

The noise factor of ``u_t`` grows like :math:`1 / \\sqrt{t}` at both ends and so does the spread of
the regression target. On [T_MIN, 1 - T_MIN], ends included, ``u_t`` is the exact derivative of
``x_t``; outside, its noise factor keeps the value that it has at T_MIN, about 15.8.
"""


def rms(x: Tensor) -> float:
    """Root mean square of all entries of ``x``: 1 / sqrt(d) for unit rows of width d."""
    # Rows first: a float32 sum over all of a large array loses its last digits, then others.
    lengths = torch.linalg.vector_norm(x, dim=1).cpu().double()
    return float(torch.linalg.vector_norm(lengths)) / math.sqrt(x.numel())


def point(t: Tensor, x0: Tensor, x1: Tensor, eps: Tensor | None, noise_std: float) -> Tensor:
    """Where the path is at time ``t``: x_t, shape (n, d). Without noise ``eps`` may be None."""
    t = _column(t)
    x_t = torch.lerp(x0, x1, t.to(x0.dtype))
    if noise_std == 0:
        return x_t
    assert eps is not None, "noise needs draws"
    return x_t.addcmul_(eps, noise_std * torch.sqrt(t * (1 - t)))


def derivative(t: Tensor, x0: Tensor, x1: Tensor, eps: Tensor | None, noise_std: float) -> Tensor:
    """How fast the path moves at time ``t``: u_t, shape (n, d), finite on all of [0, 1].

    This is the regression target of flow matching. See :data:`T_MIN` for what happens to its
    noise at the ends.
    """
    u_t = x1 - x0
    if noise_std == 0:
        return u_t
    assert eps is not None, "noise needs draws"
    t = _column(t.clamp(T_MIN, 1 - T_MIN))
    return u_t.addcmul_(eps, noise_std * (1 - 2 * t) / (2 * torch.sqrt(t * (1 - t))))


def _column(t: Tensor) -> Tensor:
    """One time per row as a column, so that it broadcasts against (n, d)."""
    return t if t.ndim == 0 else t[:, None]
