"""flowalign predict: a table of answers, for files and for features."""

import csv
import io
import os
import sys

import numpy as np
import pytest
from stub_clip import MODEL, write_colors

import flowalign
from flowalign.datasets.folders import files_below
from flowalign.encoders import OpenCLIPEncoder

FIT = ["fit", "colors", "--out", "m.flowalign", "--model", MODEL]
COLUMNS = ["path", "label", "probability", "score", "unknown"]


@pytest.fixture
def new(command, tmp_path):
    """A model of three colours, and a folder of them and of what is none."""
    from PIL import Image

    write_colors(tmp_path / "colors")
    command(*FIT)
    write_colors(tmp_path / "new" / "deep", seed=1)
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "new" / "noise, loud.png")
    return tmp_path / "new"


def rows_of(table):
    return [*csv.DictReader(io.StringIO(table))]


def test_a_row_for_each_file(command, new):
    status, out, errors = command("predict", "m.flowalign", "new")
    assert (status, errors) == (0, "")
    rows = rows_of(out)
    assert [*rows[0]] == COLUMNS
    paths = files_below(new.relative_to(new.parent), (".png",))
    assert [row["path"] for row in rows] == paths
    X = OpenCLIPEncoder(MODEL, "openai").transform(paths)
    model = flowalign.load("m.flowalign")
    assert [row["label"] for row in rows] == model.predict(X).tolist()
    proba, scores = model.predict_proba(X).max(axis=1), model.score_samples(X)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], proba, rtol=1e-5)
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores, rtol=1e-5)
    refused = model.set_params(unknown_label="?").predict(X) == "?"
    assert [row["unknown"] for row in rows] == np.where(refused, "yes", "no").tolist()
    assert rows[0] == rows[0] | {
        "path": "new/noise, loud.png".replace("/", os.sep),
        "unknown": "yes",
    }
    assert not refused[1:].all()


def test_a_file_takes_what_would_be_printed(command, new, tmp_path):
    printed = command("predict", "m.flowalign", "new")[1]
    status, out, _ = command("predict", "m.flowalign", "new", "--out", "a.csv")
    assert (status, (tmp_path / "a.csv").read_bytes().decode()) == (0, printed)
    n_unknown = sum(row["unknown"] == "yes" for row in rows_of(printed))
    assert out == f"13 answers, {n_unknown} unknown: a.csv\n"
    one = new / "deep" / "red" / "red0.png"
    status, out, _ = command("predict", "m.flowalign", one)
    assert [row["path"] for row in rows_of(out)] == [str(one)]


@pytest.mark.filterwarnings("default:.*were skipped:UserWarning")
def test_answers_stay_with_their_files(command, new):
    before = {row["path"]: row for row in rows_of(command("predict", "m.flowalign", "new")[1])}
    broken = os.path.join("new", "deep", "green", "green1.png")
    (new.parent / broken).write_text("no picture")
    status, _, errors = command("predict", "m.flowalign", "new")
    assert status == 2
    assert "green1.png is unreadable" in errors
    assert "(--skip-unreadable) leaves such items out." in errors
    status, out, errors = command("predict", "m.flowalign", "new", "--skip-unreadable")
    assert status == 0
    assert "note: 1 of 13 pictures were skipped" in errors
    rows = rows_of(out)
    assert [row["path"] for row in rows] == [path for path in before if path != broken]
    for row in rows:  # in batches of another size features differ in their last digits
        old = before[row["path"]]
        assert (row["label"], row["unknown"]) == (old["label"], old["unknown"])
        assert float(row["score"]) == pytest.approx(float(old["score"]), rel=1e-4)


@pytest.mark.filterwarnings("default:A spreadsheet may take:UserWarning")
@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_names_that_a_spreadsheet_would_compute_are_told(start, command, new, monkeypatch):
    monkeypatch.chdir(new)
    os.rename("noise, loud.png", f"{start}1+1.png")
    status, out, errors = command("predict", "../m.flowalign", f"./{start}1+1.png")
    assert (status, rows_of(out)[0]["path"]) == (0, f"{start}1+1.png")
    assert f"note: A spreadsheet may take {start}1+1.png for a formula" in errors


@pytest.mark.skipif(sys.platform != "linux", reason="names are text")
def test_names_that_are_no_text_come_out_as_they_are(command, new, tmp_path):
    name = os.fsencode(new) + b"/\xff.png"
    os.rename(new / "noise, loud.png", name)
    assert command("predict", "m.flowalign", "new", "--out", "a.csv")[0] == 0
    assert b"\nnew/\xff.png," in (tmp_path / "a.csv").read_bytes()


@pytest.mark.parametrize("kind", ["npy", "npz", "npz without paths"])
def test_features_need_no_encoder(kind, model_file, data, command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    X, names = data.X_test[:5], ["a", "b", "c", "d", "e"]
    if kind == "npy":
        np.save(tmp_path / "X", X)
    else:
        np.savez(tmp_path / "X", X=X, **({"paths": names} if kind == "npz" else {}))
    status, out, errors = command("predict", model_file, "--features", f"X.{kind[:3]}")
    assert (status, errors) == (0, "")
    rows = rows_of(out)
    assert [row["path"] for row in rows] == (names if kind == "npz" else [*"01234"])
    assert [row["label"] for row in rows] == flowalign.load(model_file).predict(X).tolist()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "No such file"),
        (b"text", "is no .npy file with an array"),
        ({"Y": [1]}, "no .npz file with X"),
        ({"X": np.array([None])}, "no .npz file with X"),
        ({"X": np.ones((2, 32)), "paths": ["a"]}, "has 2 rows and 1 paths"),
        ({"X": np.ones((2, 3))}, "32 features"),
    ],
    ids=str,
)
def test_features_that_are_none(made, said, model_file, command, tmp_path):
    if isinstance(made, dict):
        np.savez(tmp_path / "X", **made)
    elif made is not None:
        (tmp_path / "X.npz").write_bytes(made)
    status, out, errors = command("predict", model_file, "--features", "X.npz")
    assert (status, out) == (2, "")
    assert said in errors


def test_inputs_that_are_none(command, new, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, said in [
        ((), "Give files or folders, or else --features"),
        (("new", "--features", "X.npy"), "Give files or folders, or else --features"),
        (("empty",), "There are no pictures in empty (.jpg"),
        (("none.png",), "none.png does not exist"),
        (("new", "--out", "no/a.csv"), "no is no folder"),
    ]:
        status, out, errors = command("predict", "m.flowalign", *arguments)
        assert (status, out) == (2, "")
        assert said in errors


def test_models_that_are_none(model_file, command, new):
    for model, said in [
        ("no", "No such file"),
        (new / "noise, loud.png", "is not a safetensors file"),
        (model_file, "was saved without an encoder"),
    ]:
        status, out, errors = command("predict", model, "new")
        assert (status, out) == (2, "")
        assert said in errors
        assert len(errors.splitlines()) == 1


def test_a_library_that_is_missing_can_be_installed(command, new, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    status, _, errors = command("predict", "m.flowalign", "new")
    assert status == 2
    assert 'pip install "flowalign[clip]"' in errors


def test_a_checkpoint_of_ones_own_is_given_again(command, new, tmp_path):
    for name, content in (("w.pt", "one"), ("other.pt", "another"), ("copy.pt", "one")):
        (tmp_path / name).write_text(content)
    status, out, _ = command(*FIT, "--pretrained", "w.pt")
    assert status == 0
    assert "where the encoder is; always give --pretrained w.pt with it." in out
    assert b"w.pt" not in (tmp_path / "m.flowalign").read_bytes()
    status, _, errors = command("predict", "m.flowalign", "new")
    assert status == 2
    assert "a checkpoint (--pretrained) of your own" in errors
    status, _, errors = command("predict", "m.flowalign", "new", "--pretrained", "other.pt")
    assert status == 2
    assert "this encoder has other weights than the one that m.flowalign was fitted with" in errors
    assert command("predict", "m.flowalign", "new", "--pretrained", "copy.pt")[0] == 0
