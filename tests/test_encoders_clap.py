"""ClapEncoder around a real CLAP model of transformers with random weights."""

import json
import pickle

import numpy as np
import pytest
import torch
from encoder_models import tone, write_clap
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from flowalign import FlowMatchingAligner
from flowalign.datasets import load_audio_folder
from flowalign.encoders import ClapEncoder, clap
from flowalign.prompts import AUDIO_TEMPLATES

transformers = pytest.importorskip("transformers")
soundfile = pytest.importorskip("soundfile")


@pytest.fixture(scope="module", params=["unfused", "fused"])
def model_name(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    return write_clap(folder, fusion=request.param == "fused")


@pytest.fixture(scope="module")
def unfused(tmp_path_factory):
    return write_clap(tmp_path_factory.mktemp("models") / "unfused")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Tones of two pitches, of 1 to 25 s, mono and stereo, at three rates."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for name, pitch in (("low_tone", 200), ("high_tone", 2000)):
        (root / name).mkdir()
        for i, (seconds, rate) in enumerate([(1, 8_000), (11, 44_100), (25, 48_000), (10, 48_000)]):
            sound = tone(pitch, seconds, rate) + 0.05 * rng.standard_normal(seconds * rate)
            samples = np.stack([sound, sound], axis=1) if i == 1 else sound
            soundfile.write(root / name / f"{i}.wav", samples, rate)
    return load_audio_folder(root)


def test_features_are_those_of_the_bare_model(unfused):
    # Sounds of the length and rate that the model takes: nothing is left to crop or to convert.
    encoder = ClapEncoder(unfused, random_state=3, batch_size=2)
    sounds = [tone(pitch, 10) for pitch in (100, 500, 1000)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = transformers.ClapModel(transformers.ClapConfig.from_pretrained(unfused)).eval()
    extractor = transformers.ClapFeatureExtractor.from_pretrained(unfused)
    tokenizer = transformers.AutoTokenizer.from_pretrained(unfused)
    texts = ["a dog", "rain on a roof"]
    with torch.inference_mode():
        inputs = extractor(sounds, sampling_rate=48_000, return_tensors="pt")
        expected = clap._rows(model.get_audio_features(**inputs))
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        expected_text = clap._rows(model.get_text_features(input_ids=ids, attention_mask=mask))
    rows = encoder.transform(sounds)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(encoder.encode_text(texts), expected_text, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch_nor_on_chance(model_name, sounds):
    rows = ClapEncoder(model_name).transform(sounds.X)
    assert rows.shape == (8, 16)
    for size in (1, 3):
        other = ClapEncoder(model_name, batch_size=size).transform(sounds.X[::-1])[::-1]
        np.testing.assert_allclose(other, rows, atol=1e-5)


def test_texts_do_not_depend_on_their_batch(model_name):
    texts = ["a", "a dog", "a dog that barks at the rain"]
    rows = ClapEncoder(model_name).encode_text(texts)
    alone = ClapEncoder(model_name, batch_size=1).encode_text(texts)
    np.testing.assert_allclose(alone, rows, atol=1e-5)
    long = ClapEncoder(model_name).encode_text(["a dog " * 200])
    assert np.isfinite(long).all()


def test_a_pipeline_tells_pitches_apart_and_encodes_each_file_once(
    unfused, sounds, tmp_path, monkeypatch
):
    counts = []
    forward = clap._CLAP.forward

    def counting(self, inputs):
        counts.append(len(inputs))
        return forward(self, inputs)

    monkeypatch.setattr(clap._CLAP, "forward", counting)
    encoder = ClapEncoder(unfused, cache=tmp_path)
    text = encoder.class_embeddings(sounds.class_names)
    pipeline = make_pipeline(encoder, FlowMatchingAligner())
    pipeline.fit(sounds.X, sounds.y, flowmatchingaligner__class_embeddings=text)
    assert pipeline.score(sounds.X, sounds.y) == 1
    assert sum(counts) == len(sounds.X)


def test_arrays_have_the_rate_that_is_said(unfused, tmp_path):
    sound = tone(300, 2, 8_000)
    soundfile.write(tmp_path / "a.wav", sound, 8_000, subtype="FLOAT")
    encoder = ClapEncoder(unfused, sampling_rate=8_000, cache=tmp_path / "cache")
    from_file = encoder.transform([str(tmp_path / "a.wav")])
    np.testing.assert_allclose(encoder.transform([sound]), from_file, atol=1e-5)
    np.testing.assert_allclose(encoder.transform(sound[None]), from_file, atol=1e-5)
    stereo = np.stack([sound, sound], axis=1)
    np.testing.assert_allclose(encoder.transform([stereo]), from_file, atol=1e-5)
    faster = clone(encoder).set_params(sampling_rate=16_000).transform([sound])
    assert abs(faster - from_file).max() > 1e-3


def test_sounds_with_a_rate_are_known_by_it(unfused, tmp_path, monkeypatch):
    sound = tone(300, 1, 8_000)
    encoder = ClapEncoder(unfused, cache=tmp_path)
    expected = [
        ClapEncoder(unfused, sampling_rate=rate).transform([sound])[0] for rate in (8_000, 16_000)
    ]
    assert abs(expected[0] - expected[1]).max() > 1e-3
    items = [(sound, 8_000), (16_000, sound)]
    np.testing.assert_allclose(encoder.transform(items), expected, atol=1e-5)
    monkeypatch.setattr(clap._CLAP, "forward", None)  # all is in the cache
    again = [{"array": sound, "sampling_rate": rate} for rate in (8_000, 16_000)]
    np.testing.assert_allclose(encoder.transform(again), expected, atol=1e-5)
    tensors = [(torch.tensor(sound)[None], 8_000), (torch.tensor(sound[:, None]), 16_000)]
    np.testing.assert_allclose(encoder.transform(tensors), expected, atol=1e-5)


def test_views_are_windows(unfused):
    rate = 48_000
    parts = [tone(pitch, 10, rate) for pitch in (200, 1000, 4000)]
    encoder = ClapEncoder(unfused, n_views=3)
    stacked = encoder.encode([np.concatenate(parts)], ["a"], views="stack")
    np.testing.assert_allclose(stacked.X, ClapEncoder(unfused).transform(parts), atol=1e-5)
    assert stacked.y.tolist() == ["a"] * 3
    middle = ClapEncoder(unfused).transform([np.concatenate(parts)])
    np.testing.assert_allclose(middle[0], stacked.X[1], atol=1e-5)


def test_class_embeddings_are_the_ensemble_of_prompts(unfused):
    encoder = ClapEncoder(unfused)
    table = encoder.class_embeddings(["rain"])
    mean = encoder.encode_text([t.replace("{}", "rain") for t in AUDIO_TEMPLATES]).mean(axis=0)
    np.testing.assert_allclose(table.vectors[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_weights_are_drawn_from_the_seed_or_taken_from_a_folder(unfused, sounds, tmp_path):
    state = torch.get_rng_state()
    paths = sounds.X[:2]
    drawn = ClapEncoder(unfused, random_state=4)
    rows = drawn.transform(paths)
    assert torch.equal(torch.get_rng_state(), state)
    assert abs(rows - ClapEncoder(unfused).transform(paths)).max() > 0.01
    clap._load.__wrapped__.cache_clear()
    for again in (clone(drawn), pickle.loads(pickle.dumps(drawn))):
        np.testing.assert_array_equal(again.transform(paths), rows)
    drawn._load().model.save_pretrained(tmp_path / "trained")
    trained = ClapEncoder(unfused, str(tmp_path / "trained"))
    np.testing.assert_allclose(trained.transform(paths), rows, atol=1e-6)


def test_weights_are_never_filled_in(unfused, tmp_path):
    (tmp_path / "checkpoint-10").mkdir()
    with pytest.raises(ValueError, match="pretrained=.*could not be loaded"):
        ClapEncoder(unfused, str(tmp_path)).transform([tone(300)])
    config = transformers.ClapConfig.from_pretrained(unfused).text_config
    transformers.ClapTextModel(config).save_pretrained(tmp_path / "text alone")
    with pytest.raises(ValueError, match="no checkpoint of this model; it lacks"):
        ClapEncoder(unfused, str(tmp_path / "text alone")).transform([tone(300)])


def test_another_architecture_with_the_same_weights_is_another_space(tmp_path):
    folder = tmp_path / "model"
    name, texts = write_clap(folder), ["a dog in the rain"]
    ClapEncoder(name)._load().model.save_pretrained(folder)
    ClapEncoder(name, cache=tmp_path / "cache").encode_text(texts)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_attention_heads"] = 4
    (folder / "config.json").write_text(json.dumps(config))
    cached = ClapEncoder(name, cache=tmp_path / "cache").encode_text(texts)
    np.testing.assert_allclose(cached, ClapEncoder(name).encode_text(texts), atol=1e-6)


def test_a_folder_that_moves_and_another_version_are_the_same_space(tmp_path, monkeypatch):
    name = write_clap(tmp_path / "model")
    ClapEncoder(name)._load().model.save_pretrained(name)
    keys = {ClapEncoder(name)._load().space("sound").key}
    (tmp_path / "model").rename(tmp_path / "moved")
    monkeypatch.setattr(transformers.configuration_utils, "__version__", "99.0")
    keys.add(ClapEncoder(str(tmp_path / "moved"))._load().space("sound").key)
    assert len(keys) == 1


def test_one_sound_is_no_list_of_sounds(unfused):
    with pytest.raises(ValueError, match="looks like one sound"):
        ClapEncoder(unfused).transform(np.zeros((4800, 2)))
    with pytest.raises(ValueError, match=r"one sound, an array of shape \(4800, 2\)"):
        ClapEncoder(unfused).transform(torch.zeros(4800, 2))
    for pair in ((tone(300), 48_000), (48_000, tone(300))):
        with pytest.raises(ValueError, match=r"one sound, a tuple of 2; give a list, \[X\]"):
            ClapEncoder(unfused).transform(pair)


def test_unreadable_sounds_are_named_or_skipped(unfused, sounds, tmp_path):
    (tmp_path / "torn.wav").write_bytes(b"RIFF no more")
    soundfile.write(tmp_path / "empty.wav", np.empty(0), 8_000)
    soundfile.write(tmp_path / "short.wav", tone(300)[:10], 8_000)
    bad = [str(tmp_path / name) for name in ("torn.wav", "empty.wav", "gone.wav")]
    encoder = ClapEncoder(unfused)
    assert encoder.transform([tmp_path / "short.wav"]).shape == (1, 16)
    assert encoder.transform([np.zeros(100)]).shape == (1, 16)
    reasons = ["no sound, or a damaged", "no samples", "not exist"]
    for path, message in zip(bad, reasons, strict=True):
        with pytest.raises((ValueError, FileNotFoundError), match=rf"\.wav.*{message}"):
            encoder.transform([path])
    with pytest.warns(UserWarning, match="3 of 4 sounds were skipped"):
        result = encoder.encode([*bad, sounds.X[0]], on_error="skip")
    assert result.rows.tolist() == [3]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model_name": "/nowhere/at/all"}, "model_name='/nowhere/at/all'.*could not be loaded"),
        ({"sampling_rate": 0}, "sampling_rate must be at least 1"),
        ({"random_state": None}, "random_state must be an integer"),
    ],
)
def test_bad_parameters(params, message, unfused):
    encoder = ClapEncoder(**{"model_name": unfused, **params})
    with pytest.raises(ValueError, match=message):
        encoder.transform([tone(300)])
