"""New rows on the device of a field, a block at a time.

A look at every block would stall a GPU: it computes while the host is already at the next blocks.
So what is wrong with rows is noted where they are, and told when all of them are through; on a CPU,
where a look costs nothing, after each block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowalign import blocks
from flowalign.inputs import shorten
from flowalign.sphere import LARGEST

if TYPE_CHECKING:
    from numpy.typing import NDArray


SMALLEST = np.finfo(np.float64).tiny


class RowBlocks:
    """Features as the model takes them, in blocks of bounded memory.

    Parameters
    ----------
    features : ndarray or Tensor of shape (n, d)
        float32 or float64. Tensors may be on any device, and stay there if it is the right one.
    device : torch.device
        Where blocks are to be.
    dtype : torch.dtype
        Of the blocks.
    normalize : bool
        Whether rows are scaled to length 1.
    zeros_allowed : bool
        Whether rows of zeros may be among them.
    rows : int
        Of a block.
    first : int
        Number of the first row, for messages.
    """

    def __init__(
        self,
        features: NDArray[Any] | Tensor,
        device: torch.device,
        dtype: torch.dtype,
        *,
        normalize: bool,
        zeros_allowed: bool,
        rows: int,
        first: int = 0,
    ) -> None:
        self.features, self.device, self.dtype = features, device, dtype
        self.normalize, self.zeros_allowed = normalize, zeros_allowed
        self.rows, self.first = rows, first
        self._noted: list[tuple[Tensor, str, slice, Tensor | None]] = []
        self._block = slice(0, 0)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of the first row of each block, and its rows, (m, d)."""
        for block, raw in self._raw_blocks():
            self._block = block
            yield block.start, self._prepared(raw)
            if self.device.type == "cpu":
                self.check()
        self.check()

    def note(self, well: Tensor, otherwise: str, sizes: Tensor | None = None) -> None:
        """Note whether all values are true; if not, `otherwise` is what is told.

        In it, ``{rows}`` stands for the rows of the block where `well`, (m,) or (m, k), is false,
        and ``{largest}`` for the largest of `sizes`, (m,).
        """
        if well.ndim > 1:  # a value for each row stays until the end
            well = well.all(dim=1)
        self._noted.append((well, otherwise, self._block, sizes))

    def check(self) -> None:
        """Raise ValueError if anything was wrong so far."""
        noted, self._noted = self._noted, []
        if not noted:
            return
        well = torch.stack([part.all() for part, *_ in noted]).tolist()  # one look for all
        if all(well):
            return
        part, message, block, sizes = noted[well.index(False)]
        where = (~part).nonzero()[:, 0] + block.start + self.first
        largest = math.nan if sizes is None else float(sizes.max())
        raise ValueError(message.format(rows=shorten(where.tolist()), largest=largest))

    def _raw_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield which rows, and the rows as they came, on the device."""
        parts = blocks.slices(len(self.features), self.rows)
        if isinstance(self.features, Tensor):
            for part in parts:
                yield part, self.features[part].to(self.device, self.dtype)
        elif self.device.type == "cuda":
            yield from self._through_pinned_buffers(parts)
        else:
            narrow = self.normalize and self.dtype == torch.float32
            for part in parts:
                rows = self.features[part]
                if narrow and rows.dtype == np.float64:  # of which float32 may have no numbers
                    rows = rows / np.abs(rows).max(axis=1, keepdims=True).clip(SMALLEST)
                # A copy: torch takes no rows that are read-only, or that stand backwards.
                dtype = "f4" if self.dtype == torch.float32 else "f8"
                yield part, torch.from_numpy(np.array(rows, dtype, order="C")).to(self.device)

    def _through_pinned_buffers(self, parts: Iterator[slice]) -> Iterator[tuple[slice, Tensor]]:
        """Copy blocks to the device by turns through two buffers, so that nobody waits."""
        shape = min(self.rows, len(self.features)), self.features.shape[1]
        buffers = [torch.empty(shape, dtype=self.dtype, pin_memory=True) for _ in range(2)]
        copied = [torch.cuda.Event() for _ in buffers]
        for k, part in enumerate(parts):
            buffer, event = buffers[k % 2], copied[k % 2]
            event.synchronize()  # of the copy before last; at first there was none
            rows = buffer[: part.stop - part.start]
            np.copyto(rows.numpy(), self.features[part], casting="same_kind")
            sent = rows.to(self.device, non_blocking=True)
            event.record(torch.cuda.current_stream(self.device))
            yield part, sent

    def _prepared(self, x: Tensor) -> Tensor:
        """Rows as :func:`flowalign.sphere.prepared` has them."""
        largest = x.abs().amax(dim=1, keepdim=True)
        self.note(
            largest[:, 0].isfinite(),
            "X contains NaN or infinity in rows {rows}; drop them, or fill them in.",
        )
        if not self.normalize:
            self.note(
                largest[:, 0] <= LARGEST,
                "X has values up to {largest:.1e}, whose squares are no float32 numbers; bring "
                f"them below {LARGEST:.0e}, or use normalize=True.",
                largest,
            )
            return x
        zero = largest == 0
        if not self.zeros_allowed:
            self.note(
                ~zero[:, 0],
                "X has rows of zeros, which have no direction to normalize: {rows}. Drop them, or "
                "use normalize=False where length means something.",
            )
        # Dividing by the largest entry first keeps rows of 1e-30 or 1e200 from under- or
        # overflowing.
        x = x / largest.masked_fill(zero, 1)
        return x / torch.linalg.vector_norm(x, dim=1, keepdim=True).masked_fill(zero, 1)
