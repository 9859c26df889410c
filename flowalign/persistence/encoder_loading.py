"""From the entry of a model file to an encoder, without trust in the file."""

from __future__ import annotations

import os
import warnings
from typing import Any

from flowalign.atomic_file import expanded
from flowalign.encoders.clap import ClapEncoder
from flowalign.encoders.clip import OpenCLIPEncoder, brings_weights, is_published
from flowalign.encoders.loading import require
from flowalign.inputs import shown
from flowalign.persistence.checked import Keys
from flowalign.persistence.encoder_entry import KINDS, PLACES, EncoderEntry, check_encoder, hashes
from flowalign.persistence.file_format import read

# Repositories that may be downloaded although only a file names them.
WELL_KNOWN = frozenset(
    f"laion/{name}"
    for name in (
        "clap-htsat-fused", "clap-htsat-unfused", "larger_clap_general", "larger_clap_music",
        "larger_clap_music_and_speech",
    )
)  # fmt: skip


def load_encoder(
    path: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    pretrained: str | None = None,
    **options: Any,
) -> OpenCLIPEncoder | ClapEncoder:
    """Make the encoder that a model file names, and load its weights.

    The file need not be trusted. Only well-known weights that it names are downloaded: those that
    open_clip itself lists, and a few CLAP models of LAION. Weights of another repository of a hub
    are downloaded only if you name the repository too.

    Parameters
    ----------
    path : str or path
        A file that :func:`~flowalign.save` wrote with an `encoder`.
    model_name, pretrained : str or None, default=None
        Used in place of the names in the file. Needed if the encoder of the fit was a folder or a
        checkpoint, since a file never has a path. The weights must be those of the fit.
    **options
        Parameters of the encoder that do not change features: `device`, `batch_size`, `cache`,
        `missing`, `verbose`.

    Returns
    -------
    OpenCLIPEncoder or ClapEncoder

    Raises
    ------
    ValueError
        If the file is damaged or names no encoder, if it names weights that are not well known, if
        `model_name` or `pretrained` is needed, or if the weights that you named are not those of
        the fit.
    ImportError
        If the library of the encoder is not installed; the message says how to install it.
    OSError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        If the published weights or the preprocessing have changed since the fit, for instance with
        the version of the library.

    Examples
    --------
    >>> import flowalign
    >>> from flowalign.persistence import load_encoder
    >>> encoder = load_encoder("pets.flowalign", cache="features")  # doctest: +SKIP
    >>> X = encoder.transform(["tom.jpg", "rex.jpg"])  # doctest: +SKIP
    >>> labels = flowalign.load("pets.flowalign").predict(X)  # doctest: +SKIP
    """
    path = expanded(path)
    entry = _entry(path)
    asked = {"model_name": model_name, "pretrained": pretrained}
    given: dict[str, str | None] = {k: value for k, value in asked.items() if value is not None}
    if brings_weights(model_name or ""):  # then pretrained is not needed
        given.setdefault("pretrained", None)
    params = entry.params | given
    missing = [name for name in entry.local if name not in given]
    if missing:
        raise ValueError(_ask_for(path, missing))
    if entry.kind == "open_clip":
        _check_published(path, params, given)
    else:
        _check_well_known(path, [params[name] for name in PLACES if name not in given])
    encoder = KINDS[entry.kind](**params)
    encoder.set_params(**options)
    _compare(path, encoder, entry, given)
    return encoder


def _entry(path: os.PathLike[str]) -> EncoderEntry:
    header = read(expanded(path)).header
    try:
        keys = Keys(header, "header")
        entry = keys.take("encoder", dict) if "encoder" in keys else None
        if entry is not None:
            return check_encoder(entry)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{shown(path)} names no encoder that can be made: {error}") from error
    raise ValueError(
        f"{shown(path)} was saved without an encoder. Encode as before the fit, or save the "
        "aligner again: flowalign.save(aligner, path, encoder=encoder)."
    )


def _ask_for(path: os.PathLike[str], missing: list[str]) -> str:
    what = {"model_name": "a model (--model)", "pretrained": "a checkpoint (--pretrained)"}
    return (
        f"{shown(path)} was fitted with {' and '.join(what[name] for name in missing)} of your "
        f"own, and does not say where to find it; give {' and '.join(missing)}."
    )


def _check_published(
    path: os.PathLike[str], params: dict[str, Any], given: dict[str, str | None]
) -> None:
    """Refuse models and weights that open_clip does not list, unless they were given."""
    name, weights = params["model_name"], params["pretrained"]
    if "model_name" not in given:
        if brings_weights(name):
            _check_well_known(path, [name])
        if name not in require("open_clip", "clip").list_models():
            raise ValueError(f"{shown(path)} names the model {name!r}, which open_clip lacks.")
    if "pretrained" not in given and weights is not None and not is_published(name, weights):
        raise ValueError(
            f"{shown(path)} names the weights {weights!r} of {name}, which open_clip lacks."
        )


def _check_well_known(path: os.PathLike[str], names: list[str | None]) -> None:
    """Refuse repositories that only the file names, unless they are well known."""
    unknown = [name for name in names if name is not None and name not in WELL_KNOWN]
    if unknown:
        raise ValueError(
            f"{shown(path)} names {unknown[0]}, a repository of a hub that its writer chose. If "
            f"you trust it, name it yourself: model_name={unknown[0]!r} (--model)."
        )


def _compare(
    path: os.PathLike[str],
    encoder: OpenCLIPEncoder | ClapEncoder,
    entry: EncoderEntry,
    given: dict[str, str | None],
) -> None:
    """Raise or warn if the encoder is not that of the fit."""
    now = hashes(encoder)
    if given and now["weights"] != entry.identity["weights"]:
        raise ValueError(
            f"{' and '.join(f'{name}={value!r}' for name, value in given.items())}: this encoder "
            f"has other weights than the one that {shown(path)} was fitted with."
        )
    others = [part for part in now if now[part] != entry.identity[part]]
    if others:
        warnings.warn(
            f"The encoder that {shown(path)} names is not quite the one of the fit: its "
            f"{' and '.join(others)} changed, perhaps with the version of a library. Answers may "
            "be worse. Fit again, or evaluate the model before you rely on it.",
            UserWarning,
            stacklevel=3,
        )
