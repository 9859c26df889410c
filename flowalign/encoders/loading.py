"""Loading of encoder models: once per process, reproducibly, with errors that say what to do."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from itertools import chain
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flowalign.encoders.backbone import Backbone
from flowalign.encoders.base import Encoder
from flowalign.encoders.cache import EncoderSpace
from flowalign.parameters import check_device

T = TypeVar("T")

_LOADING = threading.RLock()
_LOG = logging.getLogger(__name__)

CHECKPOINTS = ("*.safetensors", "*.bin", "*.pth", "*.index.json")


class TorchEncoder(Encoder):
    """Base of the encoders that have a torch model with weights."""

    model_name: str
    pretrained: str | None
    device: str | torch.device
    random_state: int
    _unit_length: ClassVar[bool] = True

    @abstractmethod
    def _load(self) -> TorchBackbone:
        """Return the model, loaded once per process."""

    @abstractmethod
    def _draws_weights(self) -> bool:
        """Whether weights are random, drawn from `random_state`."""

    @abstractmethod
    def _places(self) -> tuple[str, ...]:
        """Return the parameters that are files or folders, not names of published models."""

    def _plain(self, name: str) -> str:
        """Return the name of a published model or its weights in the usual spelling."""
        return str(name)

    @property
    def _n_features_out(self) -> int:
        return self._load().width()

    def _check_parameters(self) -> None:
        super()._check_parameters()
        seed = self.random_state
        if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
            raise ValueError(
                "random_state must be an integer of at least 0, so that clones and workers draw "
                f"the same; got {seed!r}."
            )

    def _is_missing(self, item: Any) -> bool:
        return super()._is_missing(item) or (isinstance(item, str) and not item)

    def _source(self, folder: str, *, drawn: bool) -> tuple[Any, ...]:
        """Return all that a loaded model depends on; the seed only if weights are random."""
        pretrained = None if self.pretrained is None else str(self.pretrained)
        stamps = _file_stamp(folder), _file_stamp(pretrained)
        seed = self.random_state if drawn else None
        return str(self.model_name), pretrained, check_device(self.device), seed, stamps


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
        """Whether the processor is free while the model computes."""
        return self.device.type != "cpu"

    def space(self, modality: str) -> EncoderSpace:
        """Return the joint space of items and texts, with the modality in its key."""
        return EncoderSpace(f"{self.name}, {modality}s", {**self.identity, "modality": modality})

    def width(self) -> int:
        """Return the number of features."""
        return self.forward_text(self.tokenize(["a"])[0]).shape[1]

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Stack inputs on the device of the model, without waiting for the copy if possible."""
        stacked = torch.stack(inputs)
        if self.device.type == "cuda":
            stacked = stacked.pin_memory()
        return stacked.to(self.device, non_blocking=True)


def unit_rows_of(features: torch.Tensor) -> NDArray[np.float32]:
    """Return the output of a model as rows of length 1."""
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def require(module: str, extra: str) -> Any:
    """Import a module of an optional dependency, or name the extra that installs it."""
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
    One thread loads at a time. Threads that wait for it use the same model.
    """
    cached = lru_cache(maxsize=2)(load)

    @wraps(cached)
    def locked(*args: Hashable) -> T:
        with _LOADING:
            return cached(*args)

    return locked


@contextmanager
def loading(model_name: str, pretrained: str | None) -> Iterator[None]:
    """Name the parameters in any error that a library raises while it loads a model."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"model_name={model_name!r} with pretrained={pretrained!r} could not be loaded: {error}"
        ) from error


@contextmanager
def drawn_from(seed: int, name: str) -> Iterator[None]:
    """Draw the weights of a module built inside from a seed, then restore torch's generator."""
    _LOG.warning("%s has random weights, drawn from random_state=%d: for tests only", name, seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def has_no_weights(folder: str) -> bool:
    """Whether this is a folder without a checkpoint."""
    place = Path(folder)
    return place.is_dir() and not any(path for c in CHECKPOINTS for path in place.glob(c))


def fingerprint(model: nn.Module, configuration: Any) -> dict[str, str]:
    """Return the hashes of weights and architecture, by name.

    Parameters
    ----------
    model : torch.nn.Module
        The model with its weights.
    configuration : JSON types
        The configuration of the library. It tells what weights do not, such as the number of heads.
    """
    weights = hashlib.sha256()
    # Features also depend on buffers that are not saved, such as masks.
    tensors = dict(chain(model.named_buffers(), model.state_dict().items()))
    for name, value in sorted(tensors.items()):
        weights.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        plain = value.detach().cpu().contiguous().reshape(-1)
        weights.update(plain.view(torch.uint8).numpy())
    # Activations have no weights, but the module's text names them.
    text = repr(model) + json.dumps(configuration, sort_keys=True, default=repr)
    return {
        "weights": weights.hexdigest(),
        "architecture": hashlib.sha256(text.encode()).hexdigest(),
    }


def _file_stamp(path: str | None) -> tuple[Any, ...]:
    """Return stamps that show whether a model's file or folder has changed; empty for a name."""
    if path is None or not os.path.exists(path):
        return ()
    files = [Path(path), *sorted(Path(path).glob("*"))]
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.exists())
