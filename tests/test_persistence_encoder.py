"""A model file names its encoder, and finds it again."""

import json
from pathlib import Path

import numpy as np
import pytest
import stub_clip
from stub_clip import MODEL, WEIGHTS, write_colors

import flowalign
from flowalign import FlowMatchingAligner, MultiViewAligner
from flowalign.datasets import load_image_folder
from flowalign.encoders import CallableEncoder, OpenCLIPEncoder, clip
from flowalign.persistence import load_encoder
from flowalign.persistence.file_format import read


@pytest.fixture
def colors(tmp_path, monkeypatch):
    stub_clip.put_in_place(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return load_image_folder(write_colors(tmp_path / "colors"))


def fitted(encoder, data):
    X = encoder.transform(data.X)
    return X, FlowMatchingAligner().fit(X, data.y, encoder.class_embeddings(data.class_names))


def test_an_encoder_comes_back(colors):
    encoder = OpenCLIPEncoder(MODEL, WEIGHTS, n_views=2, random_state=7, cache="here")
    X, aligner = fitted(encoder, colors)
    flowalign.save(aligner, "m", encoder=encoder)
    found = load_encoder("m", batch_size=3)
    expected = {"cache": None, "batch_size": 3}
    assert found.get_params() == encoder.get_params() | expected
    np.testing.assert_array_equal(found.transform(colors.X), X)
    np.testing.assert_array_equal(flowalign.load("m").predict_proba(X), aligner.predict_proba(X))


def test_the_entry_is_the_only_difference(colors):
    encoder = OpenCLIPEncoder(MODEL, WEIGHTS)
    _, aligner = fitted(encoder, colors)
    flowalign.save(aligner, "plain")
    flowalign.save(aligner, "named", encoder=encoder)
    (plain, arrays, _), (named, others, _) = read(Path("plain")), read(Path("named"))
    entry = named.pop("encoder")
    assert named == plain
    assert arrays.keys() == others.keys()
    assert entry["params"] == {
        "model_name": MODEL, "pretrained": WEIGHTS, "n_views": 1, "random_state": 0,
    }  # fmt: skip
    flowalign.load("named")  # needs no library


def test_no_path_is_told(colors, tmp_path):
    (tmp_path / "secret_place").mkdir()
    weights = tmp_path / "secret_place" / "weights.bin"
    weights.write_text("mine")
    for encoder, local in [
        (OpenCLIPEncoder(f"local-dir:{weights.parent}"), ["model_name"]),
        (OpenCLIPEncoder(MODEL, str(weights)), ["pretrained"]),
    ]:
        flowalign.save(fitted(encoder, colors)[1], "m", encoder=encoder)
        header = read(Path("m")).header
        assert header["encoder"]["local"] == local
        assert "secret_place" not in json.dumps(header)


def test_spellings_of_a_name_are_one(colors):
    encoder = OpenCLIPEncoder(MODEL.replace("-", "/"), WEIGHTS.upper())
    flowalign.save(fitted(encoder, colors)[1], "m", encoder=encoder)
    assert read(Path("m")).header["encoder"]["params"]["model_name"] == MODEL
    assert load_encoder("m").model_name == MODEL


@pytest.mark.parametrize("part", ["weights", "preprocessing", "architecture"])
def test_another_encoder_of_the_same_name_is_noticed(part, colors, monkeypatch):
    encoder = OpenCLIPEncoder(MODEL, WEIGHTS)
    flowalign.save(fitted(encoder, colors)[1], "m", encoder=encoder)
    load = clip._load

    def changed(*arguments):
        loaded = load(*arguments)
        loaded.identity[part] += ", changed"
        return loaded

    monkeypatch.setattr(clip, "_load", changed)
    with pytest.warns(UserWarning, match=f"not quite the one of the fit: its {part} changed"):
        load_encoder("m")


def test_encoders_that_a_file_cannot_name(colors):
    encoder = OpenCLIPEncoder(MODEL, WEIGHTS)
    X, aligner = fitted(encoder, colors)
    with pytest.raises(TypeError, match=r"got CallableEncoder\. Leave it out"):
        flowalign.save(aligner, "m", encoder=CallableEncoder(np.asarray))
    with pytest.raises(TypeError, match="got str"):
        flowalign.save(aligner, "m", encoder="ViT-B-32")
    narrow = FlowMatchingAligner().fit(X[:, :5], colors.y)
    with pytest.raises(ValueError, match=r"gives 6 features, and the aligner was fitted to 5"):
        flowalign.save(narrow, "m", encoder=encoder)
    views = [("a", FlowMatchingAligner(), slice(0, 3)), ("b", FlowMatchingAligner(), slice(3, 6))]
    several = MultiViewAligner(views).fit(X, colors.y)
    with pytest.raises(TypeError, match="encoder goes with a FlowMatchingAligner"):
        flowalign.save(several, "m", encoder=encoder)
    with pytest.raises(ValueError, match="n_views is not between 1 and 1000"):
        flowalign.save(aligner, "m", encoder=encoder.set_params(n_views=1001))
    assert not Path("m").exists()
