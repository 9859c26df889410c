"""Feature sets: the features that an encoder made of a data set, in one file."""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from flowalign import inputs
from flowalign.atomic_file import expanded, written_whole
from flowalign.class_embeddings import ClassEmbeddings
from flowalign.datasets.splits import load_split
from flowalign.encoders.base import Encoder, described

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS = ("X_train", "y_train", "X_test", "y_test", "class_embeddings")
VIEW = "X_train_"
"""The beginning of names of arrays in files of several views; the name of the view follows."""
NO_ARCHIVE = (AttributeError, ValueError, OSError, EOFError, BadZipFile, zlib.error)
"""The errors that numpy raises for files that are no archives of plain arrays."""
EMOJI = Path(str(files("flowalign.datasets").joinpath("data", "emoji.npz")))


@dataclass(frozen=True)
class FeatureSet:
    """Features of training and test samples, their classes and the embeddings of the class names.

    Attributes
    ----------
    name : str
        The file's, without its ending.
    X_train, X_test : ndarray of shape (n, d) and (m, d)
        Features, float32. In one view of several, rows of samples that lack the view are NaN.
    y_train, y_test : ndarray of shape (n,) and (m,)
        Codes, which number the rows of the class embeddings.
    class_embeddings : ClassEmbeddings
        Labels are the codes 0 to C - 1.
    fingerprint : str
        Hash of the contents of the file.
    """

    name: str
    X_train: NDArray[Any]
    y_train: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]
    class_embeddings: ClassEmbeddings
    fingerprint: str

    def draw(self, n_shots: int, seed: int) -> NDArray[Any]:
        """Draw up to ``n_shots`` training samples of each class; return their rows."""
        return drawn_rows(self.y_train, n_shots, seed)


def drawn_rows(y: NDArray[Any], n_shots: int, seed: int) -> NDArray[Any]:
    """Draw up to ``n_shots`` samples of each class of ``y``, (n,); return their rows.

    For one seed, a draw of fewer shots is part of any draw of more. (:func:`few_shot` insists on
    ``n_shots`` of each class, and draws by a ``RandomState``, as users of scikit-learn expect.)
    """
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(y == c))[:n_shots] for c in np.unique(y)]
    return np.concatenate(drawn)


def all_drawn(y: NDArray[Any], n_shots: int) -> bool:
    """Whether a draw of ``n_shots`` takes all samples of ``y``, (n,): then all draws are equal."""
    return bool(np.bincount(y).max() <= n_shots)


def load_feature_set(path: str | os.PathLike[str]) -> FeatureSet:
    """Read a feature set.

    Parameters
    ----------
    path : str or path
        An .npz file with these arrays, none of them pickled: ``X_train`` (n, d) and ``X_test``
        (m, d), features of any type of number; ``y_train`` (n,) and ``y_test`` (m,), integer codes
        of the classes, 0 to C - 1; ``class_embeddings`` (C, e), one row per code. Other arrays are
        ignored.

    Returns
    -------
    FeatureSet

    Raises
    ------
    ValueError
        If the file does not have this form; the message says where. For a file of several views,
        see :func:`load_view_set`.

    Warns
    -----
    UserWarning
        If the class embeddings may be the columns of their array instead of the rows.

    Examples
    --------
    >>> from flowalign.benchmark.feature_sets import EMOJI, load_feature_set
    >>> emoji = load_feature_set(EMOJI)
    >>> emoji.X_train.shape, emoji.class_embeddings
    ((400, 1280), ClassEmbeddings(25 classes, 384 dimensions))
    >>> len(emoji.draw(4, seed=0))
    100
    """
    path = expanded(path).absolute()
    state = path.stat()
    return _load(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _load(path: Path, mtime_ns: int, size: int) -> FeatureSet:
    """Read a file, again only if it has changed."""
    names, arrays, fingerprint = read_arrays(path, ARRAYS.__contains__)
    if views := [name for name in names if name.startswith(VIEW)]:
        raise ValueError(
            f"{path} has several views, {', '.join(views)}; run_several_views and load_view_set "
            "take such files."
        )
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it should have {', '.join(ARRAYS)}.")
    return checked_set(path, arrays, fingerprint)


def read_arrays(
    path: Path, wanted: Callable[[str], bool]
) -> tuple[list[str], dict[str, NDArray[Any]], str]:
    """Read the arrays with wanted names; also return all names, and the file's fingerprint."""
    with path.open("rb") as stream:
        fingerprint = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        try:
            loaded = np.load(stream, allow_pickle=False)
            names = list(loaded.files)
            return names, {name: loaded[name] for name in names if wanted(name)}, fingerprint
        except NO_ARCHIVE as error:
            raise ValueError(f"{path} is not an .npz file of plain arrays: {error}") from error


def checked_set(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    fingerprint: str,
    *,
    names: Sequence[str] = ("X_train", "X_test", "class_embeddings"),
    gaps: bool = False,
) -> FeatureSet:
    """Make a feature set of arrays, with these names of three. With `gaps`, rows may be NaN."""
    X_train, X_test = (_matrix(path, arrays, name, gaps=gaps) for name in names[:2])
    embeddings = _matrix(path, arrays, names[2])
    if X_train.shape[1] != X_test.shape[1]:
        raise ValueError(
            f"{path}: {names[0]} is {X_train.shape[1]} wide and {names[1]} {X_test.shape[1]}."
        )
    y_train = _codes(path, arrays, "y_train", len(X_train))
    y_test = _codes(path, arrays, "y_test", len(X_test))
    codes = np.concatenate([y_train, y_test])
    _check_rows(path, names[2], embeddings, codes, X_train.shape[1])
    table = ClassEmbeddings(np.arange(len(embeddings)), embeddings)
    return FeatureSet(path.stem, X_train, y_train, X_test, y_test, table, fingerprint)


def _matrix(
    path: Path, arrays: dict[str, NDArray[Any]], name: str, *, gaps: bool = False
) -> NDArray[Any]:
    values = arrays[name]
    plain = values.ndim == 2 and values.size and values.dtype.kind in "biuf"
    right = np.isfinite(values).all(axis=1) if plain else np.zeros(0, bool)
    if plain and gaps:
        right |= np.isnan(values).all(axis=1)
    if not plain or not right.all():
        bad = inputs.shorten(np.flatnonzero(~right).tolist())
        rows = f", of which rows {bad} are NaN or infinite" if plain else ""
        rows += " in a part" if plain and gaps else ""
        raise ValueError(
            f"{path}: {name} should be a matrix of finite numbers, is {values.dtype} of shape "
            f"{values.shape}{rows}."
        )
    return values.astype(np.float32)


def _codes(path: Path, arrays: dict[str, NDArray[Any]], name: str, n: int) -> NDArray[Any]:
    codes = arrays[name]
    if codes.shape != (n,) or codes.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: {name} should have an integer code for each of {n} rows, is {codes.dtype} of "
            f"shape {codes.shape}."
        )
    if codes.min() < 0:
        raise ValueError(f"{path}: {name} has codes from {codes.min()} on; they start at 0.")
    return codes.astype(np.int64)


def _check_rows(
    path: Path, name: str, embeddings: NDArray[Any], codes: NDArray[Any], n_features: int
) -> None:
    """Make sure that every code has a row, and that rows, not columns, are the embeddings.

    There may be more rows than codes, since classes may have no samples. So only the shape tells a
    transposed array: it has as many columns as there are codes, or as many rows as features.
    """
    n_rows, n_columns = embeddings.shape
    n_codes, last = len(np.unique(codes)), int(codes.max())
    fits, as_wide = n_columns == n_codes != n_rows, n_rows == n_features != n_columns
    shape = f"{path}: {name} has shape {embeddings.shape}, one row per class"
    if last >= n_rows or (fits and as_wide):
        turn = ", but its columns are as many as the classes: transpose it" if fits else ""
        raise ValueError(f"{shape}{turn}. There are {n_codes} codes in y, up to {last}.")
    if fits or (as_wide and n_rows != n_codes and last < n_columns):
        warnings.warn(
            f"{shape}, and y has {n_codes} codes. Transpose it if the embeddings are its columns.",
            stacklevel=2,
        )


def encode_split(
    root: str | os.PathLike[str], name: str, encoder: Encoder, path: str | os.PathLike[str]
) -> Path:
    """Encode a benchmark data set into a feature set, unless the file exists already.

    Parameters
    ----------
    root, name
        As for :func:`flowalign.datasets.load_split`.
    encoder : Encoder
        An encoder of pictures and text.
    path : str or path
        The file to write.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the file exists and was made by another encoder.
    """
    path = expanded(path)
    made_by = described(encoder)
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            found = str(archive["encoder"]) if "encoder" in archive else "something else"
        if found != made_by:
            raise ValueError(f"{path} was made by {found}, not {made_by}; move it away.")
        return path
    split = load_split(root, name)
    encoder = encoder.fit()
    table = encoder.class_embeddings(split.class_names, templates=split.template)
    arrays = {
        "X_train": encoder.transform(split.X_train),
        "y_train": np.searchsorted(table.classes, split.y_train),
        "X_test": encoder.transform(split.X_test),
        "y_test": np.searchsorted(table.classes, split.y_test),
        "class_embeddings": table.vectors,
        "encoder": np.array(made_by),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        np.savez(file, **arrays)
    return path
