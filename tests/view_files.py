"""Feature sets of several views as files, as the benchmark reads them."""

import numpy as np

from flowalign.datasets import make_cross_modal


def view_arrays(seed=0, n_classes=5, n_train=6, n_test=8, **changes):
    """Arrays of two views of the same samples, with class embeddings of their own."""
    arrays = {}
    for k, (view, width) in enumerate([("eye", 16), ("ear", 12)]):
        data = make_cross_modal(
            n_classes,
            n_train=n_train,
            n_test=n_test,
            n_features=width,
            difficulty=3,
            random_state=10 * seed + k,
        )
        table = data.class_embeddings
        arrays |= {
            f"X_train_{view}": data.X_train,
            f"X_test_{view}": data.X_test,
            f"class_embeddings_{view}": table.vectors.astype(np.float32),
            "y_train": np.searchsorted(table.classes, data.y_train),
            "y_test": np.searchsorted(table.classes, data.y_test),
        }
    return arrays | changes


def write_views(path, **changes):
    """Write these arrays, and others in their places; of arrays that are None, nothing."""
    arrays = view_arrays(**changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path
