"""TabICL as a peer, with a tiny model of random weights."""

import importlib

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from flowalign.benchmark.tabular import TabICL
from flowalign.datasets import make_cross_modal


def test_what_to_install_is_said(monkeypatch):
    def fail(name):
        raise ImportError(f"No module named {name!r}")

    data = make_cross_modal(2, n_train=2, random_state=0)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ImportError, match=r'pip install "flowalign\[peers\]"'):
        TabICL().fit(data.X_train, data.y_train, data.class_embeddings)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("tabicl")
    model = importlib.import_module("tabicl._model.tabicl").TabICL
    config = {
        "embed_dim": 16, "col_num_blocks": 1, "col_nhead": 2, "col_num_inds": 4,
        "row_num_blocks": 1, "row_nhead": 2, "row_num_cls": 2, "icl_num_blocks": 1, "icl_nhead": 2,
        "zero_init": False,
    }  # fmt: skip
    path = tmp_path_factory.mktemp("tabicl") / "tiny.ckpt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save({"config": config, "state_dict": model(**config).state_dict()}, path)
    return path


@pytest.mark.parametrize("n_classes", [3, 12])
def test_the_peer_is_tabicl_on_principal_components(checkpoint, n_classes):
    """Of ten classes at most by itself, of more by its hierarchy."""
    data = make_cross_modal(n_classes, n_train=4, n_test=5, n_features=20, random_state=0)
    peer = TabICL(n_components=6, model_path=checkpoint)
    peer.fit(data.X_train, data.y_train, data.class_embeddings)
    classifier = importlib.import_module("tabicl").TabICLClassifier
    reduce = PCA(6, random_state=0).fit(data.X_train)
    expected = classifier(model_path=checkpoint, random_state=0)
    expected.fit(reduce.transform(data.X_train), data.y_train)
    assert peer.classes_.tolist() == expected.classes_.tolist()
    proba = peer.predict_proba(data.X_test)
    np.testing.assert_allclose(
        proba, expected.predict_proba(reduce.transform(data.X_test)), atol=1e-4
    )
    assert np.ptp(proba, axis=0).max() > 1e-3  # the rows are told apart, if not well


def test_narrow_features_are_taken_as_they_are(checkpoint):
    data = make_cross_modal(3, n_train=2, n_test=5, n_features=8, random_state=0)
    peer = TabICL(model_path=checkpoint).fit(data.X_train, data.y_train, data.class_embeddings)
    classifier = importlib.import_module("tabicl").TabICLClassifier
    expected = classifier(model_path=checkpoint, random_state=0).fit(data.X_train, data.y_train)
    np.testing.assert_allclose(
        peer.predict_proba(data.X_test), expected.predict_proba(data.X_test), atol=1e-4
    )
