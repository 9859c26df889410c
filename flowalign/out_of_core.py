"""A fit to samples that exceed memory or lie on several machines."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from flowalign import blocks, inputs, parameters
from flowalign.aligner import FlowMatchingAligner
from flowalign.atomic_file import expanded
from flowalign.fields import kind_of
from flowalign.read_ahead import in_threads
from flowalign.samples import Samples
from flowalign.sphere import prepared
from flowalign.support import Support

READ_AHEAD = 2
"""How many times the rows that are summed up together are read from files meanwhile."""


def fit_blocks(
    aligner: FlowMatchingAligner, X: Any, y: Any = None, class_embeddings: Any = None
) -> FlowMatchingAligner:
    """Fit an aligner to blocks of samples, of which few at a time are in memory.

    Equals ``aligner.fit`` of all samples, up to rounding, whatever the blocks. Each block is
    reduced to counts, sums, a scatter and a few rows, and these are added up. Blocks of a Dask
    array are reduced on the workers, and added up as a tree.

    Parameters
    ----------
    aligner : FlowMatchingAligner
        With a velocity field in closed form. It is fitted anew; ``partial_fit`` goes on.
    X : Dask array, array of shape (n, d), list of either, or iterable of pairs
        Features. Arrays may be memory-mapped, or paths of .npy files. If `y` is None, X yields
        pairs of the features and the labels of a block.
    y : as `X`, or None
        Labels, with the same parts and numbers of rows as `X`.
    class_embeddings : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
        As in :meth:`FlowMatchingAligner.fit`; rows of an array follow the sorted labels of all
        blocks.

    Returns
    -------
    FlowMatchingAligner
        The aligner, fitted.

    Raises
    ------
    ValueError, TypeError
        As in :meth:`FlowMatchingAligner.fit`; for a velocity field that is trained, parts that do
        not pair up, or files that are no .npy arrays.

    See Also
    --------
    FlowMatchingAligner.partial_fit : Goes on with more samples.
    FlowMatchingAligner.merge : Unites fitted aligners.

    Notes
    -----
    Rows are not sorted, unlike in ``fit``, so the last digits may depend on their order. Validation
    data and unlabelled rows are not supported.

    Examples
    --------
    >>> from flowalign import FlowMatchingAligner, fit_blocks
    >>> from flowalign.datasets import make_cross_modal
    >>> data = make_cross_modal(random_state=0)
    >>> shares = ((data.X_train[k::3], data.y_train[k::3]) for k in range(3))
    >>> aligner = fit_blocks(FlowMatchingAligner(data.class_embeddings), shares)
    >>> whole = FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)
    >>> bool((aligner.predict(data.X_test) == whole.predict(data.X_test)).all())
    True
    """
    if not isinstance(aligner, FlowMatchingAligner):
        raise TypeError(
            f"aligner must be a FlowMatchingAligner, got {type(aligner).__name__}. Of a pipeline, "
            "transform the blocks first and fit the aligner to what comes out."
        )
    parameters.check_parameters(aligner.get_params(deep=False))
    if not kind_of(aligner.velocity_field).incremental:
        raise ValueError(
            f"velocity_field={aligner.velocity_field!r} learns from all samples together; use fit, "
            "or 'gaussian'."
        )
    device = parameters.check_device(aligner.device)
    settings = {
        "normalize": bool(aligner.normalize),
        "unknown_label": aligner.unknown_label,
        "unlabeled_label": aligner.unlabeled_label,
    }
    if hasattr(X, "dask"):
        samples = _of_dask(X, y, settings)
    else:
        samples = _of_parts(_pairs(X, y), settings | {"device": str(device)})
    support = Support.of_samples(aligner, samples, class_embeddings)
    return aligner._fit_support(support, device)


def summarise(X: Any, y: Any, settings: dict[str, Any]) -> Samples:
    """Sum up a block of samples; ``settings`` are how they are to be taken."""
    normalize, device = settings["normalize"], settings.get("device", "cpu")
    features, labels, unlabeled, integers = inputs.check_support_data(
        X,
        y,
        samples_needed=False,
        unknown_label=settings["unknown_label"],
        unlabeled_label=settings["unlabeled_label"],
        estimator=None,
    )
    if len(unlabeled):
        raise ValueError(
            "y has rows marked unlabeled_label, which are looked at together: leave them out here, "
            "or use fit with X_unlabeled."
        )
    rows = prepared(features, "X", normalize, integers)
    classes, codes = np.unique(labels, return_inverse=True)
    return Samples.of(rows, codes, classes, device=device, ordered=False)


def _of_parts(parts: Iterable[tuple[Any, Any]], settings: dict[str, Any]) -> Samples:
    """Sum up pairs of features and labels, a bounded number of rows at a time."""
    total: Samples | None = None
    with closing(in_threads(_read, _streamed(parts), ahead=READ_AHEAD)) as blocks_read:
        for (k, _, _), rows, unread in blocks_read:
            try:
                if unread is not None:
                    raise unread
                assert rows is not None
                part = summarise(*rows, settings)
                total = part if total is None else total + part
            except (TypeError, ValueError) as error:
                raise type(error)(f"Block {k}: {error}") from error
    if total is None:
        raise ValueError("X has no blocks; give one at least.")
    return total


def _streamed(parts: Iterable[tuple[Any, Any]]) -> Iterator[tuple[int, Any, Any]]:
    """Cut blocks into rows that are summed up together, each with the number of its block."""
    for k, pair in enumerate(parts):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(
                f"Block {k} of X must be a pair, features and labels; got {type(pair).__name__}. "
                "If X are features alone, give y."
            )
        X, y = (_opened(part) for part in pair)
        if len(X) != len(y):
            raise ValueError(f"Block {k} has {len(X)} rows of X and {len(y)} labels; pair them up.")
        for rows in blocks.stream_slices(X):
            yield k, X[rows], y[rows]


def _read(part: tuple[int, Any, Any]) -> tuple[Any, Any]:
    """Read features and labels from disk if that is where they are."""
    X, y = (np.array(a) if isinstance(a, np.memmap) else a for a in part[1:])
    return X, y


def _pairs(X: Any, y: Any) -> Iterator[tuple[Any, Any]]:
    """Pair the parts of features and labels up."""
    if y is None:
        yield from X
        return
    if not (isinstance(X, list | tuple) and X and _is_part(X[0])):
        yield X, y
        return
    if not isinstance(y, list | tuple) or len(y) != len(X):
        given = f"{len(y)} parts" if isinstance(y, list | tuple) else f"a {type(y).__name__}"
        raise ValueError(f"X has {len(X)} parts and y is {given}; give as many, in the same order.")
    yield from zip(X, y, strict=True)


def _is_part(value: Any) -> bool:
    """Whether this is a block of rows, rather than a row."""
    return isinstance(value, str | os.PathLike) or getattr(value, "ndim", 0) == 2


def _opened(part: Any) -> Any:
    """Map a .npy file into memory; arrays are as they were."""
    if not isinstance(part, str | os.PathLike):
        return inputs.as_numpy(part, "a block")
    path = expanded(part)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{inputs.shown(path)} is no .npy file of numbers: {error}") from error


def _of_dask(X: Any, y: Any, settings: dict[str, Any]) -> Samples:
    """Sum up the chunks of a Dask array on the workers, and the sums as a tree."""
    from dask import array, delayed

    if y is None or not hasattr(X, "chunks"):
        raise TypeError(
            "A Dask array X needs labels, y, as an array; of a Dask frame take "
            "to_dask_array(lengths=True)."
        )
    n, n_labels = X.shape[0], np.shape(y)[0]
    if n != n_labels and not np.isnan([n, n_labels]).any():  # of a filtered array it is not known
        raise ValueError(f"X has {n} rows and y {n_labels} labels; give as many.")
    X = X.rechunk({1: -1})
    y = y.rechunk((X.chunks[0],)) if hasattr(y, "dask") else array.from_array(y, (X.chunks[0],))
    sum_up, add = delayed(summarise), delayed(operator.add)
    parts = [
        sum_up(*chunk, settings)
        for chunk in zip(X.to_delayed().ravel(), y.to_delayed().ravel(), strict=True)
    ]
    while len(parts) > 1:
        pairs = [parts[k : k + 2] for k in range(0, len(parts), 2)]
        parts = [add(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0].compute()
