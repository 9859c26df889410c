"""Fitted aligners in files that are safe to open.

A model is one safetensors file: arrays, and a JSON header with everything else. Opening one runs
no code, imports nothing by name and reads no pickle; what is in it is checked against what an
aligner can be. ``docs/decisions/0009-persistence.md`` has the format.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes
from sklearn.utils.validation import check_is_fitted

import flowalign
from flowalign.aligner import FlowMatchingAligner
from flowalign.class_embeddings import ClassEmbeddings, as_class_embeddings
from flowalign.fields import GaussianField, MLPField, VelocityField
from flowalign.fields.mlp import TIME_FEATURES
from flowalign.spaces import ProcrustesMap
from flowalign.validation import check_parameters, class_probabilities

FORMAT = 1
NAME = "flowalign"  # of what is ours in the file's metadata: a checksum and the header
MAX_HEADER = 2**26  # bytes
MAX_NUMBER = 1e18  # in the configuration of a field; its square has a place in float32
MAX_PADDED = 2**24  # bytes of strings in an array wider than they are
FIELDS: dict[str, type[VelocityField]] = {"gaussian": GaussianField, "mlp": MLPField}
SCALARS = (str, int, float, bool, type(None))
# Parameters that are not stored. A cache is read by pickle, so a model must not bring one.
LEFT_OUT = ("memory",)
STOP_SOURCES = (
    "validation data", "leave-one-out", "cross-fitting", "held-out classes", "nothing", None,
)  # fmt: skip
SCORES = {
    "n_steps": np.int64, "stop_time": np.float64, "accuracy": np.float64, "n_better": np.int64,
    "n_worse": np.int64, "log_loss": np.float64, "logit_scale": np.float64,
}  # fmt: skip
NUMBER_KINDS = "biuf"

SKOPS_TRUSTED = [
    "flowalign.aligner.FlowMatchingAligner",
    "flowalign.class_embeddings.ClassEmbeddings",
    "flowalign.fields.gaussian.GaussianField",
    "flowalign.fields.mlp.MLPField",
    "flowalign.spaces.ProcrustesMap",
]
"""What an aligner is made of, for ``skops.io.load(file, trusted=SKOPS_TRUSTED)``."""


def save(aligner: FlowMatchingAligner, path: str | os.PathLike[str]) -> None:
    """Write a fitted aligner to a file.

    Parameters
    ----------
    aligner : FlowMatchingAligner
        Fitted. Labels are numbers or strings.
    path : str or path
        The file, by exactly this name; ".safetensors" is customary. One that is there is replaced
        when the new one is complete.

    Raises
    ------
    NotFittedError
        If the aligner is not fitted.
    TypeError
        For another estimator, or for labels or parameters that the format cannot hold; the message
        says which, and what to do.
    ValueError
        For string labels in a dtype far wider than they are.

    Notes
    -----
    The parameter ``memory`` is not stored. Class embeddings and class priors among the parameters
    are stored by their values, as a `ClassEmbeddings` and an array.

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
    if type(aligner) is not FlowMatchingAligner:
        raise TypeError(
            f"aligner must be a FlowMatchingAligner, got {type(aligner).__name__}. Of a pipeline, "
            "save the aligner and make the other steps again, or use skops.io for the whole."
        )
    check_is_fitted(aligner)
    arrays: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {"format": FORMAT, "version": flowalign.__version__}
    header["params"] = _store_params(aligner, arrays)
    header["labels"] = _store_labels("labels", aligner.classes_, arrays)
    if aligner.class_embeddings is not None:
        table = as_class_embeddings(aligner.class_embeddings, aligner.classes_, fit_argument=False)
        header["table"] = _store_labels("table.labels", table.labels, arrays)
        arrays["table.vectors"] = table.vectors
    field = aligner.velocity_field_
    kind = next(name for name, cls in FIELDS.items() if type(field) is cls)
    number = int if kind == "mlp" else float
    config = {k: None if v is None else number(v) for k, v in field.config.items()}
    header["field"] = {"kind": kind, "config": config}
    state = field.__getstate__()
    arrays |= {f"field.{name}": array for name, array in state["weights"].items()}
    arrays["class_embeddings"] = aligner.class_embeddings_
    if aligner.embedding_map_ is not None:
        parts = vars(aligner.embedding_map_)
        header["map_scale"] = parts["scale"]
        arrays |= {f"map.{k}": np.asarray(v) for k, v in parts.items() if k != "scale"}
    arrays |= {f"scores.{k}": v for k, v in (aligner.stop_scores_ or {}).items()}
    arrays["loss_curve"] = np.array(aligner.loss_curve_, dtype=np.float64)
    names = getattr(aligner, "feature_names_in_", None)
    header["fitted"] = {
        "joint": bool(aligner.joint_),
        "n_iter": aligner.n_iter_,
        "stop_source": aligner.stop_source_,
        "stop": aligner._stop,
        "normalize": aligner._normalize,
        "device": aligner.device_,
        "feature_names": None if names is None else [str(name) for name in names],
    }
    _replace(Path(path), pack(header, arrays))


def load(path: str | os.PathLike[str]) -> FlowMatchingAligner:
    """Read a fitted aligner from a file that :func:`save` wrote.

    It is on the device that it was fitted on, or on the CPU where that is not there.

    Parameters
    ----------
    path : str or path
        The file. It need not be trusted.

    Returns
    -------
    FlowMatchingAligner

    Raises
    ------
    ValueError
        If the file is damaged, is something else, or was written by a newer format.
    OSError
        If it cannot be read.
    """
    header, arrays = _read(Path(path))
    try:
        return _restore(header, arrays)
    except (
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError,
    ) as error:  # fmt: skip
        raise ValueError(f"{path} holds no aligner that can be restored: {error}") from error


def pack(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a file."""
    packed = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(header, allow_nan=False)
    # Under one name: safetensors writes several in no fixed order.
    return to_bytes(packed, {NAME: json.dumps([_checksum(text, packed), text])})


def _checksum(text: str, arrays: dict[str, NDArray[Any]]) -> str:
    """SHA-256 of header and arrays. It tells damage, not forgery."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _replace(path: Path, data: bytes) -> None:
    """Write aside first: a file under its name is complete."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _store_params(aligner: FlowMatchingAligner, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    params = aligner.get_params(deep=False)
    del params["class_embeddings"]
    for name in LEFT_OUT:
        del params[name]
    if not isinstance(params["class_prior"], str):
        # By classes_ from now on, whatever it was.
        arrays["class_prior"] = class_probabilities(
            params.pop("class_prior"), aligner.classes_, np.zeros(len(aligner.classes_))
        )
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
    """Numbers as an array, strings in the header."""
    dtype = labels.dtype.newbyteorder("=")
    if dtype.kind in "OU":
        if not all(type(label) is str for label in labels.tolist()):
            raise TypeError("Labels are objects other than strings; fit to strings or numbers.")
        _check_strings(dtype, labels.tolist())
        return {"dtype": dtype.str, "strings": labels.tolist()}
    if dtype.kind not in NUMBER_KINDS or dtype.itemsize > 8:
        raise TypeError(f"Labels of dtype {dtype} cannot be stored; fit to strings or numbers.")
    arrays[name] = labels.astype(dtype)
    return {"dtype": dtype.str, "strings": None}


def _check_strings(dtype: np.dtype[Any], strings: list[str]) -> None:
    """Refuse a dtype so much wider than its strings that a small file would fill the memory."""
    if dtype.kind == "U" and dtype.itemsize * len(strings) > MAX_PADDED:
        needed = 4 * max(map(len, strings))
        if dtype.itemsize > needed:
            raise ValueError(
                f"labels have the dtype {dtype}, of which they need {needed // 4} characters; "
                "fit to labels of that width."
            )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read the file without trust: nothing is allocated that the file does not hold."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(size - 8, MAX_HEADER):
        raise ValueError(f"{path} is not a safetensors file, or is cut off.")
    try:
        with safe_open(path, framework="numpy") as file:
            ours = (file.metadata() or {}).get(NAME)
            if ours is None:
                raise ValueError(f"{path} is a safetensors file, but holds no aligner.")
            checksum, text = json.loads(ours)
            header = json.loads(text, parse_constant=_no_number, parse_float=_finite)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} has a damaged header: {error}") from error
    if _checksum(text, arrays) != checksum:
        raise ValueError(f"{path} is damaged: its contents do not have the checksum they had.")
    return header, arrays


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"the header of the file has {text}, which is no number.")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _restore(header: Any, arrays: dict[str, NDArray[Any]]) -> FlowMatchingAligner:
    """Make the aligner; every key and every array must be used up."""
    left, unread = _Keys(header, "header"), dict(arrays)
    if (found := left.take("format", int)) != FORMAT:
        wrote = header.get("version")
        raise ValueError(
            f"its format is {found}, this flowalign {flowalign.__version__} reads {FORMAT}; it was "
            f"written by flowalign {wrote!r}."
        )
    left.take("version", str)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are not finite.")
    classes = _labels(left.take("labels", dict), "labels", unread)
    if len(np.unique(classes)) != len(classes) or (np.unique(classes) != classes).any():
        raise ValueError("labels are not sorted, or not distinct.")
    targets = unread.pop("class_embeddings")
    if targets.ndim != 2 or len(targets) != len(classes) or targets.dtype not in ("f4", "f8"):
        raise ValueError(f"class_embeddings are {targets.dtype} of shape {targets.shape}.")
    n_classes, width = targets.shape
    aligner = _aligner(left, unread, classes)
    fitted = _Keys(left.take("fitted", dict), "fitted")
    aligner.n_features_in_ = width
    names = fitted.take("feature_names", (list, type(None)))
    if names is not None:
        if len(names) != width or not all(type(name) is str for name in names):
            raise ValueError("feature_names are not one string a feature.")
        aligner.feature_names_in_ = np.array(names, dtype=object)
    aligner.classes_ = classes
    aligner.class_embeddings_ = targets
    aligner.joint_ = fitted.take("joint", bool)
    aligner.embedding_map_ = _map(left, unread, width)
    aligner.velocity_field_ = _field(left.take("field", dict), unread, n_classes, width)
    aligner.loss_curve_ = _shaped(unread.pop("loss_curve"), (None,), np.float64).tolist()
    aligner.n_iter_ = fitted.take("n_iter", int)
    if aligner.n_iter_ != max(1, len(aligner.loss_curve_)):
        raise ValueError(f"n_iter is {aligner.n_iter_}, not the length of the loss curve.")
    aligner.stop_scores_ = _scores(unread)
    aligner.stop_source_ = fitted.take("stop_source", (str, type(None)))
    if aligner.stop_source_ not in STOP_SOURCES:
        raise ValueError(f"stop_source is {aligner.stop_source_!r}.")
    aligner._stop = fitted.take("stop", (float, type(None)))
    if aligner._stop is not None and not 0 <= aligner._stop <= 1:
        raise ValueError(f"stop is {aligner._stop}.")
    aligner._normalize = fitted.take("normalize", bool)
    aligner.device_ = fitted.take("device", str)
    left.close()
    fitted.close()
    if unread:
        raise ValueError(f"it has arrays that no aligner has: {sorted(unread)[:5]}.")
    aligner.__setstate__(aligner.__dict__.copy())  # moves it to its device
    return aligner


class _Keys:
    """A dict whose keys are taken one by one, each of a type; none may be left over."""

    def __init__(self, values: Any, name: str) -> None:
        if type(values) is not dict:
            raise ValueError(f"{name} is not an object.")
        self.values, self.name = dict(values), name

    def take(self, key: str, kind: Any) -> Any:
        value = self.values.pop(key)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(value) not in kinds:  # exactly: True is an int
            raise ValueError(f"{self.name}.{key} is {value!r}.")
        return value

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def close(self) -> None:
        if self.values:
            raise ValueError(f"{self.name} has unknown keys: {sorted(self.values)[:5]}.")


def _aligner(
    left: _Keys, unread: dict[str, NDArray[Any]], classes: NDArray[Any]
) -> FlowMatchingAligner:
    """Make the unfitted aligner from its parameters."""
    params = left.take("params", dict)
    known = set(FlowMatchingAligner().get_params()) - {"class_embeddings", *LEFT_OUT}
    if set(params) - known:
        raise ValueError(f"params has unknown keys: {sorted(set(params) - known)[:5]}.")
    if not all(type(value) in SCALARS for value in params.values()):
        raise ValueError("params has values that are no scalars.")
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


def _labels(entry: Any, name: str, unread: dict[str, NDArray[Any]]) -> NDArray[Any]:
    keys = _Keys(entry, name)
    dtype = keys.take("dtype", str)
    strings = keys.take("strings", (list, type(None)))
    keys.close()
    if strings is None:
        labels = _shaped(unread.pop(name), (None,), np.dtype(dtype))
        if labels.dtype.kind not in NUMBER_KINDS or not len(labels):
            raise ValueError(f"{name} are of dtype {dtype}.")
        return labels
    if not strings or not all(type(label) is str for label in strings):
        raise ValueError(f"{name} are not all strings.")
    if np.dtype(dtype).kind not in "OU":
        raise ValueError(f"{name} are of dtype {dtype}.")
    _check_strings(np.dtype(dtype), strings)
    return np.array(strings, dtype=dtype)


def _map(left: _Keys, unread: dict[str, NDArray[Any]], width: int) -> ProcrustesMap | None:
    if "map_scale" not in left:
        return None
    scale = left.take("map_scale", float)
    rotation = _shaped(unread.pop("map.rotation"), (None, width))
    source_mean = _shaped(unread.pop("map.source_mean"), (len(rotation),))
    target_mean = _shaped(unread.pop("map.target_mean"), (width,))
    return ProcrustesMap(rotation, scale, source_mean, target_mean)


def _scores(unread: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | None:
    if "scores.n_steps" not in unread:
        return None
    n = unread["scores.n_steps"].size
    return {k: _shaped(unread.pop(f"scores.{k}"), (n,), dtype) for k, dtype in SCORES.items()}


def _field(
    entry: Any, unread: dict[str, NDArray[Any]], n_classes: int, width: int
) -> VelocityField:
    keys = _Keys(entry, "field")
    kind = keys.take("kind", str)
    config = _Keys(keys.take("config", dict), "field.config")
    keys.close()
    weights = {
        name.removeprefix("field."): unread.pop(name)
        for name in list(unread)
        if name.startswith("field.")
    }
    cls = FIELDS[kind]
    values: dict[str, Any]
    if cls is GaussianField:
        values = {name: config.take(name, float) for name in ("noise_std", "text_weight")}
        values["tail"] = config.take("tail", (float, type(None)))
        numbers = [v for v in values.values() if v is not None]
        if not all(0 <= number < MAX_NUMBER for number in numbers) or values["tail"] == 0:
            raise ValueError(f"field.config is {values}.")
        expected = _gaussian_shapes(n_classes, width)
    else:
        values = {name: config.take(name, int) for name in ("dim", "hidden_dim", "n_blocks")}
        # Sizes that the arrays do not have would be allocated before they are compared.
        if values["dim"] != width or not 1 <= values["n_blocks"] <= len(weights):
            raise ValueError(f"field.config is {values}.")
        hidden = weights["project_in.bias"].size
        if values["hidden_dim"] != hidden:
            raise ValueError(f"field.config is {values}.")
        expected = _network_shapes(**values)
    config.close()
    if {name: array.shape for name, array in weights.items()} != expected:
        raise ValueError("the arrays of the field do not have its shapes.")
    if any(array.dtype != np.float32 for array in weights.values()):
        raise ValueError("the arrays of the field are not float32.")
    field = cls.__new__(cls)
    field.__setstate__({"config": values, "weights": weights})
    return field


def _gaussian_shapes(n_classes: int, width: int) -> dict[str, tuple[int, ...]]:
    centres = (n_classes, width)
    return {
        "basis": (width, width),
        "variances": (width,),
        "means": centres,
        "targets": centres,
        "log_prior": (n_classes,),
    }


def _network_shapes(dim: int, hidden_dim: int, n_blocks: int) -> dict[str, tuple[int, ...]]:
    layers = {
        "project_in": (hidden_dim, dim),
        "time_in": (TIME_FEATURES, TIME_FEATURES),
        "time_out": (3 * hidden_dim, TIME_FEATURES),
        "project_out": (dim, hidden_dim),
    }
    for k in range(n_blocks):
        layers |= {f"inner.{k}": (hidden_dim, hidden_dim), f"outer.{k}": (hidden_dim, hidden_dim)}
    shapes: dict[str, tuple[int, ...]] = {"modulation_offset": (3 * n_blocks + 2, hidden_dim)}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def _shaped(array: NDArray[Any], shape: tuple[int | None, ...], dtype: Any = None) -> NDArray[Any]:
    """Check the shape, None being any length, and the dtype, None being any float."""
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    right = array.dtype.kind == "f" if dtype is None else array.dtype == dtype
    if not (fits and right):
        raise ValueError(f"an array is {array.dtype} of shape {array.shape}.")
    return array
