"""From a fitted aligner to header and arrays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

import flowalign
from flowalign.aligner import FlowMatchingAligner
from flowalign.atomic_file import written_whole
from flowalign.embedding_forms import as_class_embeddings
from flowalign.multi_view import MultiViewAligner
from flowalign.parameters import class_probabilities
from flowalign.persistence.allowed import FITTED, LEFT_OUT, NUMBER_KINDS, SCALARS, check_strings
from flowalign.persistence.encoder_entry import store_encoder
from flowalign.persistence.file_format import FORMAT, pack
from flowalign.persistence.views import store_views

if TYPE_CHECKING:
    from flowalign.encoders import ClapEncoder, OpenCLIPEncoder


def save(
    aligner: FlowMatchingAligner | MultiViewAligner,
    path: str | os.PathLike[str],
    *,
    encoder: OpenCLIPEncoder | ClapEncoder | None = None,
) -> None:
    """Write a fitted aligner to a file.

    Parameters
    ----------
    aligner : FlowMatchingAligner or MultiViewAligner
        The fitted aligner. Its labels are numbers or strings.
    path : str or path
        The exact name of the file; ".safetensors" is customary, ``~`` is the home folder. A file of
        this name is replaced when the new one is complete. For a symbolic link, the file behind it
        is replaced.
    encoder : OpenCLIPEncoder, ClapEncoder or None, default=None
        The encoder that made the features of a FlowMatchingAligner. The file then has the
        encoder's parameters and the hashes of its weights and preprocessing, so that
        :func:`flowalign.persistence.load_encoder` and the command ``flowalign predict`` need
        nothing else. The weights are loaded for the hashes, but are not part of the file. A folder
        or checkpoint of yours is noted as such, without its path. An aligner does not know its
        encoder: if you load an aligner and save it again, give the encoder again.

    Raises
    ------
    NotFittedError
        If the aligner is not fitted.
    TypeError
        For another estimator, for another encoder, such as a CallableEncoder, or for labels or
        parameters that the format cannot hold. The message says which, and what to do.
    ValueError
        For string labels in a dtype far wider than the strings, for an encoder whose features have
        another width than those of the fit, or for a path that is a device, a pipe or a socket.
    OSError
        If the file cannot be written.

    Notes
    -----
    The parameter ``memory`` is not stored. Class embeddings and class priors among the parameters
    are stored by value, as a `ClassEmbeddings` and an array. For several views, the fitted aligners
    are stored with their parameters, and the columns that a callable chose are stored themselves.

    Examples
    --------
    >>> import tempfile
    >>> import flowalign
    >>> from flowalign.datasets import make_cross_modal
    >>> data = make_cross_modal(random_state=0)
    >>> aligner = flowalign.FlowMatchingAligner()
    >>> aligner = aligner.fit(data.X_train, data.y_train, data.class_embeddings)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     flowalign.save(aligner, f"{folder}/model.safetensors")
    ...     loaded = flowalign.load(f"{folder}/model.safetensors")
    >>> bool((loaded.predict(data.X_test) == aligner.predict(data.X_test)).all())
    True
    """
    if type(aligner) not in (FlowMatchingAligner, MultiViewAligner):
        raise TypeError(
            "aligner must be a MultiViewAligner or FlowMatchingAligner, got "
            f"{type(aligner).__name__}. For a pipeline, save the aligner and make the other steps "
            "again, or use skops.io for the whole pipeline."
        )
    check_is_fitted(aligner)
    arrays: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {"format": FORMAT, "version": flowalign.__version__}
    if encoder is not None:
        if isinstance(aligner, MultiViewAligner):
            raise TypeError(
                "encoder goes with a FlowMatchingAligner; a file names one encoder, and a "
                "MultiViewAligner has one for each view. Leave it out."
            )
        header["encoder"] = store_encoder(encoder, aligner.n_features_in_)
    if isinstance(aligner, MultiViewAligner):
        header["params"] = _store_params(aligner, arrays)
        header |= store_views(aligner, arrays, _store)
    else:
        header |= _store(aligner, arrays)
    with written_whole(path) as file:
        file.write(pack(header, arrays))


def _store(aligner: FlowMatchingAligner, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the header of an aligner, and add its arrays to `arrays`."""
    header: dict[str, Any] = {"params": _store_params(aligner, arrays)}
    header["labels"] = _store_labels("labels", aligner.classes_, arrays)
    if aligner.class_embeddings is not None:
        table = as_class_embeddings(aligner.class_embeddings, aligner.classes_, fit_argument=False)
        header["table"] = _store_labels("table.labels", table.labels, arrays)
        arrays["table.vectors"] = table.vectors
    state = aligner.velocity_field_.__getstate__()
    header["field"] = {"kind": aligner._kind, "config": state["config"]}
    arrays |= {f"field.{name}": array for name, array in state["weights"].items()}
    if aligner.gaussian_model_ is not None:
        parts = aligner.gaussian_model_.__getstate__()
        header["model"] = {name: part for name, part in parts.items() if not np.ndim(part)}
        arrays |= {f"model.{name}": part for name, part in parts.items() if np.ndim(part)}
    if aligner._inductive_model is not None and aligner._held is not None:
        parts = aligner._inductive_model.__getstate__()
        header["inductive"] = {name: part for name, part in parts.items() if not np.ndim(part)}
        arrays |= {f"inductive.{name}": part for name, part in parts.items() if np.ndim(part)}
        parts = aligner._held.statistics.__getstate__()
        arrays |= {f"held.{name}": part for name, part in parts.items()}
        arrays["class_agreement"] = aligner._arrays["class_agreement_"]
    if aligner._reserve is not None:
        parts = dict(vars(aligner._reserve))
        vectors = aligner._arrays["_class_vectors"]
        header["reserve"] = {"share": parts.pop("share"), "text": vectors is not None}
        arrays |= {f"reserve.{name}": part for name, part in parts.items()}
        if vectors is not None:
            arrays["class_vectors"] = vectors
    arrays["class_embeddings"] = aligner._arrays["class_embeddings_"]
    arrays["class_probabilities"] = aligner._arrays["class_prior_"]
    if (scores := aligner._arrays["support_scores_"]) is not None:
        arrays["support_scores"] = scores
    if aligner.embedding_map_ is not None:
        parts = vars(aligner.embedding_map_)
        header["map_scale"] = parts["scale"]
        arrays |= {f"map.{k}": np.asarray(v) for k, v in parts.items() if k != "scale"}
    arrays |= {f"scores.{k}": v for k, v in (aligner.stop_scores_ or {}).items()}
    arrays["loss_curve"] = np.array(aligner.loss_curve_, dtype=np.float64)
    names = getattr(aligner, "feature_names_in_", None)
    header["fitted"] = {key: getattr(aligner, name) for key, (name, _) in FITTED.items()}
    header["fitted"]["feature_names"] = None if names is None else [str(name) for name in names]
    return header


def _store_params(
    aligner: FlowMatchingAligner | MultiViewAligner, arrays: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    params = aligner.get_params(deep=False)
    for name in ("class_embeddings", "views", *LEFT_OUT):
        params.pop(name, None)
    if not isinstance(params["class_prior"], str):
        # The file has an array in the order of classes_, whatever form the parameter had.
        arrays["class_prior"] = class_probabilities(
            params.pop("class_prior"), aligner.classes_, np.zeros(len(aligner.classes_))
        )
    if "device" in params:
        params["device"] = str(params["device"])
    for name, value in params.items():
        if isinstance(value, np.generic):
            params[name] = value = value.item()
        if not isinstance(value, SCALARS):
            raise TypeError(
                f"{name}={value!r} cannot be stored; set_params({name}=...) to a number, a string "
                "or None first."
            )
    return params


def _store_labels(
    name: str, labels: NDArray[Any], arrays: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    """Put labels that are numbers into an array; return strings for the header."""
    dtype = labels.dtype.newbyteorder("=")
    if dtype.kind in "OU":
        if not all(type(label) is str for label in labels.tolist()):
            raise TypeError("Labels are objects other than strings; fit to strings or numbers.")
        check_strings(dtype, labels.tolist())
        return {"dtype": dtype.str, "strings": labels.tolist()}
    if dtype.kind not in NUMBER_KINDS or dtype.itemsize > 8:
        raise TypeError(f"Labels of dtype {dtype} cannot be stored; fit to strings or numbers.")
    arrays[name] = labels.astype(dtype)
    return {"dtype": dtype.str, "strings": None}
