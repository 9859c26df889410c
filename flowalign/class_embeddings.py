"""ClassEmbeddings: which label has which embedding.

An array of class embeddings says nothing about its rows, and scikit-learn's cross-validation cuts
every fit argument that happens to be as long as the data. The container here pairs labels with
rows and has, on purpose, neither a length nor a shape nor items, so that nothing takes it for a
column of samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from flowalign.inputs import as_numpy, label_values, shorten, vector_values
from flowalign.spaces import class_means
from flowalign.sphere import unit_rows

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray
    from sklearn.preprocessing import LabelEncoder


class ClassEmbeddings:
    """Class labels with the embeddings of their names; immutable.

    The form in which class embeddings are safe everywhere: under cross-validation, on sets with
    one sample per class, and in folds that lack a class.

    Parameters
    ----------
    labels : array-like of shape (m,)
        The label of each row. A label may occur more than once, when a class has several
        embeddings (one per prompt template, for example).
    vectors : array-like of shape (m, e)
        The embeddings, in the order of `labels`.

    Attributes
    ----------
    labels : ndarray of shape (m,)
        Sorted; read-only.
    vectors : ndarray of shape (m, e)
        Rows in the order of `labels`, float32 or float64; read-only.
    classes : ndarray of shape (C,)
        The distinct labels, sorted.

    Raises
    ------
    ValueError
        If labels and vectors differ in number, or there are none, or vectors are not finite.

    Examples
    --------
    >>> from flowalign import ClassEmbeddings
    >>> ClassEmbeddings(["dog", "cat"], [[0.0, 1.0], [1.0, 0.0]])
    ClassEmbeddings(2 classes, 2 dimensions)
    >>> ClassEmbeddings.from_dict({"dog": [0.0, 1.0], "cat": [1.0, 0.0]}).classes
    array(['cat', 'dog'], dtype='<U3')
    """

    labels: NDArray[Any]
    vectors: NDArray[Any]
    classes: NDArray[Any]

    def __init__(self, labels: ArrayLike, vectors: ArrayLike) -> None:
        label_array = label_values(labels, "labels")
        vector_array = vector_values(vectors, "vectors")
        if len(label_array) != len(vector_array):
            raise ValueError(
                f"labels and vectors must pair up, got {len(label_array)} labels and "
                f"{len(vector_array)} rows in vectors.{_columns(vector_array, len(label_array))}"
            )
        order = np.argsort(label_array, kind="stable")
        self._set(label_array[order], vector_array[order])

    def _set(self, labels: NDArray[Any], vectors: NDArray[Any]) -> None:
        """Store sorted rows, read-only."""
        for name, value in (
            ("labels", labels),
            ("vectors", vectors),
            ("classes", np.unique(labels)),
        ):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, embeddings: Mapping[Any, ArrayLike]) -> ClassEmbeddings:
        """Make a table from ``{label: vector}``; a 2-D value holds several rows for its label.

        Parameters
        ----------
        embeddings : dict
            Values have shape (e,) or (rows, e).

        Returns
        -------
        ClassEmbeddings
        """
        if not embeddings:
            raise ValueError("class_embeddings is an empty dict; give one vector per class.")
        rows = [np.atleast_2d(as_numpy(v, "class_embeddings")) for v in embeddings.values()]
        if any(r.ndim > 2 for r in rows):
            raise ValueError("class_embeddings has a 3-dimensional value; give 2-D rows or 1-D.")
        widths = sorted({r.shape[1] for r in rows})
        if len(widths) > 1:
            raise ValueError(
                "class_embeddings must map every label to a vector of one common width, got "
                f"widths {widths}."
            )
        keys = label_values(list(embeddings), "class_embeddings")
        return cls(np.repeat(keys, [len(r) for r in rows]), np.concatenate(rows))

    @classmethod
    def from_frame(cls, frame: pd.DataFrame | pd.Series) -> ClassEmbeddings:
        """Make a table from a DataFrame or Series whose index holds the labels.

        Parameters
        ----------
        frame : pandas.DataFrame or pandas.Series
            One embedding per row, one coordinate per column, labels as the index. The rows may also
            stand as arrays in the cells of one column.

        Returns
        -------
        ClassEmbeddings
        """
        return cls(frame.index, frame.to_numpy())

    def relabel(self, label_encoder: LabelEncoder) -> ClassEmbeddings:
        """Give the same vectors the integer codes of a fitted ``LabelEncoder``.

        Stacking, voting, bagging and ``cross_val_predict(method="predict_proba")`` hand their
        estimators such codes instead of labels. Give them the codes of y, too,
        ``label_encoder.transform(y)``: then it does not matter which call does so.

        Parameters
        ----------
        label_encoder : sklearn.preprocessing.LabelEncoder
            Fitted on all labels of this table; :meth:`subset` leaves those that y has.

        Returns
        -------
        ClassEmbeddings

        Raises
        ------
        ValueError
            If the encoder lacks a label of this table.

        Examples
        --------
        >>> from sklearn.preprocessing import LabelEncoder
        >>> table = ClassEmbeddings(["dog", "cat"], [[0.0, 1.0], [1.0, 0.0]])
        >>> table.relabel(LabelEncoder().fit(["cat", "dog"])).classes
        array([0, 1])
        """
        check_is_fitted(label_encoder, "classes_")
        known = set(label_encoder.classes_.tolist())
        missing = [label for label in self.classes.tolist() if label not in known]
        if missing:
            raise ValueError(
                f"label_encoder does not know {shorten(missing)}. Keep the labels it knows with "
                "subset(label_encoder.classes_) first."
            )
        return type(self)(label_encoder.transform(self.labels), self.vectors)

    def subset(self, labels: Iterable[Any]) -> ClassEmbeddings:
        """Keep the given labels only.

        Scorers and meta-estimators of scikit-learn know the labels of y alone and cannot follow a
        table with more: ``subset(y)`` leaves the ones that y has.

        Parameters
        ----------
        labels : iterable
            Labels of this table, in any order, as often as you like.

        Returns
        -------
        ClassEmbeddings

        Raises
        ------
        ValueError
            If the table lacks one of them.

        Examples
        --------
        >>> table = ClassEmbeddings(["dog", "cat", "emu"], [[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
        >>> table.subset(["cat", "emu", "cat"]).classes
        array(['cat', 'emu'], dtype='<U3')
        """
        wanted = set(label_values(list(labels), "labels").tolist())
        missing = wanted - set(self.classes.tolist())
        if missing:
            raise ValueError(f"labels has {shorten(sorted(missing))}, which are not in the table.")
        kept = [label in wanted for label in self.labels.tolist()]
        return type(self)(self.labels[kept], self.vectors[kept])

    def to_dict(self) -> dict[Any, NDArray[Any]]:
        """Map every label to its vector, shape (e,), or to its rows if it has several."""
        starts = np.searchsorted(self.labels, self.classes)
        groups = np.split(self.vectors, starts[1:])
        return {
            label: rows[0] if len(rows) == 1 else rows
            for label, rows in zip(self.classes.tolist(), groups, strict=True)
        }

    def __repr__(self) -> str:
        n_classes, n_rows = len(self.classes), len(self.labels)
        rows = "" if n_rows == n_classes else f"{n_rows} rows, "
        return f"ClassEmbeddings({n_classes} classes, {rows}{self.vectors.shape[1]} dimensions)"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("ClassEmbeddings is immutable; make a new one.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("ClassEmbeddings is immutable; make a new one.")

    def __deepcopy__(self, memo: dict[int, Any]) -> ClassEmbeddings:
        # scikit-learn's clone copies parameters; what cannot change need not be copied.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"labels": self.labels, "vectors": self.vectors}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(state["labels"], state["vectors"])


def class_vectors(table: ClassEmbeddings, *, normalize: bool) -> NDArray[Any]:
    """One vector per class, (C, e), in the order of ``table.classes``.

    Several rows of a class are averaged, after normalisation if ``normalize``, and the average is
    normalised again: the usual ensemble of prompts.
    """
    codes = np.searchsorted(table.classes, table.labels)
    if not normalize:
        return class_means(table.vectors, codes)
    vectors = class_means(unit_rows(table.vectors, "class_embeddings"), codes)
    return unit_rows(vectors, "class_embeddings, averaged per label,")


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


def _columns(vectors: NDArray[Any], n: int) -> str:
    """Say that vectors without the right number of rows have it in their columns, if so."""
    as_columns = f" It has {n} columns: transpose it if these are the embeddings."
    return as_columns if vectors.shape[1] == n else ""


def _from_rows(value: Any, y: NDArray[Any], *, fit_argument: bool) -> ClassEmbeddings:
    vectors, labels = vector_values(value, "class_embeddings"), np.unique(y)
    hint = "" if len(vectors) == len(labels) else _columns(vectors, len(labels))
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


CODES_THROUGHOUT = (
    "Around a meta-estimator give codes for both, of the labels that y has: with encoder = "
    "LabelEncoder().fit(y), ClassEmbeddings(labels, vectors).subset(y).relabel(encoder) as class "
    "embeddings and encoder.transform(y) as y."
)


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
            stacklevel=3,  # whoever called fit
        )
