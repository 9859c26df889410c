"""An aligner by the name of its file, for work that is spread over processes and machines."""

from __future__ import annotations

import copy
import os
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import validate_data

from flowalign.aligner import FlowMatchingAligner
from flowalign.atomic_file import expanded
from flowalign.inputs import as_numpy, float_dtypes
from flowalign.multi_view import MultiViewAligner
from flowalign.persistence.file_format import read
from flowalign.persistence.restoring import restore

MODELS_KEPT = 8  # in a process
_loading = Lock()


def _new_lock() -> None:
    global _loading
    _loading = Lock()


if hasattr(os, "register_at_fork"):  # the thread that holds it is not in the child
    os.register_at_fork(after_in_child=_new_lock)


class SavedAligner:
    """A fitted aligner in a file, which each process loads when it first predicts.

    What travels between processes is the name of the file and its checksum, some hundred bytes;
    so its methods can be handed to Dask's ``map_blocks``, Ray's ``map_batches``, joblib or
    ``multiprocessing`` for any number of blocks. A process keeps the last eight models. What else
    an aligner has, such as ``classes_``, the attribute ``aligner`` has.

    Blocks of no rows, which a filter may leave, are answered with no rows, where an aligner, like
    all of scikit-learn, refuses them.

    Parameters
    ----------
    path : str or path
        A file that :func:`~flowalign.save` wrote; ``~`` is the home folder. It is read at once, and
        again under the same path by each process that predicts, which may be on another machine.

    Attributes
    ----------
    path : str
        Absolute.
    checksum : str
        Of the contents. A process that finds others under this path refuses them.

    Raises
    ------
    ValueError
        If the file is damaged, or no aligner.
    OSError
        If it cannot be read.

    See Also
    --------
    flowalign.load : One aligner, here.

    Examples
    --------
    >>> import pickle, tempfile
    >>> import flowalign
    >>> from flowalign.datasets import make_cross_modal
    >>> data = make_cross_modal(random_state=0)
    >>> aligner = flowalign.FlowMatchingAligner()
    >>> aligner = aligner.fit(data.X_train, data.y_train, data.class_embeddings)
    >>> folder = tempfile.TemporaryDirectory()
    >>> flowalign.save(aligner, f"{folder.name}/model.safetensors")
    >>> saved = flowalign.SavedAligner(f"{folder.name}/model.safetensors")
    >>> len(pickle.dumps(saved)) < 1000 < len(pickle.dumps(aligner))
    True
    >>> bool((saved.predict(data.X_test) == aligner.predict(data.X_test)).all())
    True
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(expanded(path))
        contents = read(Path(self.path))
        restore(self.path, contents)  # tells now, not in a worker, that it is no aligner
        self.checksum = contents.checksum

    @property
    def aligner(self) -> FlowMatchingAligner | MultiViewAligner:
        """The aligner of this process. It is shared: do not fit it, or set its parameters."""
        with _loading:  # threads wait for the first one
            return _load(self.path, self.checksum)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the labels of rows, as :meth:`FlowMatchingAligner.predict` does."""
        return self._answer("predict", X)

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return probabilities, as :meth:`FlowMatchingAligner.predict_proba` does."""
        return self._answer("predict_proba", X)

    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """Return how much rows look like any class; see `FlowMatchingAligner.score_samples`."""
        return self._answer("score_samples", X)

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Carry rows along the field, as :meth:`FlowMatchingAligner.transform` does."""
        return self._answer("transform", X)

    def _answer(self, method: str, X: Any) -> NDArray[Any]:
        aligner = self.aligner
        try:
            empty = len(X) == 0
        except TypeError:  # sparse, or no rows at all, which the aligner refuses
            empty = False
        return _answer_to_none(aligner, method, X) if empty else getattr(aligner, method)(X)

    def __repr__(self) -> str:
        return f"SavedAligner({self.path!r})"


@lru_cache(MODELS_KEPT)
def _load(path: str, checksum: str) -> FlowMatchingAligner | MultiViewAligner:
    contents = read(Path(path))
    if contents.checksum != checksum:
        raise ValueError(
            f"{path} is not the model that was meant: it was replaced, or is another file on this "
            "machine. Make a new SavedAligner, of a file that all machines see."
        )
    return restore(path, contents)


def _answer_to_none(
    aligner: FlowMatchingAligner | MultiViewAligner, method: str, X: Any
) -> NDArray[Any]:
    """Return what `method` says of zero rows: of the width and dtype that it has for others."""
    if isinstance(aligner, MultiViewAligner):
        return aligner._answer_to_none(method, X)
    X = as_numpy(X, "X")
    cells = np.asarray(X)
    dtype = np.dtype(np.float64)
    # A column of arrays that has none left does not tell their width.
    if cells.dtype != object or cells.shape not in ((0,), (0, 1)):
        checked = validate_data(
            aligner, X, reset=False, dtype=float_dtypes(X), ensure_min_samples=0
        )
        dtype = checked.dtype
    nameless = copy.copy(aligner)  # names were checked, and an array has none
    if hasattr(nameless, "feature_names_in_"):
        del nameless.feature_names_in_
    somewhere = aligner.class_embeddings_[:1].astype(dtype)
    return getattr(nameless, method)(somewhere)[:0]
