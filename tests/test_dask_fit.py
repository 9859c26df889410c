"""A fit to blocks that lie on Dask workers, which are processes here, and die."""

import numpy as np
import pytest
from test_partial_fit import the_same

pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")

from test_dask import both_workers, client, data, die_once, pytestmark  # noqa: F401

from flowalign import FlowMatchingAligner, fit_blocks


def chunked(data, sizes):  # noqa: F811
    X = da.from_array(data.X_train, chunks=(sizes, 16))  # cut along the features, too
    return X, da.from_array(data.y_train, chunks=13)


def fitted(data):  # noqa: F811
    return FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)


@pytest.mark.parametrize("sizes", [72, 20, 7])
def test_chunks_on_workers_are_one_fit(client, data, sizes):  # noqa: F811
    aligner = fit_blocks(FlowMatchingAligner(data.class_embeddings), *chunked(data, sizes))
    the_same(aligner, fitted(data), data.X_test)


def test_labels_at_hand_go_to_the_workers(client, data):  # noqa: F811
    X, _ = chunked(data, 20)
    aligner = fit_blocks(FlowMatchingAligner(data.class_embeddings), X, data.y_train)
    the_same(aligner, fitted(data), data.X_test)


def test_a_filtered_array_has_chunks_of_unknown_size(client, data):  # noqa: F811
    X, y = (da.from_array(rows, chunks=20) for rows in (data.X_train, data.y_train))
    kept = y != "class 3"
    aligner = fit_blocks(FlowMatchingAligner(data.class_embeddings), X[kept], y[kept])
    rows = data.y_train != "class 3"
    whole = FlowMatchingAligner(data.class_embeddings).fit(data.X_train[rows], data.y_train[rows])
    the_same(aligner, whole, data.X_test)


def lethal(block, fatal_row, mark):
    if np.array_equal(block[0], fatal_row):
        die_once(mark)
    return block


def test_a_fit_outlives_a_worker(client, data, tmp_path):  # noqa: F811
    X = da.from_array(data.X_train, chunks=(9, -1))
    mark = str(tmp_path / "mark")
    fatal = X.map_blocks(lethal, data.X_train[36], mark, dtype=X.dtype, meta=X._meta)
    aligner = fit_blocks(FlowMatchingAligner(data.class_embeddings), fatal, data.y_train)
    assert (tmp_path / "mark").exists()  # it died
    the_same(aligner, fitted(data), data.X_test)


def test_frames_and_missing_labels_are_refused(client, data):  # noqa: F811
    dd = pytest.importorskip("dask.dataframe")
    X, _ = chunked(data, 20)
    with pytest.raises(TypeError, match="needs labels"):
        fit_blocks(FlowMatchingAligner(data.class_embeddings), X)
    with pytest.raises(TypeError, match="to_dask_array"):
        fit_blocks(FlowMatchingAligner(), dd.from_dask_array(X.rechunk({1: -1})), data.y_train)
    with pytest.raises(ValueError, match="as many"):
        fit_blocks(FlowMatchingAligner(), X, data.y_train[1:])
    with pytest.raises(ValueError, match="NaN"):
        fit_blocks(FlowMatchingAligner(), X * np.nan, data.y_train)
