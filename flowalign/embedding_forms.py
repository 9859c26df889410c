"""The forms in which users give class embeddings, and the table that they become."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowalign.class_embeddings import ClassEmbeddings, class_vectors, columns_instead
from flowalign.equal_embeddings import TOLERANCE
from flowalign.inputs import shorten, union_of_labels, vector_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODES_THROUGHOUT = (
    "Around a meta-estimator give codes for both, of the labels that y has: with encoder = "
    "LabelEncoder().fit(y), ClassEmbeddings(labels, vectors).subset(y).relabel(encoder) as class "
    "embeddings and encoder.transform(y) as y."
)


class Names(NamedTuple):
    """Labels of classes, and the embeddings of their names.

    Attributes
    ----------
    classes : ndarray of shape (C,)
        Labels, sorted.
    E : ndarray of shape (C, e) or None
        None without text.
    """

    classes: NDArray[Any]
    E: NDArray[Any] | None

    def of(self, kept: NDArray[np.bool_]) -> Names:
        """Return those of some classes."""
        return Names(self.classes[kept], None if self.E is None else self.E[kept])


def names_of(
    value: Any, y: NDArray[Any], *, fit_argument: bool, normalize: bool
) -> tuple[Names, NDArray[Any]]:
    """Names of classes, and the code of each label in ``y``.

    Without class embeddings, `value` None, the classes are those of ``y``. The other parameters are
    those of :func:`as_class_embeddings` and :func:`flowalign.class_embeddings.class_vectors`.
    """
    if value is None:
        classes, codes = np.unique(y, return_inverse=True)
        return Names(classes, None), codes
    table = as_class_embeddings(value, y, fit_argument=fit_argument)
    warn_of_codes(table, y)
    # An empty list has the dtype of no label.
    codes = np.searchsorted(table.classes, y if len(y) else table.classes[:0])
    return Names(table.classes, class_vectors(table, normalize=normalize)), codes


def names_after(
    known: Names | None, value: Any, default: Any, labels: NDArray[Any], *, normalize: bool
) -> Names:
    """Names of the classes so far, and of those that come with more samples.

    Parameters
    ----------
    known : Names or None
        Those so far.
    value : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
        What came with the samples; an embedding of a known class takes the place of its earlier
        one.
    default : as `value`
        Of the constructor, in the place of `value` where there are no names so far, and for labels
        that have no embedding otherwise.
    labels : ndarray of shape (k,)
        Sorted: of the samples, and others that are to be classes.
    normalize : bool
        As of :func:`flowalign.class_embeddings.class_vectors`.
    """

    def table_of(value: Any, needed: NDArray[Any]) -> Names:
        has_labels = isinstance(value, ClassEmbeddings | Mapping) or hasattr(value, "iloc")
        table = as_class_embeddings(value, needed if has_labels else labels, fit_argument=False)
        return Names(table.classes, class_vectors(table, normalize=normalize))

    if known is None:
        given = default if value is None else value
        return Names(labels, None) if given is None else table_of(given, labels)
    new = labels[~np.isin(labels, known.classes)]
    if value is not None:
        given = table_of(value, new)
        if known.E is None:
            if missing := sorted({*known.classes.tolist()} - {*given.classes.tolist()}):
                raise ValueError(
                    "The samples so far came without class_embeddings; these must have all "
                    f"classes, and lack {shorten(missing)}."
                )
            return given
        return joined_names(known, given, replaced=True)
    if known.E is None:
        return Names(union_of_labels(known.classes, labels), None)
    if not len(new):
        return known
    if default is None:
        raise ValueError(
            f"y has new labels, {shorten(new.tolist())}, without class_embeddings, which all other "
            "classes have; give theirs, {label: vector}."
        )
    given = table_of(default, new)
    return joined_names(known, given.of(~np.isin(given.classes, known.classes)))


def joined_names(one: Names, other: Names, *, replaced: bool = False) -> Names:
    """Names of both; of those in both the embeddings are equal, or the latter ones are taken."""
    classes = union_of_labels(one.classes, other.classes)
    if one.E is None or other.E is None:
        if one.E is not other.E:
            raise ValueError("class_embeddings are known of one part only; give them for both.")
        return Names(classes, None)
    if one.E.shape[1] != other.E.shape[1]:
        raise ValueError(
            f"class_embeddings are {other.E.shape[1]} wide, and those so far {one.E.shape[1]}; "
            "take all from the same encoder."
        )
    E = np.empty((len(classes), one.E.shape[1]), np.result_type(one.E, other.E))
    E[np.searchsorted(classes, one.classes)] = one.E
    rows = np.searchsorted(classes, other.classes)
    both = np.isin(other.classes, one.classes)
    differ = both & (np.abs(E[rows] - other.E).max(axis=1) > TOLERANCE) if both.any() else both
    if differ.any() and not replaced:
        raise ValueError(
            f"class_embeddings differ for {shorten(other.classes[differ].tolist())}; use one for "
            "each class."
        )
    E[rows] = other.E
    return Names(classes, E)


def as_class_embeddings(value: Any, y: NDArray[Any], *, fit_argument: bool) -> ClassEmbeddings:
    """Make a table out of whatever a user gave and check that it covers the labels in ``y``.

    Parameters
    ----------
    value : ClassEmbeddings, dict, DataFrame or array-like of shape (C, e)
        Rows of an array follow ``np.unique(y)``.
    y : ndarray of shape (n,)
        Labels of the support samples.
    fit_argument : bool
        Whether `value` came through ``fit``, where cross-validation may have cut it.
    """
    if isinstance(value, ClassEmbeddings):
        table = value
    elif isinstance(value, Mapping):
        table = ClassEmbeddings.from_dict(value)
    elif hasattr(value, "iloc"):  # of pandas, a DataFrame or a Series
        table = ClassEmbeddings.from_frame(value)
    else:
        table = _from_rows(value, y, fit_argument=fit_argument)
    _check_labels(table, y, getattr(value, "columns", ()))
    return table


def _from_rows(value: Any, y: NDArray[Any], *, fit_argument: bool) -> ClassEmbeddings:
    vectors, labels = vector_values(value, "class_embeddings"), np.unique(y)
    hint = "" if len(vectors) == len(labels) else columns_instead(vectors, len(labels))
    if fit_argument and len(vectors) == len(y) and not hint:
        raise ValueError(
            f"class_embeddings was given to fit as an array of {len(vectors)} rows, as many as "
            "there are samples. Cross-validation cuts such fit arguments along with the data, so "
            "it cannot be told whether the rows are still complete. Either wrap it, "
            "ClassEmbeddings(labels, vectors), or give it to the constructor, "
            "FlowMatchingAligner(class_embeddings=...)."
        )
    if len(vectors) != len(labels):
        raise ValueError(
            f"class_embeddings has {len(vectors)} rows without labels but y has {len(labels)} "
            f"classes; the rows of an array follow np.unique(y).{hint} For classes without "
            "samples, and for folds that lack a class, use ClassEmbeddings(labels, vectors)."
        )
    return ClassEmbeddings(labels, vectors)


def _check_labels(table: ClassEmbeddings, y: NDArray[Any], columns: Iterable[Any]) -> None:
    known = set(table.classes.tolist())
    unknown = [label for label in np.unique(y).tolist() if label not in known]
    if not unknown:
        return
    message = (
        f"y has labels that class_embeddings lacks: {shorten(unknown)}; it has "
        f"{shorten(table.classes.tolist())}."
    )
    if set(unknown) <= set(columns):
        message += " They are its columns: transpose it, labels belong in the index."
    elif set(unknown) <= set(range(len(known))):
        message += (
            " These look like the integer codes of labels that stacking, voting, bagging, "
            "cross_val_predict(method='predict_proba') and some settings of CalibratedClassifierCV "
            f"hand on. {CODES_THROUGHOUT}"
        )
    elif known == set(range(len(known))):
        message += f" If it holds codes, as relabel gives them, y must too. {CODES_THROUGHOUT}"
    raise ValueError(message)


def warn_of_codes(table: ClassEmbeddings, y: NDArray[Any]) -> None:
    """Warn ``fit`` of labels that may be the codes of others.

    Of names 0, 1, 2 with samples of 1 and 2, a meta-estimator makes the codes 0 and 1, and both
    are names. They cannot be told from the labels of a set whose last class has no samples.
    """
    labels, n_names = np.unique(y), len(table.classes)
    n = len(labels)
    if y.dtype.kind == "i" and 0 < n < n_names and np.array_equal(labels, np.arange(n)):
        warnings.warn(
            f"y holds exactly the integers 0 to {n - 1}, and class_embeddings has {n_names} "
            "labels. If these are the labels of your classes, ignore this. If a meta-estimator, "
            "such as VotingClassifier, made them out of other integers, classes have been given "
            f"the embeddings of others. {CODES_THROUGHOUT}",
            UserWarning,
            stacklevel=5,  # whoever called fit
        )
