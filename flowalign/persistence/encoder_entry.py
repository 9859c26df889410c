"""The encoder's entry in a model file: names and hashes, never a path, an address or code."""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

from flowalign.encoders.clap import ClapEncoder
from flowalign.encoders.clip import OpenCLIPEncoder
from flowalign.encoders.loading import TorchEncoder
from flowalign.encoders.sounds import MAX_RATE
from flowalign.persistence.checked import Keys

KINDS: dict[str, type[OpenCLIPEncoder] | type[ClapEncoder]] = {
    "open_clip": OpenCLIPEncoder,
    "clap": ClapEncoder,
}
# Parameters that are numbers, with their bounds. A file must not ask for a million views.
NUMBERS = {
    "open_clip": {"n_views": (1, 1000), "random_state": (0, 2**32 - 1)},
    "clap": {"n_views": (1, 1000), "random_state": (0, 2**32 - 1), "sampling_rate": (1, MAX_RATE)},
}
PLACES = ("model_name", "pretrained")  # parameters that may be files or folders
IDENTITY = ("architecture", "preprocessing", "weights")  # as in the keys of the feature cache

WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
# For each kind of encoder, the patterns for names of models and of weights.
NAMES = {
    "open_clip": (rf"{WORD}|hf-hub:{WORD}/{WORD}", WORD),
    "clap": (rf"{WORD}/{WORD}", rf"{WORD}/{WORD}"),
}


class EncoderEntry(NamedTuple):
    """The checked entry of a file.

    Attributes
    ----------
    kind : str
        A key of :data:`KINDS`.
    params : dict
        Parameters that features depend on. None stands for a path, which a file never has.
    local : tuple of str
        Names of the parameters that were files or folders on the machine of the fit.
    identity : dict of str
        SHA-256 of each part of :data:`IDENTITY`. Features depend on these parts.
    """

    kind: str
    params: dict[str, Any]
    local: tuple[str, ...]
    identity: dict[str, str]


def store_encoder(encoder: Any, width: int) -> dict[str, Any]:
    """Load an encoder whose rows must have this width; return its entry for the header."""
    kind = next((kind for kind, cls in KINDS.items() if type(encoder) is cls), None)
    if kind is None:
        raise TypeError(
            "encoder must be an OpenCLIPEncoder or a ClapEncoder, which a file can name; got "
            f"{type(encoder).__name__}. Leave it out, and encode X yourself before you predict, or "
            "save a pipeline with skops.io."
        )
    encoder._check_parameters()
    backbone = encoder._load()
    if backbone.width() != width:
        raise ValueError(
            f"encoder gives {backbone.width()} features, and the aligner was fitted to {width}; "
            "give the encoder that made its X."
        )
    local = encoder._places()
    params = {name: int(getattr(encoder, name)) for name in NUMBERS[kind]}
    names = {name: getattr(encoder, name) for name in PLACES}
    entry = {
        "kind": kind,
        "params": params
        | {k: None if v is None or k in local else encoder._plain(v) for k, v in names.items()},
        "local": list(local),
        "identity": hashes(encoder),
    }
    check_encoder(entry)
    return entry


def hashes(encoder: TorchEncoder) -> dict[str, str]:
    """Load an encoder; return the hash of each part that its features depend on."""
    identity = encoder._load().identity
    return {part: hashlib.sha256(identity[part].encode()).hexdigest() for part in IDENTITY}


def check_encoder(entry: Any) -> EncoderEntry:
    """Return the checked entry, or raise ValueError. Nothing is imported, opened or downloaded."""
    keys = Keys(entry, "encoder")
    kind, params = keys.take("kind", str), Keys(keys.take("params", dict), "encoder.params")
    local, identity = (
        keys.take("local", list),
        Keys(keys.take("identity", dict), "encoder.identity"),
    )
    keys.close()
    if kind not in KINDS:
        raise ValueError(f"encoder.kind is {kind[:50]!r}, none of {', '.join(KINDS)}.")
    found: dict[str, Any] = {}
    for name, (low, high) in NUMBERS[kind].items():
        found[name] = params.take(name, int)
        if not low <= found[name] <= high:
            raise ValueError(f"encoder.params.{name} is not between {low} and {high}.")
    for name, pattern in zip(PLACES, NAMES[kind], strict=True):
        value = found[name] = params.take(name, (str, type(None)))
        if value is not None and not re.fullmatch(pattern, value):
            raise ValueError(f"encoder.params.{name} is {value[:50]!r}, which is no plain name.")
    params.close()
    if local not in ([], ["model_name"], ["pretrained"], ["model_name", "pretrained"]):
        raise ValueError("encoder.local is no list of parameters.")
    if any(found[name] is not None for name in local):
        raise ValueError("encoder.local lists parameters that have a name.")
    if found["model_name"] is None and "model_name" not in local:
        raise ValueError("encoder.params.model_name is None, and encoder.local does not list it.")
    parts = {part: identity.take(part, str) for part in IDENTITY}
    identity.close()
    if not all(re.fullmatch("[0-9a-f]{64}", part) for part in parts.values()):
        raise ValueError("encoder.identity has a value that is no SHA-256.")
    return EncoderEntry(kind, found, tuple(local), parts)
