"""Sets that are larger than memory: block by block as at once."""

import numpy as np
import pytest
from test_partial_fit import the_same

from flowalign import FlowMatchingAligner, blocks, fit_blocks
from flowalign.datasets import make_cross_modal


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(6, n_train=9, n_test=20, n_features=24, random_state=0)


@pytest.fixture(scope="module")
def whole(data):
    return FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)


def thirds(data):
    return [data.X_train[k::3] for k in range(3)], [data.y_train[k::3] for k in range(3)]


@pytest.mark.parametrize("form", ["arrays", "files", "paths", "one array", "pairs", "generator"])
def test_every_form_is_the_fit(form, data, whole, tmp_path):
    X, y = thirds(data)
    if form in ("files", "paths"):
        for k, (rows, labels) in enumerate(zip(X, y, strict=True)):
            np.save(tmp_path / f"X{k}.npy", rows)
            np.save(tmp_path / f"y{k}.npy", labels)
        kind = str if form == "files" else lambda path: path
        X = [kind(tmp_path / f"X{k}.npy") for k in range(3)]
        y = [kind(tmp_path / f"y{k}.npy") for k in range(3)]
    elif form == "one array":
        X, y = data.X_train, data.y_train
    elif form == "pairs":
        X, y = list(zip(X, y, strict=True)), None
    elif form == "generator":
        X, y = zip(X, y, strict=True), None
    aligner = FlowMatchingAligner(data.class_embeddings)
    assert fit_blocks(aligner, X, y) is aligner
    the_same(aligner, whole, data.X_test)
    assert aligner.n_features_in_ == 24


def test_large_blocks_are_cut(data, whole, monkeypatch):
    monkeypatch.setattr(blocks, "STREAM_BYTES", 7 * data.X_train[:1].nbytes)
    assert len(list(blocks.stream_slices(data.X_train))) == 8
    aligner = fit_blocks(FlowMatchingAligner(data.class_embeddings), data.X_train, data.y_train)
    the_same(aligner, whole, data.X_test)


def test_lists_of_rows_are_one_block(data, whole):
    X, y = data.X_train.tolist(), data.y_train.tolist()
    aligner = fit_blocks(FlowMatchingAligner(data.class_embeddings), X, y)
    np.testing.assert_array_equal(aligner.predict(data.X_test), whole.predict(data.X_test))


def test_class_embeddings_follow_the_labels_of_all_blocks(data, whole):
    vectors = np.stack([*data.class_embeddings.to_dict().values()])
    order = np.argsort(data.y_train, kind="stable")  # each block has some of the classes
    X, y = np.array_split(data.X_train[order], 4), np.array_split(data.y_train[order], 4)
    the_same(fit_blocks(FlowMatchingAligner(), X, y, vectors), whole, data.X_test)


def test_it_fits_anew_and_partial_fit_goes_on(data, whole):
    X, y = thirds(data)
    aligner = FlowMatchingAligner(data.class_embeddings).fit(data.X_test, data.y_test)
    fit_blocks(aligner, X[:2], y[:2]).partial_fit(X[2], y[2])
    the_same(aligner, whole, data.X_test)


def test_rows_of_no_class_are_dropped(data):
    y = data.y_train.astype("U9").copy()
    y[:5] = "none"
    aligner = FlowMatchingAligner(data.class_embeddings, unknown_label="none")
    assert fit_blocks(aligner, data.X_train, y).gaussian_model_.statistics.n == 49


def test_what_is_wrong_names_the_block(data, tmp_path):
    X, y = thirds(data)
    table = data.class_embeddings

    def refused(match, *given, error=ValueError, **parameters):
        with pytest.raises(error, match=match):
            fit_blocks(FlowMatchingAligner(table, **parameters), *given)

    refused("Block 1 has 17 rows of X and 18 labels", [X[0], X[1][:-1]], y[:2])
    refused("X has 3 parts and y is 2 parts", X, y[:2])
    refused("X has 3 parts and y is a ndarray", X, data.y_train)
    refused("Block 0 of X must be a pair", X, error=TypeError)
    refused("X has no blocks", iter([]))
    bad = [X[0], X[1] * np.nan]
    refused("Block 1: Input X contains NaN", bad, y[:2])
    refused("Block 1: X has 9 features, and had 24 before", [X[0], X[1][:, :9]], y[:2])
    refused("Block 1: .*one type", X[:2], [y[0], np.arange(18)], error=TypeError)
    (tmp_path / "text.npy").write_text("no array")
    refused(r"text\.npy is no \.npy file", [tmp_path / "text.npy"], [y[0]])
    refused("learns from all samples together", X, y, velocity_field="mlp")
    marked = [labels.astype("U9") for labels in y]
    marked[2][0] = "?"
    refused("Block 2: y has rows marked unlabeled_label", X, marked, unlabeled_label="?")
    with pytest.raises(FileNotFoundError):
        fit_blocks(FlowMatchingAligner(table), [tmp_path / "missing.npy"], [y[0]])
    with pytest.raises(TypeError, match="must be a FlowMatchingAligner, got str"):
        fit_blocks("aligner", X, y)
