r"""The learned field: a residual network whose every block is modulated by time.

With :math:`h` the state of width ``hidden_dim`` and :math:`(a_k, b_k, g_k)` shift, scale and gate
of block :math:`k` at time :math:`t`,

.. math::

    h &\leftarrow W_\mathrm{in} x \\
    h &\leftarrow h + g_k \odot W'_k\, \mathrm{SiLU}\bigl(W_k
        [(1 + b_k) \odot \mathrm{LN}(h) + a_k]\bigr), \qquad k = 1 \dots K \\
    v(t, x) &= W_\mathrm{out} [(1 + b_\mathrm{out}) \odot \mathrm{LN}(h) + a_\mathrm{out}]

(biases left out). Gates and the output start at zero, so that an untrained field does not move
anything. The network is that of Flow Matching Alignment [1]_ with one difference: there each block
has a matrix for its modulation, which takes three fifths of its products in training; here all
blocks share one modulation of t, and each adds a learned constant, as in PixArt-alpha [2]_.
``docs/decisions/0002-shared-modulation.md`` shows that the accuracy is the same.

References
----------
.. [1] Y. Jiang, Z. Wang and L. Chen, "Exploring Cross-Modal Flows for Few-Shot Learning",
   ICLR 2026, arXiv 2510.14543.
.. [2] J. Chen et al., "PixArt-alpha: Fast Training of Diffusion Transformer for Photorealistic
   Text-to-Image Synthesis", ICLR 2024, arXiv 2310.00426.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowalign.fields.base import VelocityField

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIME_SCALE = 1000.0  # the sinusoids see 1000 t, the range of times they were designed for
TIME_FEATURES = 64
MAX_PERIOD = 10_000.0


class MLPField(VelocityField):
    """Velocity field v(t, x) as a residual MLP with adaptive layer norm.

    Parameters
    ----------
    dim : int
        Width d of the feature space.
    hidden_dim : int
        Width of the blocks; a block holds two hidden x hidden products.
    n_blocks : int
        Number of residual blocks.

    Notes
    -----
    A new field has uninitialised weights: draw them with :meth:`reset_parameters` or load them.
    """

    def __init__(self, dim: int, hidden_dim: int, n_blocks: int) -> None:
        super().__init__()
        self.config = {"dim": int(dim), "hidden_dim": int(hidden_dim), "n_blocks": int(n_blocks)}
        self.project_in = _linear(dim, hidden_dim)
        self.time_in = _linear(TIME_FEATURES, TIME_FEATURES)
        self.time_out = _linear(TIME_FEATURES, 3 * hidden_dim)
        # Rows: shift, scale and gate of each block, then shift and scale of the output.
        self.modulation_offset = nn.Parameter(torch.empty(3 * n_blocks + 2, hidden_dim))
        self.inner = nn.ModuleList(_linear(hidden_dim, hidden_dim) for _ in range(n_blocks))
        self.outer = nn.ModuleList(_linear(hidden_dim, hidden_dim) for _ in range(n_blocks))
        self.project_out = _linear(hidden_dim, dim)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights (Glorot uniform) from a CPU generator; gates and output are zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if module not in (self.time_out, self.project_out):
                    nn.init.xavier_uniform_(module.weight, generator=generator)
        nn.init.zeros_(self.time_out.weight)
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.modulation_offset)

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """Velocity at time ``t``, 0-dimensional or (n,), and positions ``x``, (n, d)."""
        shift, scale, gate = self.time_out(functional.silu(self.time_in(time_features(t)))).chunk(
            3, dim=-1
        )
        # One time for all rows changes weights, which are few, instead of states, which are many.
        block, last = (_block, _last) if t.ndim else (_folded_block, _folded_last)
        *offsets, shift_out, scale_out = self.modulation_offset
        h = self.project_in(x)
        layers: Any = zip(self.inner, self.outer, strict=True)
        for k, (inner, outer) in enumerate(layers):
            shift_k, scale_k, gate_k = offsets[3 * k : 3 * k + 3]
            h = block(h, inner, outer, shift + shift_k, 1 + scale + scale_k, gate + gate_k)
        return last(h, self.project_out, shift + shift_out, 1 + scale + scale_out)

    @property
    def row_size(self) -> int:
        """Width of the features or of the blocks, whichever is larger."""
        return max(self.config["dim"], self.config["hidden_dim"])

    @classmethod
    def check(
        cls, config: dict[str, Any], weights: dict[str, NDArray[Any]], n_classes: int, width: int
    ) -> None:
        """Raise ValueError unless these numbers and arrays make a field."""
        hidden, n_blocks = weights["project_in.bias"].size, config.get("n_blocks", 0)
        # A number of blocks that the arrays do not have would be counted before it is compared.
        if (
            not all(type(number) is int for number in config.values())
            or config != {"dim": width, "hidden_dim": hidden, "n_blocks": n_blocks}
            or not 1 <= n_blocks <= len(weights)
        ):
            raise ValueError(f"field.config is {config}.")
        layers = {
            "project_in": (hidden, width),
            "time_in": (TIME_FEATURES, TIME_FEATURES),
            "time_out": (3 * hidden, TIME_FEATURES),
            "project_out": (width, hidden),
        }
        for k in range(n_blocks):
            layers |= {f"inner.{k}": (hidden, hidden), f"outer.{k}": (hidden, hidden)}
        shapes: dict[str, tuple[int, ...]] = {"modulation_offset": (3 * n_blocks + 2, hidden)}
        for name, shape in layers.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        cls.check_shapes(weights, shapes)

    def _rebuild(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        self.__init__(**config)  # type: ignore[misc]
        self.load_state_dict(weights, assign=True)


def time_features(t: Tensor) -> Tensor:
    """Cosines and sines of ``TIME_SCALE * t`` at geometric frequencies: (..., TIME_FEATURES)."""
    half = TIME_FEATURES // 2
    k = torch.arange(half, dtype=t.dtype, device=t.device)
    angle = TIME_SCALE * t[..., None] * torch.exp(-math.log(MAX_PERIOD) / half * k)
    return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)


def _block(
    h: Tensor, inner: nn.Linear, outer: nn.Linear, shift: Tensor, scale: Tensor, gate: Tensor
) -> Tensor:
    """Apply a block whose modulation differs by row: all of shape (n, hidden_dim)."""
    modulated = torch.addcmul(shift, _normalized(h), scale)
    return torch.addcmul(h, gate, outer(functional.silu(inner(modulated))))


def _last(h: Tensor, layer: nn.Linear, shift: Tensor, scale: Tensor) -> Tensor:
    return layer(torch.addcmul(shift, _normalized(h), scale))


def _folded_block(
    h: Tensor, inner: nn.Linear, outer: nn.Linear, shift: Tensor, scale: Tensor, gate: Tensor
) -> Tensor:
    """Apply a block with one modulation for all rows, (hidden_dim,), folded into its weights."""
    y = _folded_last(h, inner, shift, scale)
    if torch.is_grad_enabled():
        y = functional.silu(y)
        return torch.addmm(torch.addcmul(h, gate, outer.bias), y, outer.weight.T * gate)
    # In place: nobody asks for h or y again.
    y = functional.silu(y, inplace=True)
    return h.addcmul_(gate, outer.bias).addmm_(y, outer.weight.T * gate)


def _folded_last(h: Tensor, layer: nn.Linear, shift: Tensor, scale: Tensor) -> Tensor:
    bias = torch.addmv(layer.bias, layer.weight, shift)
    return functional.linear(_normalized(h), layer.weight * scale, bias)


def _normalized(h: Tensor) -> Tensor:
    return functional.layer_norm(h, h.shape[-1:])


def _linear(n_in: int, n_out: int) -> nn.Linear:
    """Make a layer without values: the usual constructor draws from the global generator."""
    return nn.utils.skip_init(nn.Linear, n_in, n_out)
