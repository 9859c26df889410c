"""Sounds that are no files: arrays, tensors, pairs and dicts, each the sound that it says."""

import numpy as np
import pytest
import torch
from encoder_models import tone

from flowalign.encoders import ClapEncoder
from flowalign.encoders.sounds import MAX_CHANNELS, is_pair, read_window, samples_and_rate

RATE = 8_000
SOUND = tone(440, 0.5, RATE).astype(np.float32)
SLOW = np.float32([0.1, -0.2, 0.3] * 100)
COLUMNS = np.stack([SLOW, -SLOW / 2], axis=1)


def _read(item, array_rate=1):
    return read_window(item, rate=RATE, array_rate=array_rate, seconds=9, number=0, count=1)


class _Decoder:
    """What the datasets library gives in place of a dict, and torchcodec for a file."""

    def get_all_samples(self):
        return self

    data, sample_rate = torch.tensor(SOUND)[None], RATE


@pytest.mark.parametrize(
    "item",
    [
        (SOUND, RATE),
        (RATE, SOUND),  # as scipy reads files
        [SOUND, np.int64(RATE)],
        (SOUND.tolist(), float(RATE)),
        (torch.tensor(SOUND)[None], torch.tensor(RATE)),
        (torch.tensor(SOUND)[:, None].requires_grad_(), RATE),
        {"array": SOUND, "sampling_rate": RATE, "path": None},
        {"array": np.stack([SOUND, SOUND]), "sampling_rate": RATE},
        _Decoder(),
    ],
)
def test_a_sound_brings_its_rate(item):
    np.testing.assert_allclose(_read(item), SOUND, atol=1e-6)


def test_without_a_rate_a_sound_has_that_of_the_encoder():
    for item in (SOUND, torch.tensor(SOUND), SOUND.tolist()):
        np.testing.assert_allclose(_read(item, RATE), SOUND, atol=1e-6)
        assert abs(len(_read(item, 2 * RATE)) - len(SOUND) / 2) <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_floats_are_arrays(dtype):
    tensor = torch.tensor(SOUND).to(dtype).requires_grad_()
    np.testing.assert_array_equal(_read(tensor, RATE), tensor.detach().float())


@pytest.mark.parametrize("make", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (SLOW[None], SLOW),
        (SLOW[:, None], SLOW),
        (COLUMNS, SLOW / 4),
        (COLUMNS.T, SLOW / 4),
        (np.stack([SLOW] * MAX_CHANNELS), SLOW),
        (np.stack([SLOW] * MAX_CHANNELS, axis=1), SLOW),
        (SLOW[None, :2], SLOW[:2]),
        (COLUMNS[:3], SLOW[:3] / 4),  # frames come first where both may be
    ],
)
def test_channels_are_the_shorter_side(make, samples, expected):
    np.testing.assert_allclose(_read(make(samples), RATE), expected, atol=1e-7)


@pytest.mark.parametrize(
    "shape", [(2, 2), (2, 5), (100, 200), (200, 100), (64, 30_000), (30_000, 64), (33, 33)]
)
def test_shapes_that_may_be_read_in_two_ways_or_none_are_refused(shape):
    with pytest.raises(ValueError, match=r"cannot be told apart .*; give one channel"):
        _read(np.zeros(shape))


@pytest.mark.parametrize("rate", [0, -1, 0.5, 22_050.5, np.nan, np.inf, 10**10])
def test_rates_of_no_sound_are_refused(rate):
    for item in ((SOUND, rate), (rate, SOUND), {"array": SOUND, "sampling_rate": rate}):
        with pytest.raises(ValueError, match="sampling rate must be a whole number from 1"):
            _read(item)


@pytest.mark.parametrize("rate", [None, "fast"])
def test_rates_that_are_no_numbers_are_refused(rate):
    with pytest.raises(ValueError, match="sampling rate must be a whole number"):
        _read({"array": SOUND, "sampling_rate": rate})


@pytest.mark.parametrize(
    "item", [{"waveform": SOUND, "sample_rate": RATE}, {"bytes": b"", "path": "a.wav"}, {}]
)
def test_dicts_of_other_names_are_refused(item):
    with pytest.raises(TypeError, match="must have 'array' and 'sampling_rate', got"):
        _read(item)


@pytest.mark.parametrize(
    "item", [("a.wav", RATE), (SOUND, "8000"), (SOUND, SOUND[:7], 3), np.zeros(9, dtype=complex)]
)
def test_what_is_no_sound_is_refused_with_what_would_be(item):
    with pytest.raises(TypeError, match=r"paths or arrays of floats .*\(array, rate\)"):
        _read(item)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "int64"])
def test_integers_are_refused_with_the_way_out(dtype):
    samples = np.arange(9).astype(dtype)
    for item in (samples, (RATE, samples), {"array": samples, "sampling_rate": RATE}):
        with pytest.raises(TypeError, match=rf"floats between -1 and 1, got {dtype}.*/ 32768"):
            _read(item)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("peak", [2, 5, 127, 32_767])
def test_integers_in_the_guise_of_floats_are_refused(dtype, peak):
    samples = (SOUND * 2 * peak).round().astype(dtype)
    samples[3] = np.nan  # hides nothing
    with pytest.raises(ValueError, match=r"whole numbers that reach \d+, where full scale is 1"):
        _read((samples, RATE))


@pytest.mark.parametrize("peak", [11, 300, 20_000])
def test_other_samples_far_beyond_full_scale_are_refused(peak):
    with pytest.raises(ValueError, match=r"samples that reach .*samples / 32768 for 16 bits"):
        _read((SOUND * 2 * peak, RATE))


@pytest.mark.parametrize("peak", [0, 1e-4, 1, 1.5, 4, 9.9])
def test_recordings_in_floats_may_overshoot_and_be_quiet(peak):
    np.testing.assert_allclose(_read((SOUND * 2 * peak, RATE)), SOUND * 2 * peak, rtol=1e-5)


def test_full_scale_alone_is_a_sound():
    clicks = np.float32([0, 1, -1, 1] * 20)  # whole numbers, and within full scale
    np.testing.assert_array_equal(_read((clicks, RATE)), clicks)


def test_what_a_pair_is():
    assert all(map(is_pair, [(SOUND, 1), (1, SOUND), [SOUND, 1.0], (None, 1), (1, "a")]))
    assert not any(map(is_pair, [(0.1, 0.2), (SOUND, SOUND), (SOUND, 1, 2), SOUND, "ab", {1, 2}]))


def test_the_same_sound_in_another_form_is_the_same():
    forms = [(SOUND, RATE), (RATE, SOUND[:, None]), {"array": SOUND[None], "sampling_rate": 8e3}]
    for item in forms:
        samples, rate = samples_and_rate(item, 1)
        assert (samples.shape, rate) == ((len(SOUND), 1), RATE)
        assert isinstance(rate, int)


PAIRS = [(SOUND, RATE), (SOUND[::-1].copy(), RATE)]
BATCH = np.stack([sound for sound, _ in PAIRS])


@pytest.mark.parametrize(
    "form",
    [
        PAIRS,
        tuple(PAIRS),
        np.array([None, *PAIRS], dtype=object)[1:],  # a column
        np.array(PAIRS, dtype=object),  # a table of 2 x 2 objects
        np.array(BATCH, dtype=object),  # a table of floats as objects
        np.array([{"array": sound, "sampling_rate": RATE} for sound in BATCH]),
        torch.tensor(BATCH).requires_grad_(),
        torch.tensor(BATCH)[:, None],
        BATCH[:, :, None],
        [PAIRS[0], torch.tensor(BATCH[1])],
    ],
)
def test_sounds_come_in_many_lists(form):
    items = ClapEncoder()._items(form)
    np.testing.assert_allclose([_read(item, RATE) for item in items], BATCH, atol=1e-6)
