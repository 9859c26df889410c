"""The public face that encoders share: scikit-learn transformers of pictures, sounds, anything.

An encoder is stateless and holds parameters only. Its backbone does all work that needs weights.
The backbone is loaded at the first use in a process and is not part of any pickle.
"""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Bunch

from flowalign.class_embeddings import ClassEmbeddings, class_vectors
from flowalign.encoders.backbone import Backbone
from flowalign.encoders.cache import FeatureCache
from flowalign.encoders.cells import Cells, as_items, form_of, is_missing
from flowalign.encoders.encoding import Encoding
from flowalign.inputs import shorten
from flowalign.parameters import integer, one_of
from flowalign.prompts import check_templates, fill, words
from flowalign.sphere import unit_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Parameters that do not change the features of an item.
NOT_IN_FEATURES = ("batch_size", "cache", "device", "missing", "n_features", "verbose")


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base of `OpenCLIPEncoder`, `ClapEncoder` and `CallableEncoder`."""

    batch_size: int
    cache: str | os.PathLike[str] | None
    verbose: int
    n_views: int = 1
    n_features: int | None = None
    missing: str = "error"
    _kind: ClassVar[str] = "item"
    _templates: ClassVar[tuple[str, ...]] = ("{}",)
    _unit_length: ClassVar[bool] = False  # whether rows have length 1

    @abstractmethod
    def _load(self) -> Backbone:
        """Return the model, loaded once per process."""

    def _check_parameters(self) -> None:
        integer("batch_size", self.batch_size, low=1)
        integer("n_views", self.n_views, low=1)
        one_of("missing", self.missing, ("error", "nan"))
        cache = self.cache
        if cache is not None and (not isinstance(cache, str | os.PathLike) or not os.fspath(cache)):
            raise ValueError(f"cache must be the path of a folder, or None, got {cache!r}.")

    def _is_single(self, values: Any) -> bool:
        """Whether an array looks like one item instead of a stack of them."""
        return False

    def _is_missing(self, item: Any) -> bool:
        """Whether a cell has no item."""
        return is_missing(item)

    def _parts(self, item: Any) -> list[Any] | None:
        """Return the items of a cell with several, whose rows are averaged; None for one item."""
        return None

    # The public face.

    def fit(self, X: Any = None, y: Any = None) -> Encoder:
        """Check parameters; nothing is learned.

        Parameters
        ----------
        X : sequence of n items, optional
            As for `transform`.
        y : None
            Ignored.

        Returns
        -------
        self
        """
        self._check_parameters()
        if X is not None:
            self._items(X)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Encode items.

        Parameters
        ----------
        X : sequence of n items
            Paths, or the other forms that the class documents. One place may hold several items,
            or, with ``missing="nan"``, none.

        Returns
        -------
        ndarray of shape (n, d)
            One row for each place in `X`, float32. Several views of an item are averaged, and so
            are several items.

        Raises
        ------
        FileNotFoundError
            If a path does not exist.
        ValueError
            If an item cannot be read or is missing. The message names the item.
        """
        return self.encode(X).X

    def encode(
        self, X: Any, y: ArrayLike | None = None, *, views: str = "mean", on_error: str = "raise"
    ) -> Bunch:
        """Encode items outside of a pipeline; there may be more or fewer rows than items.

        Parameters
        ----------
        X : sequence of n items
            As for `transform`.
        y : array-like of shape (n,), optional
            Labels; those of the returned rows are returned.
        views : {"mean", "stack"}, default="mean"
            One row for each item, the mean of its views; or one row for each view. The rows of an
            item's views follow one another, and its label is repeated. Several items in one place
            count as several views.
        on_error : {"raise", "skip"}, default="raise"
            Whether an item that cannot be read raises, or is left out and reported. All items in
            the same place are left out with it.

        Returns
        -------
        sklearn.utils.Bunch
            ``X`` (m, d), float32; ``y`` (m,), None without `y`; ``rows`` (m,), the position in `X`
            of the item behind each row; ``skipped``, a list of pairs (item, reason).

        Warns
        -----
        UserWarning
            If items were skipped, or may not be what they seem.
        """
        self._check_parameters()
        one_of("views", views, ("mean", "stack"))
        one_of("on_error", on_error, ("raise", "skip"))
        given = self._items(X)
        labels = None if y is None else np.asarray(y)
        if labels is not None and labels.shape != (len(given),):
            raise ValueError(f"y must hold {len(given)} labels, like X, got shape {labels.shape}.")
        skip = on_error == "skip"
        cells = Cells(
            given,
            self._kind,
            parts=self._parts,
            is_missing=self._is_missing,
            allow_missing=self.missing == "nan",
        )
        failed = cells.failed
        if failed and not skip:
            raise ValueError(failed[min(failed)])
        work = self._encoding(cells.items, self._kind, skip=skip, owners=cells.owners)
        features, read = work.rows(self.n_views)
        cells.fail(work.failed)
        if len(failed) == len(given):
            raise ValueError(f"None could be read; the first: {failed[0]}")
        kinds = f"{self._kind}s"
        _warn_of(failed, f"of {len(given)} {kinds} were skipped")
        _warn_of(work.doubted, f"of {len(cells.items)} {kinds} look odd")
        if not len(read):  # without rows, only the encoder knows the width
            features = np.empty((0, self._n_features_out), dtype=np.float32)
        if views == "stack":
            features, rows = cells.stacked(features, read, self.n_views)
        else:
            if self.n_views > 1 and len(read):
                means = features.reshape(len(read), self.n_views, -1).mean(axis=1)
                features = unit_rows(means, "The mean over views")
            features, rows = cells.means(features, read, unit_length=self._unit_length)
        return Bunch(
            X=features,
            y=None if labels is None else labels[rows],
            rows=rows,
            skipped=[(given[i], failed[i]) for i in sorted(failed)],
        )

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts as they are.

        Parameters
        ----------
        texts : sequence of m str

        Returns
        -------
        ndarray of shape (m, e)
            One row for each text, float32.
        """
        self._check_parameters()
        found = as_items(texts, "text")
        wrong = [t for t in found if not isinstance(t, str) or not t.strip()]
        if wrong:
            raise ValueError(f"texts must be strings that are not blank, got {wrong[0]!r}.")
        return self._encoding(found, "text").texts()

    def class_embeddings(
        self,
        class_names: Iterable[str] | Mapping[Any, str],
        templates: str | Iterable[str] | None = None,
    ) -> ClassEmbeddings:
        """Embed class names: the mean over all templates, normalised before and after.

        Parameters
        ----------
        class_names : sequence of str, or dict of label to str
            Names that are the labels too; their underscores are read as spaces. Or a dict with the
            words for each label.
        templates : str or sequence of str, optional
            Sentences with ``{}`` where the name goes. By default the general set for this kind of
            data in :mod:`flowalign.prompts`.

        Returns
        -------
        ClassEmbeddings
            One embedding of length 1 for each class.
        """
        sentences = check_templates(self._templates if templates is None else templates)
        if isinstance(class_names, Mapping):
            named = dict(class_names)
        else:
            found = as_items(class_names, "class name")
            _warn_of_repetition(found)
            named = {name: words(name) if isinstance(name, str) else name for name in found}
        wrong = [text for text in named.values() if not isinstance(text, str) or not text.strip()]
        if wrong or not named:
            raise ValueError(
                "class_names must be strings, or a dict of label to string such as {0: 'cat'}; "
                f"got {wrong[0] if wrong else class_names!r}."
            )
        rows = self.encode_text([fill(s, text) for text in named.values() for s in sentences])
        labels = [label for label in named for _ in sentences]
        ensemble = ClassEmbeddings(labels, rows)
        return ClassEmbeddings(ensemble.classes, class_vectors(ensemble, normalize=True))

    def _items(self, X: Any) -> list[Any]:
        if self._is_single(X):
            raise ValueError(f"X looks like one {self._kind}, {form_of(X)}; give a list, [X].")
        return as_items(X, self._kind)

    def _encoding(
        self,
        items: list[Any],
        modality: str,
        *,
        skip: bool = False,
        owners: Sequence[int] | NDArray[np.intp] | None = None,
    ) -> Encoding:
        backbone = self._load()
        return Encoding(
            backbone=backbone,
            space=backbone.space(modality),
            items=items,
            kind=modality,
            owners=range(len(items)) if owners is None else owners,
            n_features=self.n_features,
            cache=None if self.cache is None else FeatureCache(self.cache),
            batch_size=self.batch_size,
            skip=skip,
            progress=type(self).__name__ if self.verbose and modality != "text" else None,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = self.missing == "nan"
        return tags


def _warn_of(reasons: Mapping[int, str], what: str) -> None:
    if reasons:
        in_order = shorten([reasons[i] for i in sorted(reasons)])
        warnings.warn(f"{len(reasons)} {what}: {in_order}", UserWarning, stacklevel=3)


def _warn_of_repetition(names: list[Any]) -> None:
    repeated = [name for name, n in Counter(map(str, names)).items() if n > 1]
    if repeated:
        warnings.warn(
            f"class_names lists {shorten(repeated)} more than once; a repeated name is one class. "
            "If several classes share a name, give a dict of label to name, and better names.",
            UserWarning,
            stacklevel=3,  # whoever called class_embeddings
        )


def described(encoder: BaseEstimator) -> str:
    """Return the parameters that features depend on, as text for files of features."""
    params = encoder.get_params().items()
    return repr(sorted((k, v) for k, v in params if k not in NOT_IN_FEATURES))
