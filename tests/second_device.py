"""A stand-in for a GPU: a device of its own, in the memory of the host.

Its tensors compute as those of the CPU do, but that rows are added up in any order. As on a GPU
they refuse to meet tensors of the CPU, or to become arrays, before they are copied. Modes of torch
hold for one thread.
"""

from __future__ import annotations

import contextlib
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta:1")  # modules without weights are made on "meta" itself
aten = torch.ops.aten
MOVED = {aten._to_copy.default, aten.copy_.default, aten._foreach_copy_.default}
BY_POSITION = {
    aten.index.Tensor, aten.index_put_.default, aten.index_put.default,
    aten._index_put_impl_.default,
}  # fmt: skip
SUMS = {aten.index_add_.default, aten.index_add.default}


def shuffled(into, dim, index, rows):
    """Sum up in an order that nobody knows, as a GPU does: sums differ by rounding."""
    order = torch.from_numpy(np.random.default_rng().permutation(len(index)))
    return into, dim, index[order], rows.index_select(dim, order)


class Placed(torch.Tensor):
    """A tensor on the device."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=DEVICE, requires_grad=held.requires_grad,
        )  # fmt: skip

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"Placed({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def dispatch(func, args, kwargs):
    """Do on the host what was asked for on the device, if everything is there."""
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    placed = [x for x in tensors if isinstance(x, Placed)]
    device = kwargs.get("device")
    there = bool(placed) if device is None else torch.device(device) == DEVICE
    if not placed and not there:
        return func(*args, **kwargs)
    if func not in MOVED | BY_POSITION:
        strange = [x for x in tensors if x.dim() and not isinstance(x, Placed)]
        if placed and strange:
            raise RuntimeError(f"{func}: tensors on {DEVICE} and on the CPU")
    if func in BY_POSITION and not isinstance(args[0], Placed):
        raise RuntimeError(f"{func}: rows of the CPU by positions on {DEVICE}")
    if func is aten.copy_.default and not isinstance(args[0], Placed):
        return args[0].copy_(args[1].held)
    kwargs = kwargs if device is None else kwargs | {"device": torch.device("cpu")}
    held_args, held_kwargs = tree_map_only(Placed, lambda x: x.held, (args, kwargs))
    if func in SUMS:
        held_args = shuffled(*held_args)
    result = func(*held_args, **held_kwargs)
    if not there:
        return result
    known = {id(x.held): x for x in placed}  # what is changed in place stays the same tensor

    def place(x):
        return known[id(x)] if id(x) in known else Placed(x)

    return tree_map_only(torch.Tensor, place, result)


class SecondDevice(TorchDispatchMode):
    """Places what is made there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def on_device(x):
    return isinstance(x, Placed)


def positions(index):
    """Copy what indexes to the device, which torch does on its own."""
    if isinstance(index, tuple):
        return tuple(map(positions, index))
    if isinstance(index, list | np.ndarray | torch.Tensor) and not on_device(index):
        return torch.as_tensor(index).to(DEVICE)
    return index


class FromTheHost(TorchFunctionMode):
    """Copies what torch would make on "meta" out of numbers, without numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and "device" in kwargs:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is torch.Tensor.tolist and on_device(args[0]):
            return args[0].held.tolist()
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and on_device(args[0]):
            args = args[0], positions(args[1]), *args[2:]
        return func(*args, **kwargs)


class Generator(torch.Generator):
    """Draws the numbers of the CPU for the device, which has no generator."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")


def without_gradients(mode):
    mode.guard = torch.no_grad()
    mode.guard.__enter__()


@contextlib.contextmanager
def second_device():
    """Have the device for a while."""
    # Tensors made in inference mode would be views of none. Weights that were converted in place
    # would hold what they held.
    anew = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    in_mode = {"__enter__": without_gradients, "__exit__": lambda mode, *_: mode.guard.__exit__(*_)}
    with (
        mock.patch.multiple(torch.inference_mode, **in_mode),
        mock.patch("torch.Generator", Generator),
        FromTheHost(),
        SecondDevice(),
    ):
        yield DEVICE
    torch.__future__.set_overwrite_module_params_on_conversion(anew)
