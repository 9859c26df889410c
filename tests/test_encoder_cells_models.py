"""Missing and several pictures and sounds, with models of random weights."""

import numpy as np
import pandas as pd
import pytest
from encoder_models import tone, write_clap, write_clip, write_pictures
from sklearn.compose import make_column_transformer

from flowalign.encoders import ClapEncoder, OpenCLIPEncoder
from flowalign.encoders.clip import _CLIP


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    pytest.importorskip("open_clip")
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    pytest.importorskip("transformers")
    return write_clap(tmp_path_factory.mktemp("models") / "clap")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = write_pictures(tmp_path_factory.mktemp("data") / "pictures")
    return sorted(str(path) for path in root.glob("*/*.png"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    soundfile = pytest.importorskip("soundfile")
    root = tmp_path_factory.mktemp("data")
    for pitch in (200, 400, 800):
        soundfile.write(root / f"{pitch}.wav", tone(pitch), 48_000)
    return sorted(str(path) for path in root.iterdir())


def _unit(row):
    return row / np.linalg.norm(row)


def test_pictures_may_be_missing_or_several(clip, pictures, tmp_path, monkeypatch):
    counts = []
    forward = _CLIP.forward
    monkeypatch.setattr(_CLIP, "forward", lambda self, x: counts.append(len(x)) or forward(self, x))
    encoder = OpenCLIPEncoder(clip, missing="nan", cache=tmp_path)
    alone = encoder.transform(pictures[:4])
    cells = [None, pictures[:3], pictures[3], "", [], np.nan, pictures[3:4]]
    rows = encoder.transform(cells)
    assert np.isnan(rows[[0, 3, 4, 5]]).all()
    np.testing.assert_array_equal(rows[[2, 6]], alone[[3, 3]])
    np.testing.assert_allclose(rows[1], _unit(alone[:3].mean(axis=0)), atol=1e-6)
    assert sum(counts) == 4
    with pytest.raises(ValueError, match=r"picture 3 of X is missing: ''"):
        OpenCLIPEncoder(clip).transform([*pictures[:3], ""])


def test_pictures_in_memory_may_be_several(clip, pictures):
    from PIL import Image

    opened = [Image.open(path) for path in pictures[:2]]
    encoder = OpenCLIPEncoder(clip)
    expected = encoder.transform([pictures[:2]])
    arrays = tuple(np.asarray(picture) for picture in opened)
    np.testing.assert_allclose(encoder.transform([opened]), expected, atol=1e-6)
    np.testing.assert_allclose(encoder.transform([arrays]), expected, atol=1e-6)


def test_sounds_may_be_missing_or_several(clap, sounds):
    encoder = ClapEncoder(clap, missing="nan")
    alone = encoder.transform(sounds)
    rows = encoder.transform([sounds, None, sounds[1], [], [None, sounds[2]], [None, None]])
    assert np.isnan(rows[[1, 3, 5]]).all()
    np.testing.assert_allclose(rows[0], _unit(alone.mean(axis=0)), atol=1e-6)
    np.testing.assert_allclose(rows[[2, 4]], alone[1:], atol=1e-6)
    with pytest.raises(ValueError, match="sound 1 of X is missing: None"):
        ClapEncoder(clap).transform([sounds[0], None])


def test_lists_of_samples_stay_sounds(clap):
    encoder = ClapEncoder(clap, missing="nan", sampling_rate=8_000)
    sound = tone(300, 0.5, 8_000)
    expected = encoder.transform([sound])
    for item in (sound.tolist(), (sound, 8_000), [8_000, sound], [sound.tolist()]):
        np.testing.assert_allclose(encoder.transform([item]), expected, atol=1e-5)


def test_the_width_is_known_where_all_is_missing(clip, clap):
    assert OpenCLIPEncoder(clip, missing="nan").transform([None, pd.NA]).shape == (2, 32)
    empty = ClapEncoder(clap, missing="nan", n_views=3).encode([None], views="stack")
    assert empty.X.shape == (3, 16)
    assert empty.X.dtype == np.float32


def test_a_picture_and_a_sound_in_two_columns(clip, clap, pictures, sounds):
    table = pd.DataFrame(
        {"sound": [*sounds, None, None], "picture": [None, pictures[:2], *pictures[2:5]]}
    )
    both = make_column_transformer(
        (OpenCLIPEncoder(clip, missing="nan"), "picture"),
        (ClapEncoder(clap, missing="nan"), "sound"),
    )
    X = both.fit_transform(table)
    assert X.dtype == np.float32
    seen, heard = (X[:, both.output_indices_[name]] for name in ("openclipencoder", "clapencoder"))
    assert seen.shape == (5, 32)
    assert heard.shape == (5, 16)
    assert np.isnan(seen).all(axis=1).tolist() == [True, False, False, False, False]
    assert np.isnan(heard).all(axis=1).tolist() == [False] * 3 + [True] * 2
    np.testing.assert_allclose(both.transform(table[3:]), X[3:], atol=1e-5)
    assert both.get_feature_names_out()[[0, 47]].tolist() == [
        "openclipencoder__openclipencoder0",
        "clapencoder__clapencoder15",
    ]
