"""The forms in which users give class embeddings, and the table that they become."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign.class_embeddings import ClassEmbeddings, class_vectors, columns_instead
from flowalign.inputs import shorten, vector_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODES_THROUGHOUT = (
    "Around a meta-estimator give codes for both, of the labels that y has: with encoder = "
    "LabelEncoder().fit(y), ClassEmbeddings(labels, vectors).subset(y).relabel(encoder) as class "
    "embeddings and encoder.transform(y) as y."
)


def classes_of(
    value: Any, y: NDArray[Any], *, fit_argument: bool, normalize: bool
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Classes, (C,), the code of each label in ``y``, and an embedding a class, (C, e).

    Without class embeddings, `value` None, the classes are those of ``y``. The other parameters are
    those of :func:`as_class_embeddings` and :func:`flowalign.class_embeddings.class_vectors`.
    """
    if value is None:
        return *np.unique(y, return_inverse=True), None
    table = as_class_embeddings(value, y, fit_argument=fit_argument)
    warn_of_codes(table, y)
    # An empty list has the dtype of no label.
    codes = np.searchsorted(table.classes, y if len(y) else table.classes[:0])
    return table.classes, codes, class_vectors(table, normalize=normalize)


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
