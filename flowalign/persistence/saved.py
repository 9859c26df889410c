"""An aligner that is known by its file, for work on several processes and machines."""

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

MODELS_KEPT = 8  # by each process
_loading = Lock()


def _new_lock() -> None:
    global _loading
    _loading = Lock()


if hasattr(os, "register_at_fork"):  # a child process lacks the thread that holds the lock
    os.register_at_fork(after_in_child=_new_lock)


class SavedAligner:
    """A fitted aligner in a file, which each process loads when it first predicts.

    Only the path of the file and its checksum travel between processes, some hundred bytes. So the
    methods can be handed to Dask's ``map_blocks``, Ray's ``map_batches``, joblib or
    ``multiprocessing`` for any number of blocks. A process keeps the last eight models. The
    attribute ``aligner`` is the aligner itself, for everything else, such as ``classes_``.

    The answer to a block without rows, which a filter may leave, has no rows. An aligner refuses
    such blocks, as all of scikit-learn does.

    Parameters
    ----------
    path : str or path
        A file that :func:`~flowalign.save` wrote; ``~`` is the home folder. It is read at once.
        Each process that predicts, maybe on another machine, reads it again under the same path.

    Attributes
    ----------
    path : str
        The absolute path.
    checksum : str
        Checksum of the contents. A process that finds other contents under the path raises.

    Raises
    ------
    ValueError
        If the file is damaged, or no aligner.
    OSError
        If the file cannot be read.

    See Also
    --------
    flowalign.load : Load an aligner in this process.

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
        restore(self.path, contents)  # so that a wrong file raises now, not in a worker
        self.checksum = contents.checksum

    @property
    def aligner(self) -> FlowMatchingAligner | MultiViewAligner:
        """The aligner of this process. It is shared: do not fit it or set its parameters."""
        with _loading:  # threads wait for the first one
            return _load(self.path, self.checksum)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the labels of rows, as :meth:`FlowMatchingAligner.predict` does."""
        return self._answer("predict", X)

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return probabilities, as :meth:`FlowMatchingAligner.predict_proba` does."""
        return self._answer("predict_proba", X)

    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """Return how much rows look like any class: `FlowMatchingAligner.score_samples`."""
        return self._answer("score_samples", X)

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Carry rows along the field, as :meth:`FlowMatchingAligner.transform` does."""
        return self._answer("transform", X)

    def _answer(self, method: str, X: Any) -> NDArray[Any]:
        aligner = self.aligner
        try:
            empty = len(X) == 0
        except TypeError:  # a sparse matrix, or no table of rows: the aligner raises for these
            empty = False
        return _answer_to_none(aligner, method, X) if empty else getattr(aligner, method)(X)

    def __repr__(self) -> str:
        return f"SavedAligner({self.path!r})"


@lru_cache(MODELS_KEPT)
def _load(path: str, checksum: str) -> FlowMatchingAligner | MultiViewAligner:
    contents = read(Path(path))
    if contents.checksum != checksum:
        raise ValueError(
            f"{path} is not the model of this SavedAligner: it was replaced, or is another file on "
            "this machine. Make a new SavedAligner of a file that all machines see."
        )
    return restore(path, contents)


def _answer_to_none(
    aligner: FlowMatchingAligner | MultiViewAligner, method: str, X: Any
) -> NDArray[Any]:
    """Return the answer of `method` to zero rows, with the width and dtype of its other answers."""
    if isinstance(aligner, MultiViewAligner):
        return aligner._answer_to_none(method, X)
    X = as_numpy(X, "X")
    cells = np.asarray(X)
    dtype = np.dtype(np.float64)
    # A column of arrays from which all rows were filtered does not tell the width of the arrays.
    if cells.dtype != object or cells.shape not in ((0,), (0, 1)):
        checked = validate_data(
            aligner, X, reset=False, dtype=float_dtypes(X), ensure_min_samples=0
        )
        dtype = checked.dtype
    nameless = copy.copy(aligner)  # feature names were checked above, and an array has none
    if hasattr(nameless, "feature_names_in_"):
        del nameless.feature_names_in_
    somewhere = aligner._arrays["class_embeddings_"][:1].astype(dtype)
    return getattr(nameless, method)(somewhere)[:0]
