"""The commands beside the real libraries, with small models whose weights are random."""

import csv
import subprocess
import sys

import numpy as np
import pytest
import torch
from encoder_models import tone, write_clap, write_clip, write_pictures

from flowalign import FlowMatchingAligner
from flowalign.command import main
from flowalign.datasets import load_image_folder
from flowalign.encoders import OpenCLIPEncoder
from flowalign.persistence import load_encoder
from flowalign.persistence.encoder_entry import NAMES


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Arguments to (status, output, errors)."""
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    def run(*arguments):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_pictures(call, tmp_path):
    pytest.importorskip("open_clip")
    name = write_clip(tmp_path / "clip")
    write_pictures(tmp_path / "pictures")
    fit = ("fit", "pictures", "--out", "m.flowalign")
    status, out, errors = call(*fit, "--model", name, "--pretrained", "none")
    assert status == 0
    assert "Classes: 3: class_0 (4), class_1 (4), class_2 (4)" in out
    assert "is untrained" in errors
    status, _, errors = call("predict", "m.flowalign", "pictures")
    assert status == 2
    assert "a model (--model) of your own" in errors
    status, out, _ = call("predict", "m.flowalign", "pictures", "--model", name)
    rows = [*csv.DictReader(out.splitlines())]
    assert status == 0
    data, encoder = load_image_folder("pictures"), OpenCLIPEncoder(name)
    X, E = encoder.transform(data.X), encoder.class_embeddings(data.class_names)
    expected = FlowMatchingAligner().fit(X, data.y, E).predict(X)
    assert [row["label"] for row in rows] == expected.tolist()
    status, out, _ = call("report", "m.flowalign", "pictures", "--model", name)
    assert (status, out) == (0, "12 of 12 pictures in report.html\n")


def test_weights_of_ones_own(call, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    name = write_clip(tmp_path / "clip")
    write_pictures(tmp_path / "pictures")
    fit = ("fit", "pictures", "--out", "m.flowalign", "--model", name)
    weights = OpenCLIPEncoder(name, random_state=5)._load().model.state_dict()
    torch.save(weights, tmp_path / "clip" / "open_clip_pytorch_model.bin")
    status, _, errors = call(*fit)
    assert status == 0
    assert "untrained" not in errors
    status, _, errors = call(*fit, "--pretrained", "none")
    assert status == 2
    assert "brings its own weights" in errors
    assert isinstance(load_encoder("m.flowalign", model_name=name), OpenCLIPEncoder)
    weights["logit_scale"] += 1
    torch.save(weights, tmp_path / "clip" / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match="this encoder has other weights than the one"):
        load_encoder("m.flowalign", model_name=name)
    assert open_clip.list_models()


def test_names_of_the_library_are_plain_names():
    import re

    open_clip = pytest.importorskip("open_clip")
    model, weights = NAMES["open_clip"]
    for name in open_clip.list_models():
        assert re.fullmatch(model, name)
        for tag in open_clip.list_pretrained_tags_by_model(name):
            assert re.fullmatch(weights, tag)


def test_sounds(call, tmp_path):
    pytest.importorskip("transformers")
    soundfile = pytest.importorskip("soundfile")
    for name, pitch in (("low", 200), ("high", 2000)):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for i in range(3):
            sound = tone(pitch * (1 + i / 10), 12) + 0.01 * np.sin(i)
            soundfile.write(tmp_path / "sounds" / name / f"{i}.flac", sound, 48_000)
    (tmp_path / "clap").mkdir()
    write_clap(tmp_path / "clap")
    fit = ("fit", "sounds", "--out", "m.flowalign", "--pretrained", "none")
    status, out, errors = call(*fit, "--model", "clap")
    assert status == 0, errors
    assert "Labelled sounds: 6" in out
    assert "is untrained" in errors
    assert call("predict", "m.flowalign", "sounds")[0] == 2
    status, out, _ = call("evaluate", "m.flowalign", "sounds", "--model", "clap")
    assert status == 0
    assert "of 6 sounds" in out
    status, out, _ = call("report", "m.flowalign", "sounds", "--model", "clap")
    assert (status, out) == (0, "6 of 6 sounds in report.html\n")
    assert "data:audio/wav;base64,UklGR" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_an_architecture_by_its_name(tmp_path):
    """Untrained, in a process of its own; predict needs no argument but the file."""
    pytest.importorskip("open_clip")
    write_pictures(tmp_path / "pictures")
    command = [sys.executable, "-m", "flowalign"]
    fit = ["fit", "pictures", "--out", "m", "--model", "RN50", "--pretrained", "none", "--no-cache"]
    subprocess.run([*command, *fit], cwd=tmp_path, check=True)
    predict = [*command, "predict", "m", "pictures", "--no-cache"]
    done = subprocess.run(predict, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 13
