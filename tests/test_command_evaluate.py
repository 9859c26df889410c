"""flowalign evaluate: how often a model is right."""

import json

import numpy as np
import pytest
from stub_clip import MODEL, write_colors

from flowalign.command.answers import Answers
from flowalign.command.evaluate import _summary

FIT = ["fit", "colors", "--out", "m.flowalign", "--model", MODEL]


@pytest.fixture
def test_folder(command, tmp_path):
    write_colors(tmp_path / "colors")
    command(*FIT)
    folder = write_colors(tmp_path / "test", n=3, seed=1)
    (folder / "red" / "red0.png").rename(folder / "blue" / "red0.png")
    return folder


def test_lines_for_a_reader(command, test_folder):
    status, out, errors = command("evaluate", "m.flowalign", "test")
    assert (status, errors) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["Accuracy", "88.9%", "of", "9", "pictures"]
    assert ["blue", "4", "75.0%"] in [line[:3] for line in lines]
    assert ["blue", "taken", "for", "red", "1"] in lines


def test_numbers_for_a_program(command, test_folder):
    found = json.loads(command("evaluate", "m.flowalign", "test", "--json")[1])
    assert found["files"] == 9
    assert found["accuracy"] == pytest.approx(8 / 9)
    assert found["confusions"] == [{"label": "blue", "predicted": "red", "files": 1}]
    assert [row["label"] for row in found["classes"]] == ["blue", "green", "red"]
    assert sum(row["files"] for row in found["classes"]) == 9


@pytest.mark.filterwarnings("default:.*(were skipped|have no label):UserWarning")
def test_a_table_with_files_that_cannot_be_read(command, test_folder, tmp_path):
    """Labels stay with their files."""
    (tmp_path / "t.csv").write_text(
        "path,label\nblue/red0.png,red\nblue/blue0.png,blue\ngreen/green0.png,green\n"
    )
    (test_folder / "blue" / "blue0.png").write_text("no picture")
    options = ("--labels", "t.csv", "--skip-unreadable", "--json")
    status, out, _ = command("evaluate", "m.flowalign", "test", *options)
    assert status == 0
    found = json.loads(out)
    assert (found["files"], found["accuracy"]) == (2, 1.0)
    assert [row["label"] for row in found["classes"]] == ["green", "red"]


def test_classes_that_the_model_does_not_know(command, test_folder):
    (test_folder / "green").rename(test_folder / "yellow")
    status, _, errors = command("evaluate", "m.flowalign", "test")
    assert status == 2
    assert "has classes that the model was not fitted to: 'yellow'. It knows 'blue', 'g" in errors


def test_the_numbers():
    """Six files of three classes, whose labels are numbers; two are wrong, one of them unknown."""
    proba = np.full((6, 3), 0.1)
    said, true = [0, 0, 1, 1, 2, 1], [0, 0, 1, 1, 0, 0]
    proba[np.arange(6), said] = 0.8
    scores = np.array([5.0, 5, 5, 5, 5, -1])
    answers = Answers([*"abcdef"], proba, scores, 0.0, np.array([2, 10, 30]), np.arange(6))
    found = _summary(answers, np.array(true))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["log_loss"] == pytest.approx(-(4 * np.log(0.8) + 2 * np.log(0.1)) / 6)
    assert found["ece"] == pytest.approx(0.8 - 4 / 6)
    assert (found["unknown"], found["unknown_of_wrong"]) == (pytest.approx(1 / 6), 0.5)
    assert found["classes"] == [
        {"label": "2", "files": 4, "accuracy": 0.5, "unknown": 0.25},
        {"label": "10", "files": 2, "accuracy": 1.0, "unknown": 0.0},
    ]
    assert {row["predicted"] for row in found["confusions"]} == {"10", "30"}
