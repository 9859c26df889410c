"""Feature sets of several views: features of the same samples by several encoders, in one file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign import inputs
from flowalign.atomic_file import expanded
from flowalign.benchmark.feature_sets import (
    NO_ARCHIVE,
    VIEW,
    FeatureSet,
    checked_set,
    read_arrays,
)
from flowalign.multi_view import MultiViewAligner

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEST, NAMES = "X_test_", "class_embeddings"


@dataclass(frozen=True)
class ViewSet:
    """Views of the same training and test samples.

    Attributes
    ----------
    name : str
        The name of the file without its ending.
    views : dict of str to FeatureSet
        Two or more views with the same codes. A row is NaN in the views that it lacks, and has at
        least one view.
    fingerprint : str
        Hash of the contents of the file.
    """

    name: str
    views: dict[str, FeatureSet]
    fingerprint: str

    @property
    def y_train(self) -> NDArray[Any]:
        """Codes of the training samples, (n,)."""
        return next(iter(self.views.values())).y_train

    @property
    def y_test(self) -> NDArray[Any]:
        """Codes of the test samples, (m,)."""
        return next(iter(self.views.values())).y_test

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(next(iter(self.views.values())).class_embeddings.classes)

    def draw(self, n_shots: int, seed: int) -> NDArray[Any]:
        """Draw up to ``n_shots`` training samples of each class, whichever views they have."""
        return next(iter(self.views.values())).draw(n_shots, seed)


def has_views(path: str | os.PathLike[str]) -> bool:
    """Whether a file has several views, by the names of its arrays."""
    try:
        with expanded(path).open("rb") as stream:
            names = np.load(stream, allow_pickle=False).files
    except NO_ARCHIVE:  # reading the file later raises an error that says what is wrong
        return False
    return any(name.startswith(VIEW) for name in names)


def load_view_set(path: str | os.PathLike[str]) -> ViewSet:
    """Read a feature set of several views.

    Parameters
    ----------
    path : str or path
        An .npz file as for :func:`load_feature_set`, but with ``X_train_<view>`` and
        ``X_test_<view>`` for each view instead of ``X_train`` and ``X_test``. All views have the
        same samples as rows. A row is NaN in views that the sample lacks.
        ``class_embeddings_<view>`` belongs to one view, ``class_embeddings`` to all other views.

    Returns
    -------
    ViewSet

    Raises
    ------
    ValueError
        If the file does not have this form; the message says where.

    Warns
    -----
    UserWarning
        As for :func:`load_feature_set`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> codes, song, picture = np.arange(3), np.ones((3, 4)), np.ones((3, 2))
    >>> arrays = {"X_train_song": song, "X_test_song": song}
    >>> arrays |= {"X_train_picture": picture, "X_test_picture": picture}
    >>> arrays |= {"y_train": codes, "y_test": codes, "class_embeddings": np.eye(3)}
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/birds.npz", **arrays)
    ...     birds = load_view_set(f"{folder}/birds.npz")
    >>> list(birds.views), birds.views["picture"].X_train.shape
    (['song', 'picture'], (3, 2))
    """
    path = expanded(path).absolute()
    state = path.stat()
    return _load(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _load(path: Path, mtime_ns: int, size: int) -> ViewSet:
    """Read a file, again only if it has changed."""
    names, arrays, fingerprint = read_arrays(path, _wanted)
    views = [name.removeprefix(VIEW) for name in names if name.startswith(VIEW)]
    _check_names(path, views, list(arrays))
    for start in (VIEW, TEST):
        lengths = {start + view: arrays[start + view].shape[:1] for view in views}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} has {n[0] if n else 'no'}" for name, n in lengths.items())
            raise ValueError(f"{path}: views should have the same samples as rows; {found}.")
    sets = {view: _view(path, arrays, view, fingerprint) for view in views}
    for start, attribute in ((VIEW, "X_train"), (TEST, "X_test")):
        lacks = [np.isnan(getattr(data, attribute)[:, 0]) for data in sets.values()]
        if len(lonely := np.flatnonzero(np.all(lacks, axis=0))):
            raise ValueError(
                f"{path}: rows {inputs.shorten(lonely.tolist())} are NaN in every {start}<view>."
            )
    for view, data in sets.items():
        if np.isnan(data.X_train).all():
            raise ValueError(f"{path}: {VIEW}{view} has no row but NaN.")
    n_classes = {_table(view, arrays): len(d.class_embeddings.classes) for view, d in sets.items()}
    if len(set(n_classes.values())) > 1:
        found = ", ".join(f"{name} has {n}" for name, n in n_classes.items())
        raise ValueError(f"{path}: each class should have a row; {found}.")
    return ViewSet(path.stem, sets, fingerprint)


def _wanted(name: str) -> bool:
    known = ("X_train", "X_test", "y_train", "y_test", NAMES)
    return name in known or name.startswith((VIEW, TEST, f"{NAMES}_"))


def _check_names(path: Path, views: list[str], names: list[str]) -> None:
    """Make sure that each view has all arrays, and that each array belongs to a view."""
    if len(views) < 2:
        found = VIEW + views[0] if views else "none"
        raise ValueError(
            f"{path} should have {VIEW}<view> for two views or more, has {found}; a set of one "
            "view has X_train and X_test."
        )
    beside = [name for name in ("X_train", "X_test") if name in names]
    if beside:
        raise ValueError(
            f"{path} has {', '.join(beside)} beside {', '.join(VIEW + view for view in views)}; "
            "leave it out, or give it the name of a view too."
        )
    taken = MultiViewAligner([]).get_params(deep=False)
    wrong = [VIEW + view for view in views if not view or "__" in view or view in taken]
    if wrong:
        raise ValueError(
            f"{path}: {', '.join(wrong)} should end in the name of a view, without '__', and none "
            f"of {', '.join(taken)}."
        )
    needed = ["y_train", "y_test", *(TEST + view for view in views)]
    needed += [_table(view, names) for view in views]
    if missing := [name for name in dict.fromkeys(needed) if name not in names]:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}; it should have {', '.join(dict.fromkeys(needed))}."
        )
    starts = (TEST, f"{NAMES}_")
    known = {start + view for start in starts for view in views}
    if foreign := [name for name in names if name.startswith(starts) and name not in known]:
        raise ValueError(f"{path} has {', '.join(foreign)}; the views are {', '.join(views)}.")


def _table(view: str, names: Any) -> str:
    """Return the name of the array with the class embeddings of a view."""
    own = f"{NAMES}_{view}"
    return own if own in names or NAMES not in names else NAMES


def _view(path: Path, arrays: dict[str, NDArray[Any]], view: str, fingerprint: str) -> FeatureSet:
    names = VIEW + view, TEST + view, _table(view, arrays)
    return checked_set(path, arrays, fingerprint, names=names, gaps=True)
