"""Few-shot draws."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_consistent_length, check_random_state

from flowalign.inputs import as_numpy, label_values

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def few_shot(
    X: Any,
    y: ArrayLike,
    n_shots: int,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[Any, Any]:
    """Draw ``n_shots`` samples of each class without replacement.

    Parameters
    ----------
    X : array-like, sparse matrix or DataFrame of shape (n, d)
        Features, or anything else with one row per sample.
    y : array-like of shape (n,)
        Labels.
    n_shots : int
        Samples per class.
    random_state : int, RandomState instance or None, default=None
        Seeds the draw. With one seed, a draw of fewer shots is part of a draw of more shots.

    Returns
    -------
    X_few : array, sparse matrix or DataFrame of shape (C * n_shots, d)
        Class after class, in the order of ``np.unique(y)``.
    y_few : ndarray of shape (C * n_shots,)
        Their labels.

    Raises
    ------
    ValueError
        If a class has fewer than `n_shots` samples, or labels are missing.

    Examples
    --------
    >>> import numpy as np
    >>> from flowalign.datasets import few_shot
    >>> X, y = few_shot(np.arange(6)[:, None], ["a", "b"] * 3, n_shots=2, random_state=0)
    >>> y
    array(['a', 'a', 'b', 'b'], dtype='<U1')
    """
    if not isinstance(n_shots, Integral) or n_shots < 1:
        raise ValueError(f"n_shots must be an integer of at least 1, got {n_shots!r}.")
    check_consistent_length(X, y)
    labels = label_values(y, "y")
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < n_shots:
        scarce = classes[counts.argmin()]
        raise ValueError(
            f"n_shots={n_shots}, but class {scarce!s} has only {counts.min()} samples in y. Draw "
            "fewer, or drop that class."
        )
    rng = check_random_state(random_state)
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:n_shots] for c in classes])
    if hasattr(X, "iloc"):
        return X.iloc[rows], labels[rows]
    X = as_numpy(X, "X")
    return (X.tocsr() if issparse(X) else np.asarray(X))[rows], labels[rows]
