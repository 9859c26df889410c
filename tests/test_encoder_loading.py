"""Models are loaded late, once, reproducibly; a missing extra is named."""

import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from flowalign.encoders import ClapEncoder, OpenCLIPEncoder
from flowalign.encoders.loading import (
    drawn_from,
    fingerprint,
    has_no_weights,
    once_per_process,
)


@pytest.mark.parametrize(
    ("encoder", "module", "extra"),
    [
        (OpenCLIPEncoder(), "open_clip", "clip"),
        (ClapEncoder(), "transformers", "audio"),
    ],
)
def test_a_missing_extra_is_named_when_it_is_needed(encoder, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert encoder.fit(["a file"]) is encoder
    with pytest.raises(ImportError, match=rf'pip install "flowalign\[{extra}\]"'):
        encoder.transform(["a file"])


def test_importing_the_encoders_imports_no_extra():
    script = (
        "import sys, flowalign.encoders; "
        "print({'open_clip', 'transformers', 'PIL', 'soundfile', 'sqlite3'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.strip() == "{'sqlite3'}"


def test_threads_load_a_model_once():
    loads = []

    @once_per_process
    def load(name):
        loads.append(name)
        time.sleep(0.05)
        return object()

    results = []
    threads = [threading.Thread(target=lambda: results.append(load("a"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["a"]
    assert len(set(results)) == 1


def test_weights_follow_the_seed_and_leave_the_generator_alone():
    def build(seed):
        with drawn_from(seed, "a layer"):
            return nn.Linear(3, 2)

    state = torch.get_rng_state()
    first, again, other = build(0), build(0), build(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    with pytest.raises(KeyError), drawn_from(0, "a layer"):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)


def test_random_weights_are_logged(caplog):
    with drawn_from(7, "ViT"):
        pass
    assert "ViT has random weights, drawn from random_state=7" in caplog.text


def test_fingerprints_tell_weights_and_architectures_apart():
    with drawn_from(0, "a model"):
        model = nn.Sequential(nn.Linear(3, 2), nn.GELU())
    same = nn.Sequential(nn.Linear(3, 2), nn.GELU())
    same.load_state_dict(model.state_dict())
    expected = fingerprint(model, {"heads": 2})
    assert fingerprint(same, {"heads": 2}) == expected
    assert fingerprint(same, {"heads": 4})["architecture"] != expected["architecture"]
    same[1] = nn.ReLU()
    assert fingerprint(same, {"heads": 2})["architecture"] != expected["architecture"]
    same[1] = nn.GELU()
    same[1].register_buffer("mask", torch.zeros(2), persistent=False)
    masked = fingerprint(same, {"heads": 2})
    same[1].mask[1] = 1
    assert fingerprint(same, {"heads": 2})["weights"] != masked["weights"]
    with torch.no_grad():
        model[0].bias[1] += 1e-6
    assert fingerprint(model, {"heads": 2})["weights"] != expected["weights"]
    for dtype in (torch.bfloat16, torch.float64):
        assert fingerprint(model.to(dtype), None)


def test_folders_with_a_checkpoint_are_recognised(tmp_path):
    assert not has_no_weights("ViT-B-32")
    (tmp_path / "config.json").touch()
    assert has_no_weights(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    assert not has_no_weights(str(tmp_path))
