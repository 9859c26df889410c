"""ClassEmbeddings: which label has which embedding.

An array of class embeddings says nothing about its rows, and scikit-learn's cross-validation cuts
every fit argument that happens to be as long as the data. The container here pairs labels with
rows. On purpose it has neither a length nor a shape nor items, so that nothing mistakes it for a
column of samples.
"""

from __future__ import annotations

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

    In this form class embeddings are safe everywhere: under cross-validation, with one sample per
    class, and in folds that lack a class.

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
                f"{len(vector_array)} rows in vectors."
                + columns_instead(vector_array, len(label_array))
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
            One embedding per row, one coordinate per column, labels as the index. Or one column
            whose cells are the vectors.

        Returns
        -------
        ClassEmbeddings
        """
        return cls(frame.index, frame.to_numpy())

    def relabel(self, label_encoder: LabelEncoder) -> ClassEmbeddings:
        """Replace the labels by the integer codes of a fitted ``LabelEncoder``.

        Stacking, voting, bagging and ``cross_val_predict(method="predict_proba")`` give such codes
        to their estimators instead of labels. If y has the codes as well,
        ``label_encoder.transform(y)``, every call works alike.

        Parameters
        ----------
        label_encoder : sklearn.preprocessing.LabelEncoder
            Fitted on all labels of this table; :meth:`subset` keeps only those that y has.

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

        Scorers and meta-estimators of scikit-learn know only the labels of y, and fail with class
        embeddings of more labels: ``subset(y)`` keeps those that y has.

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


def columns_instead(vectors: NDArray[Any], n: int) -> str:
    """Say that vectors without the right number of rows have it in their columns, if so."""
    as_columns = f" It has {n} columns: transpose it if these are the embeddings."
    return as_columns if vectors.shape[1] == n else ""
