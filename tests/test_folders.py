"""Folders of one's own: class = folder name."""

import pytest

from flowalign.datasets import load_audio_folder, load_image_folder

LOADERS = [(load_image_folder, "jpg"), (load_audio_folder, "wav")]


def _tree(root, *files):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(("load", "end"), LOADERS)
def test_files_and_their_folders(load, end, tmp_path):
    files = [f"song_thrush/2.{end}", f"song_thrush/1.{end.upper()}", f"dog/x y.{end}"]
    others = [f".hidden/1.{end}", f"dog/.1.{end}", "dog/notes.txt", "readme.md"]
    data = load(_tree(tmp_path, *files, *others))
    assert data.X.tolist() == [str(tmp_path / files[i]) for i in (2, 1, 0)]
    assert data.y.tolist() == ["dog", "song_thrush", "song_thrush"]
    assert data.class_names == {"dog": "dog", "song_thrush": "song thrush"}
    assert load(str(tmp_path)).X.tolist() == data.X.tolist()


@pytest.mark.parametrize(("load", "end"), LOADERS)
def test_what_is_missing_is_named(load, end, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no folders"):
        load(_tree(tmp_path, f"1.{end}"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"without a .*'empty'"):
        load(_tree(tmp_path, f"dog/1.{end}", "cat/1.txt"))


@pytest.mark.parametrize(("load", "end"), LOADERS)
def test_a_root_one_level_too_high_is_noticed(load, end, tmp_path):
    _tree(tmp_path, f"train/dog/1.{end}", f"test/dog/1.{end}")
    with pytest.raises(ValueError, match="one level too high"):
        load(tmp_path)


@pytest.mark.parametrize(("load", "end"), LOADERS)
def test_files_too_deep_to_be_found_are_no_secret(load, end, tmp_path):
    _tree(tmp_path, f"dog/1.{end}", f"dog/small/2.{end}")
    with pytest.raises(ValueError, match="one level too low"):
        load(tmp_path)


@pytest.mark.parametrize(("load", "end"), LOADERS)
def test_what_is_no_file_is_passed_over(load, end, tmp_path):
    _tree(tmp_path, f"_/1.{end}", f"__MACOSX/_/1.{end}")
    (tmp_path / "_" / f"folder.{end}").mkdir()
    (tmp_path / "_" / f"link.{end}").symlink_to(tmp_path / "nowhere")
    data = load(tmp_path)
    assert data.X.tolist() == [str(tmp_path / "_" / f"1.{end}")]
    assert data.class_names == {"_": "_"}
