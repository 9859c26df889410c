"""CallableEncoder: any function that turns items into rows, as an encoder with a cache."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from flowalign.encoders.backbone import Backbone
from flowalign.encoders.base import Encoder
from flowalign.encoders.cache import EncoderSpace
from flowalign.encoders.cells import listed
from flowalign.inputs import as_numpy
from flowalign.parameters import integer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Function = Callable[[list[Any]], ArrayLike]


class CallableEncoder(Encoder):
    """Encode with a function of your own: DINO, BirdNET, a speech model, a server.

    Parameters
    ----------
    function : callable
        Takes a list of at most `batch_size` items, unchanged (paths stay paths), and returns one
        row of features for each item, an array-like of shape (m, d).
    text_function : callable, optional
        Takes a list of texts instead, for `encode_text` and `class_embeddings`.
    name : str, optional
        Names the model, its weights and its preprocessing in the cache. The name must change when
        any of them changes, since the cache cannot see into a function. Needed with `cache`.
    average_lists : bool, default=False
        Whether a list or tuple in one place of X holds several items, such as frames of a video.
        The function encodes each item by itself, and the cache keeps each row. The row of the place
        is the mean of these rows. By default a list is one item.
    missing : {"error", "nan"}, default="error"
        What becomes of items that are missing (None, NaN, NA or, with `average_lists`, an empty
        list): an error that names the place, or a row of NaN. Paths that do not exist go to the
        function.
    n_features : int, optional
        The width of rows. Needed with ``missing="nan"``: if all items are missing, the function is
        not called and the width is not known otherwise. `get_feature_names_out` needs it too.
    batch_size : int, default=64
        Items in one call of the function.
    cache : str, path or None, default=None
        A folder in which features are kept; None keeps nothing. With a cache, strings and paths
        are paths of files, which the cache knows by their content. It knows numbers, bytes, arrays,
        and lists and tuples of these by their values. Other items are refused.
    verbose : int, default=0
        Above 0, shows a progress bar.

    Notes
    -----
    Clones share the functions, also bound methods and their models. In pickles and worker
    processes the functions must be importable, as always with pickle.

    Examples
    --------
    >>> import numpy as np
    >>> from flowalign.encoders import CallableEncoder
    >>> def loudness(sounds):
    ...     return [[np.mean(s), np.std(s)] for s in sounds]
    >>> CallableEncoder(loudness).transform([np.zeros(8), np.array([1.0, -1.0])])
    array([[0., 0.],
           [0., 1.]], dtype=float32)
    """

    def __init__(
        self,
        function: Function,
        text_function: Function | None = None,
        *,
        name: str | None = None,
        average_lists: bool = False,
        missing: str = "error",
        n_features: int | None = None,
        batch_size: int = 64,
        cache: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        self.function = function
        self.text_function = text_function
        self.name = name
        self.average_lists = average_lists
        self.missing = missing
        self.n_features = n_features
        self.batch_size = batch_size
        self.cache = cache
        self.verbose = verbose

    def __sklearn_clone__(self) -> CallableEncoder:
        # scikit-learn copies parameters deeply, and a bound method brings its model along.
        twin = copy.copy(self)
        parameters = self.get_params(deep=False)
        for name, value in vars(self).items():
            if name not in parameters:
                setattr(twin, name, copy.deepcopy(value))
        return twin

    @property
    def _n_features_out(self) -> int:
        if self.n_features is None:
            # With these very words, scikit-learn's set_output numbers the columns instead.
            raise AttributeError(
                "A CallableEncoder without n_features does not provide get_feature_names_out."
            )
        return self.n_features

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of features, if `n_features` was given.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of str of shape (n_features,)
            ``"callableencoder0"``, ``"callableencoder1"`` and so on.

        Raises
        ------
        AttributeError
            If `n_features` was not given: only a call of the function tells the width of rows.
        """
        self._n_features_out  # noqa: B018 - raises a better message than "not fitted"
        return super().get_feature_names_out(input_features)

    def _parts(self, item: Any) -> list[Any] | None:
        return listed(item) if self.average_lists else None

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for argument in ("function", "text_function"):
            value = getattr(self, argument)
            if not callable(value) and (argument == "function" or value is not None):
                raise TypeError(f"{argument} must be callable, got {value!r}.")
        if not isinstance(self.average_lists, bool | np.bool_):
            raise TypeError(f"average_lists must be True or False, got {self.average_lists!r}.")
        if self.n_features is not None:
            integer("n_features", self.n_features, low=1)
        elif self.missing == "nan":
            raise ValueError(
                "n_features must be given with missing='nan', for the case that all items are "
                "missing; got None."
            )
        if self.cache is not None and not (isinstance(self.name, str) and self.name):
            raise ValueError(
                "name must be given with cache: a string that stands for the model, its weights "
                f"and its preprocessing, and changes with them; got {self.name!r}."
            )

    def _load(self) -> _Function:
        return _Function(self.name, self.function, self.text_function)


@dataclass(frozen=True)
class _Function(Backbone):
    """The user's functions, which read files themselves."""

    reads_files: ClassVar[bool] = False

    name: str | None
    function: Function
    text_function: Function | None

    def space(self, modality: str) -> EncoderSpace:
        """Return a space that depends on the encoder's name alone."""
        return EncoderSpace(f"{self.name}, {modality}s", {"name": self.name, "modality": modality})

    def prepare(self, item: Any, numbers: Sequence[int], n_views: int) -> list[Any]:
        """Return the item itself."""
        return [item]

    def forward(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Call `function`."""
        return _rows("function", self.function, inputs)

    def forward_text(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Call `text_function`."""
        if self.text_function is None:
            raise ValueError(
                "This encoder has no text_function. Give it one, or make the table yourself from "
                "any text encoder: ClassEmbeddings(class_names, vectors)."
            )
        return _rows("text_function", self.text_function, inputs)


def _rows(name: str, function: Function, inputs: list[Any]) -> NDArray[np.float32]:
    returned = function(inputs)
    try:
        # A copy: the function may use its memory again in the next call.
        rows = np.array(as_numpy(returned, name), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must return numbers in rows of one width: {error}") from error
    if rows.ndim != 2 or len(rows) != len(inputs) or rows.shape[1] == 0:
        raise ValueError(
            f"{name} must return a row for each of {len(inputs)} items, got shape {rows.shape}."
        )
    return rows
