"""Where models may be saved, and from where they may be loaded."""

import os
from pathlib import Path

import numpy as np
import pytest

import flowalign
from flowalign import SavedAligner

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX files")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))  # on Windows
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.mark.parametrize("path", ["~/model", Path("~/model")], ids=["str", "Path"])
def test_the_home_folder(path, fitted, data, here):
    flowalign.save(fitted, path)
    assert os.listdir(here) == ["home"]
    expected = fitted.predict_proba(data.X_test)
    np.testing.assert_array_equal(flowalign.load(path).predict_proba(data.X_test), expected)
    saved = SavedAligner(path)
    assert saved.path == str(here / "home" / "model")
    np.testing.assert_array_equal(saved.predict_proba(data.X_test), expected)


def test_errors_of_a_restored_model_name_its_file(here):
    Path("home/model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="home.model is not a safetensors file"):
        flowalign.load("~/model")


@posix
def test_a_link_leads_to_the_model(fitted, data, here):
    Path("link").symlink_to("home/model")
    flowalign.save(fitted, "link")
    assert Path("link").is_symlink()
    assert os.listdir("home") == ["model"]
    np.testing.assert_array_equal(
        SavedAligner("link").predict(data.X_test), fitted.predict(data.X_test)
    )


@posix
@pytest.mark.parametrize("name", ["pipe", "home"])
def test_what_is_no_file_is_neither_written_nor_waited_for(name, fitted, here):
    os.mkfifo("pipe")  # of which a reader waits for a writer
    before = os.lstat(name)
    for touch in (lambda path: flowalign.save(fitted, path), flowalign.load, SavedAligner):
        with pytest.raises((ValueError, IsADirectoryError), match=name):
            touch(name)
    after = os.lstat(name)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert sorted(os.listdir()) == ["home", "pipe"]


def test_a_missing_folder_is_named(fitted, here):
    with pytest.raises(FileNotFoundError, match="make it first: 'nowhere.models'"):
        flowalign.save(fitted, Path("nowhere", "models", "pets"))
    for touch in (flowalign.load, SavedAligner):
        with pytest.raises(FileNotFoundError, match="nowhere.pets"):
            touch("nowhere/pets")
