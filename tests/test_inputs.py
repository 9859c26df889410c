"""Every wrong input gets a ValueError or TypeError that names the argument."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from flowalign import ClassEmbeddings, FlowMatchingAligner

X = np.random.default_rng(0).normal(size=(12, 6))
Y = np.repeat(["a", "b", "c"], 4)
E = dict(zip("abc", np.random.default_rng(1).normal(size=(3, 6)), strict=True))


def altered(array, value, index=(2, 1)):
    array = np.array(array, dtype=float)
    array[index] = value
    return array


BAD_DATA = [
    (altered(X, np.nan), Y, E, ValueError, "X contains NaN"),
    (altered(X, np.inf), Y, E, ValueError, "X contains infinity"),
    (altered(X, 0, 2), Y, E, ValueError, r"X has rows of zeros.*: 2\..*normalize=False"),
    (X[:, :, None], Y, E, ValueError, "dim 3"),
    (X[0], Y, E, ValueError, "1D array"),
    (X[:0], Y[:0], E, ValueError, "0 sample"),
    (X + 1j, Y, E, ValueError, "Complex data"),
    (csr_array(X), Y, E, TypeError, "[Ss]parse"),
    (np.full((12, 6), "x"), Y, E, ValueError, "could not convert string"),
    (X, Y[:5], E, ValueError, "inconsistent numbers of samples"),
    (X, None, E, ValueError, "requires y"),
    (X, np.linspace(0, 1, 12), None, ValueError, "[Cc]ontinuous|Unknown label type"),
    (X, np.where(Y == "a", None, Y), E, ValueError, "y has 4 missing labels"),
    (X, np.stack([Y, Y], axis=1), E, ValueError, "y should be a 1d array"),
    (X, Y, {"a": E["a"], "b": E["b"]}, ValueError, "class_embeddings lacks: 'c'"),
    (X, Y, {}, ValueError, "class_embeddings is an empty dict"),
    (X, Y, {**E, "b": [1.0, 2.0]}, ValueError, "class_embeddings must map every label"),
    (X, Y, {**E, "b": altered(E["b"], np.nan, 0)}, ValueError, "NaN or infinity in rows 1"),
    (X, Y, {**E, "b": np.zeros(6)}, ValueError, "class_embeddings has rows of zeros.*: 1"),
    (X, Y, list(E.values())[:2], ValueError, "2 rows without labels but y has 3 classes"),
    (X, Y, np.ones((12, 6)), ValueError, "class_embeddings.*ClassEmbeddings"),
    (X, Y, np.ones(3), ValueError, "class_embeddings must be 2-D"),
    (X, Y, "embeddings.npy", ValueError, "class_embeddings must be"),
    (X, Y, [[1.0, 2.0], [1.0], [3.0]], ValueError, "class_embeddings must be embeddings, numbers"),
    (X, np.arange(12) % 3, E, ValueError, "lacks: 0, 1, 2.*integer codes.*relabel"),
]  # fmt: skip


@pytest.mark.parametrize(("X", "y", "class_embeddings", "error", "message"), BAD_DATA)
def test_bad_data(X, y, class_embeddings, error, message):
    with pytest.raises(error, match=message):
        FlowMatchingAligner(max_iter=2, n_blocks=1).fit(X, y, class_embeddings)


def test_opposite_rows_of_a_label_leave_no_direction():
    table = ClassEmbeddings(["a", "a", "b", "c"], [[1.0, 0], [-1, 0], [0, 1], [1, 1]])
    with pytest.raises(ValueError, match="averaged per label, has rows of zeros.*: 0"):
        FlowMatchingAligner(max_iter=2, n_blocks=1).fit(X, Y, table)


def test_bad_features_at_predict():
    model = FlowMatchingAligner(max_iter=2, n_blocks=1, random_state=0).fit(X, Y, E)
    for bad, message in [
        (X[:, :5], "X has 5 features, but FlowMatchingAligner is expecting 6"),
        (altered(X, np.nan), "X contains NaN"),
        (altered(X, 0, 2), "X has rows of zeros"),
    ]:
        for method in (model.predict, model.transform, model.predict_proba, model.trajectory):
            with pytest.raises(ValueError, match=message):
                method(bad)
