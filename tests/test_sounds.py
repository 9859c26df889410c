"""Sounds of every kind come out with one channel, one rate, and windows of fixed position."""

import io

import numpy as np
import pytest
from encoder_models import tone

from flowalign.encoders.sounds import read_window, window

soundfile = pytest.importorskip("soundfile")


def _read(item, *, rate=48_000, array_rate=48_000, seconds=2.0, number=0, count=1):
    return read_window(
        item, rate=rate, array_rate=array_rate, seconds=seconds, number=number, count=count
    )


def _file(samples, rate, kind="WAV", subtype="FLOAT"):
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def test_a_sound_at_the_rate_wanted_is_left_as_it_is():
    sound = tone(440)
    for item in (sound, sound[:, None], _file(sound, 48_000)):
        result = _read(item)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, sound, atol=1e-6)


def test_channels_are_averaged():
    stereo = np.stack([tone(440), 0 * tone(440)], axis=1)
    np.testing.assert_allclose(_read(_file(stereo, 48_000)), tone(440) / 2, atol=1e-6)
    np.testing.assert_allclose(_read(stereo), tone(440) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000])
def test_rates_are_converted(rate):
    for item in (_file(tone(440, rate=rate), rate), tone(440, rate=rate)):
        result = _read(item, array_rate=rate)
        assert abs(len(result) - 48_000) <= 1
        inner = slice(2_000, 46_000)
        np.testing.assert_allclose(result[inner], tone(440)[inner], atol=0.01)


@pytest.mark.parametrize("kind", ["file", "array"])
def test_windows_are_spread_over_the_sound(kind):
    ramp = np.linspace(-1, 1, 10_000, dtype=np.float32)
    item = _file(ramp, 1_000) if kind == "file" else ramp
    read = [_read(item, rate=1_000, array_rate=1_000, number=k, count=3) for k in range(3)]
    for k, start in enumerate((0, 4_000, 8_000)):
        np.testing.assert_allclose(read[k], ramp[start : start + 2_000], atol=1e-6)
    middle = _read(item, rate=1_000, array_rate=1_000)
    np.testing.assert_allclose(middle, ramp[4_000:6_000], atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 99, 100, 101, 1000])
def test_windows_lie_within(length, count):
    bounds = [window(length, 100, k, count) for k in range(count)]
    assert all(0 <= start < stop <= length for start, stop in bounds)
    assert all(stop - start == min(length, 100) for start, stop in bounds)
    if count > 1:
        assert bounds[0][0] == 0
        assert bounds[-1][1] == length


def test_short_sounds_are_returned_whole():
    assert len(_read(tone(440)[:7])) == 7
    assert len(_read(_file(tone(440)[:1], 8_000))) == 6


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_other_forms_of_samples(subtype):
    result = _read(_file(tone(440), 48_000, "FLAC", subtype))
    np.testing.assert_allclose(result, tone(440), atol=1e-4)


@pytest.mark.parametrize("content", [b"", b"text", b"RIFF\x00\x00\x00\x00WAVE"])
def test_damaged_files_are_refused(content):
    with pytest.raises(ValueError, match="no sound, or a damaged one") as error:
        _read(content)
    assert "0x" not in str(error.value)  # an address in memory tells nobody anything


def test_sounds_without_samples_are_refused():
    for item in (_file(np.empty(0), 8_000), np.empty(0), np.empty((2, 0)), np.empty((0, 2))):
        with pytest.raises(ValueError, match="no samples"):
            _read(item)
    for item in (_file(np.array([0, np.nan]), 8_000), np.array([np.inf])):
        with pytest.raises(ValueError, match="NaN or infinite"):
            _read(item)


@pytest.mark.parametrize("item", [3, "text", [[1.0], [1.0, 2.0]], np.zeros((2, 2, 2)), None])
def test_what_is_no_sound_is_refused(item):
    with pytest.raises(TypeError, match="paths or arrays of floats"):
        _read(item)


def test_integers_have_no_scale():
    with pytest.raises(TypeError, match="floats between -1 and 1, got int16"):
        _read(np.zeros(10, dtype=np.int16))


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_integers_in_files_of_floats_are_refused_wherever_they_are(subtype):
    sound = np.zeros(480_000)
    sound[:9] = 20_000  # outside the window in the middle, which is silent
    with pytest.raises(ValueError, match=r"^it has whole numbers that reach 20000.*/ 32768"):
        _read(_file(sound, 48_000, subtype=subtype))
    sound[:9] = 4.5
    assert len(_read(_file(sound, 48_000, subtype=subtype))) == 96_000


@pytest.mark.parametrize("rate", [1_000_001, 2**31 - 1])
def test_a_file_with_the_rate_of_no_sound_is_refused(rate):
    with pytest.raises(ValueError, match="no sound, or a damaged one .*whole number from 1 to"):
        _read(_file(tone(440), rate))


def test_running_out_of_memory_is_no_damage(monkeypatch):
    monkeypatch.setattr(soundfile, "SoundFile", _no_memory)
    with pytest.raises(MemoryError):
        _read(b"any")


def _no_memory(*_):
    raise MemoryError


@pytest.mark.parametrize(
    ("kind", "subtype", "share"),
    [("FLAC", "PCM_16", 0.5), ("MP3", "MPEG_LAYER_III", 0.5), ("MP3", "MPEG_LAYER_III", 0.95)],
)
def test_a_file_that_ends_early_is_noticed_where_its_form_allows(kind, subtype, share):
    noise = 0.1 * np.random.default_rng(0).standard_normal(96_000)
    content = _file(noise, 48_000, kind, subtype)
    assert len(_read(content)) == 96_000
    with pytest.raises(ValueError, match="damaged one"):
        _read(content[: int(share * len(content))])


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000])
@pytest.mark.parametrize("seconds", [0.1, 0.10001, 0.12345, 1 / 3])
def test_no_window_is_longer_than_the_model_takes(rate, seconds):
    sound = tone(440, rate=rate)
    for item in (sound, _file(sound, rate)):
        window = _read(item, array_rate=rate, seconds=seconds)
        assert len(window) == round(seconds * 48_000)
