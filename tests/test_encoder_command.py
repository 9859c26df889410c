"""Shares of a folder, encoded by processes at once, are the whole."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from encoder_models import tone, write_clap, write_clip, write_pictures

from flowalign.datasets.folders import files_below
from flowalign.encoders import ClapEncoder, OpenCLIPEncoder, clip
from flowalign.encoders.__main__ import _shard_of_torchrun, main


@pytest.mark.parametrize("shard", ["0/8", "9/8", "1", "1/", "a/b", "1/2/3"])
def test_a_share_that_is_none(shard, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path), "--shard", shard])
    assert "is none of 1/n to n/n" in capsys.readouterr().err


def test_a_folder_without_files(tmp_path, capsys):
    for folder, reason in ((tmp_path, "no pictures below"), (tmp_path / "no", "is no folder")):
        with pytest.raises(SystemExit):
            main([str(folder), "--out", str(tmp_path / "out")])
        assert reason in capsys.readouterr().err


def test_files_of_other_endings_are_counted(tmp_path, capsys):
    for name in ("a.png", "b.heic", "deep/c.HEIC", "deep/d.txt", "deep/e.avif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--shard", "2/2"]
    with pytest.warns(UserWarning, match=r"were passed over .*\.avif: 1, \.heic: 2"):
        main(arguments)
    assert "Share 2 of 2 of 1 pictures is empty" in capsys.readouterr().out


def test_out_is_tried_before_anything_is_encoded(tmp_path, capsys):
    (tmp_path / "a.png").touch()
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path / "a.png")])
    assert "a.png" in capsys.readouterr().err


def test_an_empty_share_is_no_error(tmp_path, capsys):
    (tmp_path / "a.png").touch()
    main([str(tmp_path), "--out", str(tmp_path / "out"), "--shard", "2/3"])
    assert "Share 2 of 3 of 1 pictures is empty" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rank", "size", "found"),
    [("0", "2", (1, 2)), ("1", "2", (2, 2)), ("2", None, (1, 1)), (None, "2", (1, 1))],
)
def test_the_share_of_a_rank(rank, size, found, monkeypatch):
    for name, value in (("RANK", rank), ("WORLD_SIZE", size)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert _shard_of_torchrun() == found


def test_a_rank_that_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert "'3/2' is none of 1/n to n/n" in capsys.readouterr().err


def test_links_to_folders_are_not_followed(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.png").touch()
    (tmp_path / "deep" / "round").symlink_to(tmp_path)
    assert files_below(tmp_path, (".png",)) == [str(tmp_path / "deep" / "a.png")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model and its weights, which are not those of seed 0."""
    pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("model")
    name = write_clip(folder / "clip")
    weights = OpenCLIPEncoder(name, random_state=5)._load().model.state_dict()
    torch.save(weights, folder / "clip" / "open_clip_pytorch_model.bin")
    return name


def start(folder, out, model, *options, **environment):
    command = [sys.executable, "-m", "flowalign.encoders", str(folder), "--out", str(out)]
    command += ["--model", model, *options]
    return subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def read(out):
    """Rows by path; no path is in two shares."""
    rows = {}
    for file in out.glob("*.npz"):
        with np.load(file) as part:
            assert not rows.keys() & set(part["paths"].tolist())
            assert "model_name" in str(part["encoder"])
            rows |= zip(part["paths"].tolist(), part["X"], strict=True)
    return rows


@pytest.mark.parametrize("by", ["option", "torchrun"])
def test_shares_at_once_are_the_whole(by, model, tmp_path, monkeypatch):
    pictures = write_pictures(tmp_path / "pictures", 3, 5)
    (pictures / "class_0" / "deeper").mkdir()
    (pictures / "class_0" / "4.png").rename(pictures / "class_0" / "deeper" / "4.png")
    cache, out = tmp_path / "cache", tmp_path / "out"
    processes = [
        start(pictures, out, model, "--cache", str(cache), "--shard", f"{i}/2")
        if by == "option"
        else start(pictures, out, model, "--cache", str(cache), RANK=str(i - 1), WORLD_SIZE="2")
        for i in (1, 2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert {file.name for file in out.iterdir()} == {f"features-{i}-of-2.npz" for i in (1, 2)}
    with np.load(out / "features-1-of-2.npz") as part:
        assert part["n_listed"] == 15
    rows = read(out)
    assert len(rows) == 15
    assert "class_0/deeper/4.png" in rows
    files = [pictures / path for path in rows]
    expected = OpenCLIPEncoder(model).transform(files)
    np.testing.assert_allclose([*rows.values()], expected, atol=1e-6)
    monkeypatch.setattr(clip._CLIP, "forward", None)  # all is in the cache
    cached = OpenCLIPEncoder(model, cache=cache).transform(files)
    np.testing.assert_array_equal(cached, [*rows.values()])


def test_what_cannot_be_read(model, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", 1, 3)
    (pictures / "class_0" / "1.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    process = start(pictures, out, model)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "1.png is unreadable" in errors
    assert not [*out.iterdir()]
    process = start(pictures, out, model, "--skip-unreadable")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "2 of 3 pictures" in output
    assert "1.png is unreadable" in errors
    assert read(out).keys() == {"class_0/0.png", "class_0/2.png"}


def test_sounds(tmp_path):
    pytest.importorskip("transformers")
    soundfile = pytest.importorskip("soundfile")
    (tmp_path / "sounds" / "bee").mkdir(parents=True)
    for frequency in (200, 400, 800):
        path = tmp_path / "sounds" / "bee" / f"{frequency}.wav"
        soundfile.write(path, tone(frequency), 48_000)
    (tmp_path / "model").mkdir()
    name = write_clap(tmp_path / "model")
    process = start(tmp_path / "sounds", tmp_path / "out", name, "--sounds", "--shard", "2/2")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "1 of 1 sounds" in output
    rows = read(tmp_path / "out")
    expected = ClapEncoder(name).transform([tmp_path / "sounds" / "bee" / "400.wav"])
    np.testing.assert_allclose(rows["bee/400.wav"], expected[0], atol=1e-6)
