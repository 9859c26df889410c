"""Feature sets as files, as the benchmark reads them."""

import numpy as np


def write_feature_set(path, data, **changes):
    """Write a set of `make_cross_modal`; of arrays that are None, nothing."""
    table = data.class_embeddings
    arrays = {
        "X_train": data.X_train,
        "y_train": np.searchsorted(table.classes, data.y_train),
        "X_test": data.X_test,
        "y_test": np.searchsorted(table.classes, data.y_test),
        "class_embeddings": table.vectors,
    } | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path
