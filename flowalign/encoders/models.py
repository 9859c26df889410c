"""Loading of encoder models: once per process, reproducibly, with an error that names the extra."""

from __future__ import annotations

import hashlib
import importlib
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flowalign.encoders.backbone import Backbone
from flowalign.encoders.cache import Space

T = TypeVar("T")

_LOADING = threading.RLock()


def require(module: str, extra: str) -> Any:
    """Import a module of an optional dependency."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} could not be imported ({error}). Install it with: pip install "
            f'"flowalign[{extra}]"'
        ) from error


def once_per_process(load: Callable[..., T]) -> Callable[..., T]:
    """Keep the last two loaded models, so that clones of an encoder share one.

    An encoder holds no weights: grid searches clone it for every fit, and pickles stay small.
    One thread loads at a time; the others then find the model loaded.
    """
    cached = lru_cache(maxsize=2)(load)

    @wraps(cached)
    def locked(*args: Hashable) -> T:
        with _LOADING:
            return cached(*args)

    return locked


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Let modules built inside draw their weights from a seed; torch's generator is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def integer_seed(random_state: Any, purpose: str) -> int:
    """Check that `random_state` means the same in every clone, pickle and process."""
    if not isinstance(random_state, Integral) or isinstance(random_state, bool) or random_state < 0:
        raise ValueError(
            f"random_state must be an integer of at least 0 for {purpose}, so that clones and "
            f"workers draw the same; got {random_state!r}."
        )
    return int(random_state)


def file_stamp(path: str | None) -> tuple[Any, ...]:
    """Say whether a model's file or folder has changed; empty for what is neither."""
    if path is None or not os.path.exists(path):
        return ()
    files = [Path(path), *sorted(Path(path).glob("*"))]
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files)


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Hash weights and architecture, (name of the hash) -> (hash)."""
    weights = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        weights.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        weights.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    # Activations and the like have no weights but are spelled out by the module.
    architecture = hashlib.sha256(repr(model).encode())
    return {"weights": weights.hexdigest(), "architecture": architecture.hexdigest()}


@dataclass(frozen=True)
class TorchBackbone(Backbone):
    """A loaded torch model with a tokenizer, in float32."""

    name: str
    model: Any
    tokenizer: Any
    device: torch.device
    identity: dict[str, str]

    @property
    def reads_ahead(self) -> bool:
        """Whether the model leaves the processor free meanwhile."""
        return self.device.type != "cpu"

    def space(self, modality: str) -> Space:
        """Return the joint space, by modality."""
        return Space(f"{self.name}, {modality}s", {**self.identity, "modality": modality})

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Stack inputs on the device of the model, without waiting where that is possible."""
        stacked = torch.stack(inputs)
        if self.device.type == "cuda":
            stacked = stacked.pin_memory()
        return stacked.to(self.device, non_blocking=True)


def unit_rows_of(features: torch.Tensor) -> NDArray[np.float32]:
    """Return what a model gave as rows of length 1."""
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
