"""From header and arrays to an aligner, without trust in either."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flowalign
from flowalign.aligner import FlowMatchingAligner
from flowalign.atomic_file import expanded
from flowalign.class_embeddings import ClassEmbeddings
from flowalign.held_out import SOURCES
from flowalign.multi_view import MultiViewAligner
from flowalign.parameters import (
    check_parameters,
    check_unknown_label,
    class_probabilities,
)
from flowalign.persistence.allowed import FITTED, LEFT_OUT, NUMBER_KINDS, SCALARS, check_strings
from flowalign.persistence.checked import Keys, shaped
from flowalign.persistence.encoder_entry import check_encoder
from flowalign.persistence.file_format import READABLE, Contents, read
from flowalign.persistence.fitted_parts import field_of, held_of, model_of, reserve_of
from flowalign.persistence.views import restore_views
from flowalign.spaces import ProcrustesMap
from flowalign.stopping import SCORES


def load(path: str | os.PathLike[str]) -> FlowMatchingAligner | MultiViewAligner:
    """Read a fitted aligner from a file that :func:`save` wrote.

    The aligner is on the device of its fit, or on the CPU if this machine has no such device.

    Parameters
    ----------
    path : str or path
        The file; ``~`` is the home folder. It need not be trusted.

    Returns
    -------
    FlowMatchingAligner or MultiViewAligner
        Whichever was saved.

    Raises
    ------
    ValueError
        If the file is damaged, is something else, or was written by a newer format.
    OSError
        If the file cannot be read.
    """
    path = expanded(path)
    return restore(path, read(path))


def restore(
    path: str | os.PathLike[str], contents: Contents
) -> FlowMatchingAligner | MultiViewAligner:
    """Make the aligner that a file holds, or raise ValueError."""
    try:
        return _restore(contents.header, contents.arrays)
    except (
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError,
    ) as error:  # fmt: skip
        raise ValueError(f"{path} holds no aligner that can be restored: {error}") from error


def _restore(
    header: Any, arrays: dict[str, NDArray[Any]]
) -> FlowMatchingAligner | MultiViewAligner:
    """Make the aligner of either class. Every key and every array must be used up."""
    left, unread = Keys(header, "header"), dict(arrays)
    if (found := left.take("format", int)) not in READABLE:
        wrote = header.get("version")
        raise ValueError(
            f"its format is {found}, this flowalign {flowalign.__version__} reads "
            f"{' and '.join(map(str, READABLE))}; it was written by flowalign {wrote!r}."
        )
    left.take("version", str)
    if found == 1:
        _complete(header, unread)
    elif "encoder" in left:  # not used here, but checked: a file is valid as a whole
        check_encoder(left.take("encoder", dict))
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are not finite.")
    if "views" in left:
        params = _scalars(left, set(MultiViewAligner([]).get_params(deep=False)) - {"views"})
        if "class_prior" in unread:
            params["class_prior"] = unread.pop("class_prior")
        aligner = restore_views(left, unread, params, _restore_aligner)
        left.close()
    else:
        return _restore_aligner(left.values, unread)
    if unread:
        raise ValueError(f"it has arrays that no aligner has: {sorted(unread)[:5]}.")
    return aligner


def _restore_aligner(header: Any, unread: dict[str, NDArray[Any]]) -> FlowMatchingAligner:
    """Make an aligner of one view. Every key and every array must be used up."""
    left = Keys(header, "header")
    classes = _labels(left.take("labels", dict), "labels", unread)
    if len(np.unique(classes)) != len(classes) or (np.unique(classes) != classes).any():
        raise ValueError("labels are not sorted, or not distinct.")
    targets = unread.pop("class_embeddings")
    if targets.ndim != 2 or len(targets) != len(classes) or targets.dtype not in ("f4", "f8"):
        raise ValueError(f"class_embeddings are {targets.dtype} of shape {targets.shape}.")
    n_classes, width = targets.shape
    aligner = _aligner(left, unread, classes)
    check_unknown_label(aligner.unknown_label, classes)
    fitted = Keys(left.take("fitted", dict), "fitted")
    aligner.n_features_in_ = width
    names = fitted.take("feature_names", (list, type(None)))
    if names is not None:
        if len(names) != width or not all(type(name) is str for name in names):
            raise ValueError("feature_names are not one string for each feature.")
        aligner.feature_names_in_ = np.array(names, dtype=object)
    aligner.classes_ = classes
    aligner.class_embeddings_ = targets
    aligner.embedding_map_ = _map(left, unread, width)
    aligner._kind, aligner.velocity_field_ = field_of(
        left.take("field", dict), unread, n_classes, width
    )
    aligner.gaussian_model_ = model_of("model", left, unread, n_classes, width)
    aligner._inductive_model = model_of("inductive", left, unread, n_classes, width)
    aligner._held = aligner.unlabeled_weight_ = aligner.class_agreement_ = None
    if aligner._inductive_model is not None:
        aligner._held = held = held_of(unread, n_classes, width)
        aligner.unlabeled_weight_, aligner.class_agreement_ = held.class_weights, held.agreement
    aligner._reserve = aligner._class_vectors = None
    if "reserve" in left:
        keys = Keys(left.take("reserve", dict), "reserve")
        model = aligner.gaussian_model_
        counts = np.zeros(n_classes) if model is None else model.statistics.counts.numpy()
        aligner._reserve = reserve_of(keys.take("share", int), unread, counts, width)
        if keys.take("text", bool):
            vectors = unread.pop("class_vectors")
            if vectors.dtype not in ("f4", "f8"):
                raise ValueError(f"class_vectors are {vectors.dtype}.")
            aligner._class_vectors = shaped(vectors, (n_classes, None))
        keys.close()
    aligner.class_prior_ = _class_probabilities(unread, n_classes)
    aligner.support_scores_ = None
    if aligner.gaussian_model_ is not None:
        aligner.support_scores_ = _support_scores(unread)
    aligner.loss_curve_ = shaped(unread.pop("loss_curve"), (None,), np.float64).tolist()
    for key, (name, types) in FITTED.items():
        setattr(aligner, name, fitted.take(key, types))
    epochs, looks = len(aligner.loss_curve_), 1 if aligner._inductive_model is None else 10
    if not (aligner.n_iter_ == epochs if epochs else 1 <= aligner.n_iter_ <= looks):
        raise ValueError(f"n_iter is {aligner.n_iter_}, not the length of the loss curve.")
    aligner.stop_scores_ = _scores(unread)
    if aligner.stop_source_ not in (*SOURCES, None):
        raise ValueError(f"stop_source is {aligner.stop_source_!r}.")
    if aligner._stop is not None and not 0 <= aligner._stop <= 1:
        raise ValueError(f"stop is {aligner._stop}.")
    left.close()
    fitted.close()
    if unread:
        raise ValueError(f"it has arrays that no aligner has: {sorted(unread)[:5]}.")
    aligner.__setstate__(aligner.__dict__.copy())  # moves it to its device
    return aligner


def _complete(header: dict[str, Any], unread: dict[str, NDArray[Any]]) -> None:
    """Add to a file of format 1 what the format lacked, so that predictions stay as they were."""
    config, n_classes = header["field"]["config"], len(unread["class_embeddings"])
    if header["field"]["kind"] == "gaussian":
        config.setdefault("centred_text_weight", 0.0)
    unread.setdefault("class_probabilities", np.full(n_classes, 1 / n_classes))
    if "scores.n_steps" in unread:  # answers came from cosines alone
        unread.setdefault("scores.posterior_weight", np.zeros(unread["scores.n_steps"].size))


def _aligner(
    left: Keys, unread: dict[str, NDArray[Any]], classes: NDArray[Any]
) -> FlowMatchingAligner:
    """Make the unfitted aligner from its parameters."""
    known = set(FlowMatchingAligner().get_params()) - {"class_embeddings", *LEFT_OUT}
    params = _scalars(left, known)
    if "class_prior" in unread:
        params["class_prior"] = class_probabilities(
            unread.pop("class_prior"), classes, np.zeros(len(classes))
        )
    seed = params.get("random_state")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        raise ValueError(f"params.random_state is {seed!r}.")
    if type(params.get("verbose", 0)) not in (int, bool):
        raise ValueError(f"params.verbose is {params['verbose']!r}.")
    if type(params.get("device", "auto")) is not str:
        raise ValueError(f"params.device is {params['device']!r}.")
    if "table" in left:
        labels = _labels(left.take("table", dict), "table.labels", unread)
        params["class_embeddings"] = ClassEmbeddings(labels, unread.pop("table.vectors"))
    aligner = FlowMatchingAligner(**params)
    check_parameters(aligner.get_params(deep=False))
    return aligner


def _scalars(left: Keys, known: set[str]) -> dict[str, Any]:
    """Take the parameters that are scalars; an unknown one is an error."""
    params: dict[str, Any] = left.take("params", dict)
    if set(params) - known:
        raise ValueError(f"params has unknown keys: {sorted(set(params) - known)[:5]}.")
    if not all(type(value) in SCALARS for value in params.values()):
        raise ValueError("params has values that are no scalars.")
    return params


def _labels(entry: Any, name: str, unread: dict[str, NDArray[Any]]) -> NDArray[Any]:
    keys = Keys(entry, name)
    dtype = keys.take("dtype", str)
    strings = keys.take("strings", (list, type(None)))
    keys.close()
    if strings is None:
        labels = shaped(unread.pop(name), (None,), np.dtype(dtype))
        if labels.dtype.kind not in NUMBER_KINDS or not len(labels):
            raise ValueError(f"{name} are of dtype {dtype}.")
        return labels
    if not strings or not all(type(label) is str for label in strings):
        raise ValueError(f"{name} are not all strings.")
    if np.dtype(dtype).kind not in "OU":
        raise ValueError(f"{name} are of dtype {dtype}.")
    check_strings(np.dtype(dtype), strings)
    return np.array(strings, dtype=dtype)


def _map(left: Keys, unread: dict[str, NDArray[Any]], width: int) -> ProcrustesMap | None:
    if "map_scale" not in left:
        return None
    scale = left.take("map_scale", float)
    rotation = shaped(unread.pop("map.rotation"), (None, width))
    source_mean = shaped(unread.pop("map.source_mean"), (len(rotation),))
    target_mean = shaped(unread.pop("map.target_mean"), (width,))
    return ProcrustesMap(rotation, scale, source_mean, target_mean)


def _class_probabilities(unread: dict[str, NDArray[Any]], n_classes: int) -> NDArray[Any]:
    prior = shaped(unread.pop("class_probabilities"), (n_classes,), np.float64)
    if (prior <= 0).any() or (prior > 1).any():
        raise ValueError("class_probabilities are none.")
    return prior


def _support_scores(unread: dict[str, NDArray[Any]]) -> NDArray[Any]:
    scores = shaped(unread.pop("support_scores"), (None,), np.float32)
    if (np.diff(scores) < 0).any():
        raise ValueError("support_scores are not ascending.")
    return scores


def _scores(unread: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | None:
    if "scores.n_steps" not in unread:
        return None
    n = unread["scores.n_steps"].size
    return {k: shaped(unread.pop(f"scores.{k}"), (n,), dtype) for k, dtype in SCORES.items()}
