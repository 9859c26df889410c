"""Folders of one's own: class = folder name."""

import pytest
from encoder_models import tone

from flowalign.datasets import load_audio_folder, load_image_folder
from flowalign.datasets.folders import AUDIO_ENDINGS, IMAGE_ENDINGS, OTHER_ENDINGS
from flowalign.encoders.pictures import read_picture
from flowalign.encoders.sounds import read_window

LOADERS = [(load_image_folder, "jpg"), (load_audio_folder, "wav")]


def _tree(root, *files):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(("load", "end"), LOADERS)
def test_files_and_their_folders(load, end, tmp_path, monkeypatch):
    files = [f"song_thrush/2.{end}", f"song_thrush/1.{end.upper()}", f"dog/x y.{end}"]
    others = [f".hidden/1.{end}", f"dog/.1.{end}", "dog/notes.txt", "readme.md"]
    data = load(_tree(tmp_path, *files, *others))
    assert data.X.tolist() == [str(tmp_path / files[i]) for i in (2, 1, 0)]
    assert data.y.tolist() == ["dog", "song_thrush", "song_thrush"]
    assert data.class_names == {"dog": "dog", "song_thrush": "song thrush"}
    assert load(str(tmp_path)).X.tolist() == data.X.tolist()
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("USERPROFILE", str(tmp_path.parent))
    assert load(f"~/{tmp_path.name}").X.tolist() == data.X.tolist()


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


KINDS = [
    (load_image_folder, IMAGE_ENDINGS, ".heic", ".svg"),
    (load_audio_folder, AUDIO_ENDINGS, ".m4a", ".wma"),
]
SILENT = ["x.txt", "x.json", "x.csv", "x.md", "Thumbs.db", ".DS_Store", "noending", "x.zip", "x.py"]


@pytest.mark.parametrize(("load", "endings", "one", "two"), KINDS)
def test_files_of_other_endings_are_counted(load, endings, one, two, tmp_path):
    files = [f"a/{i}{ending}" for i, ending in enumerate(endings)]
    files += [f"b/{i}{ending.upper()}" for i, ending in enumerate(endings)]
    others = [f"a/1{one}", f"a/2{one.upper()}", f"b/1{two}", f"b/.hidden{two}"]
    _tree(tmp_path, *files, *others, *(f"{c}/{name}" for c in "ab" for name in SILENT))
    with pytest.warns(UserWarning, match="were passed over") as caught:
        data = load(tmp_path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    assert f"passed over for their endings ({one}: 2, {two}: 1)" in message
    assert f"Convert them to {endings[0]}" in message
    assert data.X.tolist() == [str(tmp_path / file) for file in _sorted_in_class(files)]


def _sorted_in_class(files):
    return sorted(files, key=lambda file: (file.split("/")[0], file))


@pytest.mark.parametrize(("load", "endings", "one", "two"), KINDS)
def test_a_class_of_other_endings_alone_is_an_error_that_says_so(load, endings, one, two, tmp_path):
    _tree(tmp_path, f"a/1{endings[0]}", f"b/1{one}", f"c/1{two}", f"c/2{two}", "d/1.txt")
    with pytest.raises(ValueError, match="without a") as caught:
        load(tmp_path)
    assert "'b', 'c', 'd'" in str(caught.value)
    assert f"files with other endings ({one}: 1, {two}: 2): convert these." in str(caught.value)
    assert str(caught.value).endswith("s into each of them, or remove it.")


@pytest.mark.parametrize(("load", "endings", "one", "two"), KINDS)
def test_no_ending_is_both_taken_and_passed_over_and_all_are_documented(load, endings, one, two):
    assert not {*endings} & {*OTHER_ENDINGS[endings]}
    assert all(e == e.lower() and e[0] == "." for e in endings + OTHER_ENDINGS[endings])
    assert {one, two} <= {*OTHER_ENDINGS[endings]}
    words = load.__doc__.replace(",", " ").split()
    assert {*endings} <= {word.rstrip(".") for word in words}


@pytest.mark.parametrize("ending", IMAGE_ENDINGS)
def test_every_picture_taken_can_be_read(ending, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    path = tmp_path / f"a{ending}"
    Image.new("1" if ending == ".pbm" else "RGB", (8, 6), 1).save(
        path, "JPEG" if ending in (".jpe", ".jfif") else None
    )
    assert read_picture(path.read_bytes()).size == (8, 6)


@pytest.mark.parametrize("ending", AUDIO_ENDINGS)
def test_every_sound_taken_can_be_read(ending, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    kinds = {".wave": "WAV", ".oga": "OGG", ".opus": "OGG", ".snd": "AU"}
    kinds |= {".aif": "AIFF", ".aifc": "AIFF"}
    path = tmp_path / f"a{ending}"
    soundfile.write(
        path,
        tone(440, 0.5, 48_000),
        48_000,
        format=kinds.get(ending, ending[1:].upper()),
        subtype="OPUS" if ending == ".opus" else None,
    )
    window = {"rate": 48_000, "array_rate": 1, "seconds": 1, "number": 0, "count": 1}
    assert abs(len(read_window(path.read_bytes(), **window)) - 24_000) < 3_000


@pytest.mark.parametrize(("load", "endings", "one", "two"), KINDS)
def test_a_path_in_a_message_shows_what_a_reader_would_not_see(load, endings, one, two, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\\r' is no folder"):
        load(tmp_path / "a\r")
    with pytest.raises(ValueError, match=r"^'.*a\\nb' has no folders"):
        load(_tree(tmp_path / "a\nb", "readme.txt"))
    with pytest.raises(ValueError, match=r"^'.*x\\x1b' has folders without"):
        load(_tree(tmp_path / "x\x1b", "y/readme.txt"))
    with pytest.raises(ValueError, match=r"c\\nd' has .*put them into .*z,"):
        load(_tree(tmp_path / "z", f"1{endings[0]}", f"z/c\nd/1{endings[0]}", f"z/1{endings[0]}"))
