"""flowalign fit: labelled files in, a model file out; what cannot be meant is said."""

import numpy as np
import pytest
from encoder_models import tone
from stub_clip import COLORS, MODEL, write_colors

import flowalign
from flowalign.command import files
from flowalign.datasets import load_image_folder
from flowalign.encoders import OpenCLIPEncoder
from flowalign.persistence.file_format import read

FIT = ["fit", "colors", "--out", "m.flowalign", "--model", MODEL]


@pytest.fixture
def colors(tmp_path):
    return write_colors(tmp_path / "colors", ("big_red", "green", "blue"))


def test_a_folder_for_each_class(command, colors):
    status, out, errors = command(*FIT)
    assert (status, errors) == (0, "")
    assert "Classes: 3: big_red (4), blue (4), green (4)\n" in out
    assert "Labelled pictures: 12\n" in out
    assert f"Encoder: {MODEL}, openai\n" in out
    assert "Accuracy: about 100%, of labelled pictures, each predicted without it." in out
    assert out.endswith("Model: m.flowalign\n")
    data, encoder = load_image_folder(colors), OpenCLIPEncoder(MODEL, "openai")
    X, E = encoder.transform(data.X), encoder.class_embeddings(data.class_names)
    expected = flowalign.FlowMatchingAligner().fit(X, data.y, E)
    loaded = flowalign.load("m.flowalign")
    np.testing.assert_array_equal(loaded.predict_proba(X), expected.predict_proba(X))


def test_features_are_kept_in_the_users_cache(command, colors, tmp_path):
    command(*FIT, "--no-cache")
    assert not (tmp_path / "home").exists()
    command(*FIT)
    assert [file.name for file in (tmp_path / "home").rglob("*.sqlite")] == ["features.sqlite"]


def test_a_table_is_as_good_as_folders(command, colors, tmp_path):
    command(*FIT)
    before = read(tmp_path / "m.flowalign")
    lines = [f"{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(colors.glob("*/*.png"))]
    table = "\ufeffpath , label\r\n" + "\r\n,\r\n\r\n".join(lines) + ",\r\n"
    (tmp_path / "t.csv").write_bytes(table.encode())  # as spreadsheets write it
    status, _, errors = command(*FIT, "--labels", "t.csv")
    assert (status, errors) == (0, "")
    after = read(tmp_path / "m.flowalign")
    assert after.header == before.header
    for name, array in before.arrays.items():
        np.testing.assert_allclose(after.arrays[name], array, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "must name the columns path and label"),
        ("path;label\na;b\n", "between them, and is 'path;label'"),
        ("path,label,label\na,b,c\n", "must name the columns"),
        ("path,label\n", "t.csv has no rows"),
        ("path,label\ngreen/green0.png,\n", "line 2 has no path, or no label"),
        ("path,label\ngreen/green0.png\n", "line 2 has no path, or no label"),
        (
            "path,label\ngreen/green0.png,a\ngreen/green0.png,b\n",
            "line 3 has green/green0.png again",
        ),
        (
            "path,label\ngreen/green0.png,a\n./green/../green/green0.png,b\n",
            "green/green0.png and ./green/../green/green0.png are one file",
        ),
        ("path,label\ngreen/green0.png,grass, dry\n", "line 2 has more cells than the first"),
        ("path,label\ngreen/green0.png,gr\udcfcn\n", "is not in UTF-8; save it as CSV UTF-8"),
        ("path,label\nno.png,a\n", "lists 1 of 1 files that are not in colors, such as no.png"),
        ("path,label\ngreen/green0.png,a\n", "There is only one class, 'a'"),
    ],
)
@pytest.mark.filterwarnings("default:.*they have no label:UserWarning")
def test_tables_with_a_mistake(table, said, command, colors, tmp_path):
    (tmp_path / "t.csv").write_text(table, "utf-8", "surrogateescape")
    status, out, errors = command(*FIT, "--labels", "t.csv")
    assert (status, out) == (2, "")
    assert said in errors
    assert not (tmp_path / "m.flowalign").exists()


@pytest.mark.filterwarnings("default:.*they have no label:UserWarning")
def test_files_beside_the_table_are_counted(command, tmp_path):
    write_colors(tmp_path / "colors", flat=True)
    (tmp_path / "t.csv").write_text("path,label\nred0.png,red\nred1.png,red\nblue0.png,blue\n")
    status, out, errors = command(*FIT, "--labels", "t.csv", "--unlabeled", "colors")
    assert status == 0
    assert "flowalign fit: note: 9 pictures below colors are not in t.csv, such as" in errors
    assert "Labelled pictures: 3, unlabelled: 9\n" in out


@pytest.mark.parametrize("name", ["loose.png", "green/more/deeper/x.png"])
def test_files_outside_of_the_classes_are_counted(name, command, colors):
    place = colors / name
    place.parent.mkdir(parents=True, exist_ok=True)
    (colors / "blue" / "blue0.png").rename(place)
    with pytest.warns(UserWarning, match="1 pictures below .* are not in its folders of classes"):
        assert len(files.labelled(colors, None, "pictures").X) == 11


def test_files_without_labels_are_those_without_labels(command, colors):
    status, _, errors = command(*FIT, "--unlabeled", "colors")
    assert status == 2
    assert "no other files than those with labels" in errors


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "colors is no folder"),
        (["colors/a/x.txt"], "neither pictures nor sounds (pictures: .jpg"),
        (["colors/a/x.png", "colors/b/x.wav"], "give --pictures or --sounds"),
        (["colors/x.png"], "has no folders; put the pictures of each class into a folder"),
        (["colors/a/x.png"], "There is only one class, 'a'"),
        (["colors/a/x.png", "colors/b/x.txt"], "Put pictures into each of them, or remove it."),
    ],
)
def test_folders_that_cannot_be_meant(made, said, command, tmp_path):
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    status, out, errors = command(*FIT)
    assert (status, out) == (2, "")
    assert said in errors
    assert len(errors.splitlines()) == 1


def test_a_folder_of_both_kinds(command, colors, tmp_path):
    (colors / "green" / "x.wav").touch()
    assert command(*FIT, "--pictures")[0] == 0


@pytest.mark.parametrize(
    ("out", "said"), [("no/m", "no is no folder; make it first"), ("colors", "This is a folder")]
)
def test_a_place_is_tried_before_anything_is_encoded(out, said, command, colors, monkeypatch):
    monkeypatch.setattr(OpenCLIPEncoder, "encode", None)
    status, _, errors = command("fit", "colors", "--out", out, "--model", MODEL)
    assert status == 2
    assert said in errors


@pytest.mark.parametrize("out", ["m.flowalign", "link"])
def test_a_folder_that_is_not_open_to_writing(out, command, colors, tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "old").touch()
    (tmp_path / "link").symlink_to("place/old")
    closed = tmp_path / "place" if out == "link" else tmp_path
    monkeypatch.setattr(OpenCLIPEncoder, "encode", None)
    monkeypatch.setattr(files.os, "access", lambda path, mode: path != closed.resolve())
    status, _, errors = command("fit", "colors", "--out", out, "--model", MODEL)
    assert status == 2
    assert "is not open to writing" in errors


def test_an_untrained_model_says_so(command, colors):
    status, _, errors = command(*FIT, "--pretrained", "none")
    assert status == 0
    assert f"WARNING: {MODEL} is untrained. Its weights are random numbers" in errors
    status, _, errors = command("predict", "m.flowalign", "colors")
    assert "the answers mean nothing" in errors


def test_weights_that_are_there_are_not_ignored(command, colors, tmp_path):
    (tmp_path / "model").mkdir()
    arguments = [*FIT[:-1], "local-dir:model", "--pretrained", "none"]
    status, out, errors = command(*arguments)
    assert "is untrained" in errors
    assert "give --model local-dir:model with it" in out
    (tmp_path / "model" / "weights.bin").write_text("trained")
    status, _, errors = command(*arguments)
    assert status == 2
    assert "--pretrained none: local-dir:model brings its own weights" in errors
    (tmp_path / "colors" / "green").rename(tmp_path / "green")
    write_tone(tmp_path / "colors")
    status, _, errors = command("fit", "colors", "--out", "m", "--sounds", "--pretrained", "none")
    assert status == 2
    assert "laion/clap-htsat-unfused brings its own weights" in errors


def write_tone(folder):
    import wave

    for name in ("big_red", "blue"):
        with wave.open(str(folder / name / "a.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes((tone(440, 0.1, 8000) * 30000).astype("<i2").tobytes())


@pytest.mark.filterwarnings("default:.*were skipped:UserWarning")
def test_what_cannot_be_read(command, colors):
    (colors / "green" / "green1.png").write_text("no picture")
    status, _, errors = command(*FIT)
    assert status == 2
    assert "green1.png is unreadable" in errors
    status, out, errors = command(*FIT, "--skip-unreadable")
    assert status == 0
    assert "note: 1 of 12 pictures were skipped" in errors
    assert "green (3)" in out
    for i in (0, 2, 3):
        (colors / "green" / f"green{i}.png").write_text("no picture")
    status, _, errors = command(*FIT, "--skip-unreadable")
    assert status == 2
    assert "No file of 'green' could be read" in errors


def test_one_sample_of_each_class_tells_no_accuracy(command, tmp_path):
    write_colors(tmp_path / "colors", n=1)
    assert "cannot be estimated with one of the pictures for each class" in command(*FIT)[1]


def test_bars_are_for_who_watches(command, colors):
    assert command(*FIT, "--no-cache")[2] == ""
    assert "OpenCLIPEncoder: 100%" in command(*FIT, "--no-cache", "--progress")[2]


@pytest.mark.parametrize(
    "options",
    [("--views", "0"), ("--batch-size", "0"), ("--unknown-rate", "2"), ("--device", "x")],
    ids=str,
)
def test_numbers_out_of_range(options, command, colors):
    status, _, errors = command(*FIT, *options)
    assert status == 2
    assert len(errors.splitlines()) == 1


def test_kinds_are_told_by_endings(tmp_path):
    for kind, name in (("pictures", "a/b/x.JPG"), ("sounds", "c/x.flac")):
        folder = tmp_path / kind
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
        assert files.kind_of(folder) == kind
    assert set(files.ENDINGS) == {"pictures", "sounds"}
    assert len(COLORS) == 3
