"""A stranger's file that names an encoder makes nothing happen but what open_clip itself lists."""

import copy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import flowalign
from flowalign.encoders import clap, clip
from flowalign.persistence import load_encoder
from flowalign.persistence.encoder_loading import WELL_KNOWN
from flowalign.persistence.file_format import pack, read

FILE = Path(__file__).parent / "models" / "gaussian_format_2.safetensors"
HEADER, ARRAYS, _ = read(FILE)
CLAP = {
    "kind": "clap",
    "params": {
        "n_views": 1, "random_state": 0, "sampling_rate": 48_000,
        "model_name": "laion/clap-htsat-unfused", "pretrained": None,
    },
    "local": [],
    "identity": HEADER["encoder"]["identity"],
}  # fmt: skip

watching: list[Path] = []  # the one file that may be opened; empty while nothing is watched


def audit(event, arguments):
    """Fail if anything is run, imported, fetched or opened while a file is watched."""
    if not watching or (event == "open" and str(arguments[0]) == str(watching[0])):
        return
    whole = ("open", "import", "exec", "compile", "os.system", "os.exec", "pickle.find_class")
    if event in whole or event.startswith(("socket.", "urllib.", "subprocess.")):
        raise AssertionError(f"{event} {arguments}")


sys.addaudithook(audit)


@pytest.fixture
def library(monkeypatch):
    """A library that lists a model with its weights, and can do nothing else."""
    listed = {"ViT-B-32": ["openai"], "RN50": ["openai", "yfcc15m"]}
    open_clip = SimpleNamespace(
        list_models=lambda: [*listed], list_pretrained_tags_by_model=lambda m: listed.get(m, [])
    )
    monkeypatch.setitem(sys.modules, "open_clip", open_clip)
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))


@pytest.fixture
def written(tmp_path, library, monkeypatch):
    """Writes a file with an entry; whoever loads a model's weights is told."""
    loaded = []

    def load(*arguments):
        loaded.append(arguments[:2])
        raise InterruptedError("as far as this")

    monkeypatch.setattr(clip, "_load", load)
    monkeypatch.setattr(clap, "_load", load)
    path = tmp_path / "model"

    def write(entry):
        path.write_bytes(pack(HEADER | {"encoder": entry}, ARRAYS))
        loaded.clear()
        return path

    write.loaded = loaded
    yield write
    watching.clear()


def refused(path, match=None, **given):
    """Whether no encoder is made, and nothing is run, opened or fetched on the way."""
    watching.append(path)
    try:
        with pytest.raises(ValueError, match=match) as caught:
            load_encoder(path, **given)
    finally:
        watching.clear()
    assert len(str(caught.value)) < 1000


def changed(entry, **params):
    return entry | {"params": entry["params"] | params}


NO_NAMES = [
    "/etc/passwd", "../../etc/passwd", "~/model", "C:\\model", "\\\\server\\model", "model/..",
    "local-dir:/tmp/model", "local-dir:model", "hf-hub:", "hf-hub:model", "hf-hub:a/b/c",
    "hf-hub:../a", "hf-hub:a/..", "hf-hub:https://example.org/a", "https://example.org/model",
    "file:///etc/passwd", "example.org:80/model", "a/b/c", "", " ", ".", "..", "-", "ViT-B-32\n",
    "ViT-B-32\0", "\u202eViT-B-32", "ViT B 32", "$HOME", "%s", "{0}", "__import__('os')",
    "a" * 10**6, 1, 1.0, True, [], ["ViT-B-32"], {}, {"name": "ViT-B-32"},
]  # fmt: skip


@pytest.mark.parametrize("parameter", ["model_name", "pretrained"])
@pytest.mark.parametrize("kind", ["open_clip", "clap"])
def test_names_that_are_none(parameter, kind, written):
    entry = HEADER["encoder"] if kind == "open_clip" else CLAP
    for name in NO_NAMES:
        path = written(changed(entry, **{parameter: name}))
        refused(path, rf"encoder\.params\.{parameter} is")
        with pytest.raises(ValueError, match=rf"encoder\.params\.{parameter} is"):
            flowalign.load(path)
    assert written.loaded == []


@pytest.mark.parametrize("kind", ["open_clip", "clap"])
def test_other_values_that_are_none(kind, written):
    entry = HEADER["encoder"] if kind == "open_clip" else CLAP
    hashes = entry["identity"]
    wrong = [
        *(entry | {"kind": k} for k in ("pickle", "os.system", "", "callable", None, 1, [], {})),
        *(changed(entry, n_views=n) for n in (0, -1, 1001, 10**30, 1.0, True, "1", None)),
        *(changed(entry, random_state=n) for n in (-1, 2**32, 0.0, None)),
        *(entry | {"local": v} for v in (None, "model_name", {}, ["device"], ["pretrained"] * 2)),
        *(entry | {"local": v} for v in ([["pretrained"]], ["pretrained", "model_name"])),
        entry | {"local": ["model_name"]},  # which has a name
        changed(entry, model_name=None),  # and none has a place
        *(entry | {"identity": hashes | {"weights": v}} for v in ("", "0" * 63, "g" * 64, 0, None)),
        *(entry | {"identity": v} for v in (None, [], {}, hashes | {"more": "0" * 64})),
        *(entry | {"params": v} for v in (None, [], {}, entry["params"] | {"cache": "/tmp/x"})),
        *(changed(entry, **{name: 1}) for name in ("device", "function", "verbose")),
        *({k: v for k, v in entry.items() if k != name} for name in entry),
        entry | {"code": "import os"},
        *([], "ViT-B-32", 1, None, {}),
    ]
    for altered in wrong:
        path = written(altered)
        refused(path, "names no encoder that can be made")
        with pytest.raises(ValueError, match="holds no aligner that can be restored"):
            flowalign.load(path)
    assert written.loaded == []


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"model_name": "RN51"}, "names the model 'RN51', which open_clip lacks"),
        ({"pretrained": "stranger"}, "weights 'stranger' of ViT-B-32, which open_clip lacks"),
        ({"pretrained": "yfcc15m"}, "weights 'yfcc15m' of ViT-B-32, which"),  # those of another
        ({"pretrained": "w.pt"}, "weights 'w.pt' of ViT-B-32, which"),  # may be a file here
    ],
)
def test_what_open_clip_does_not_list(params, said, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").touch()
    refused(written(changed(HEADER["encoder"], **params)), said)
    assert written.loaded == []


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (changed(HEADER["encoder"], model_name="hf-hub:stranger/a", pretrained=None), "hf-hub:str"),
        (changed(CLAP, model_name="stranger/a"), "stranger/a"),
        (changed(CLAP, pretrained="stranger/weights"), "stranger/weights"),
    ],
    ids=["open_clip", "clap", "weights"],
)
def test_a_repository_that_the_file_chose_is_not_asked(entry, name, written):
    refused(written(entry), f"names {name}.*, a repository of a hub that its writer chose")
    assert written.loaded == []


def test_a_repository_that_its_user_names_too(written):
    path = written(changed(CLAP, model_name="stranger/a"))
    with pytest.raises(InterruptedError):
        load_encoder(path, model_name="stranger/a")
    assert written.loaded == [("stranger/a", None)]


def test_what_is_published_is_loaded(written):
    for entry in (HEADER["encoder"], *(changed(CLAP, model_name=name) for name in WELL_KNOWN)):
        params = entry["params"]
        path = written(entry)
        with pytest.raises(InterruptedError):
            load_encoder(path)
        assert written.loaded == [(params["model_name"], params["pretrained"])]


def test_a_place_that_is_not_told_is_asked_for(written):
    entry = changed(HEADER["encoder"], pretrained=None) | {"local": ["pretrained"]}
    refused(written(entry), r"a checkpoint \(--pretrained\) of your own, .*give pretrained")
    entry = changed(entry, model_name=None) | {"local": ["model_name", "pretrained"]}
    refused(written(entry), "give model_name and pretrained")
    refused(written(entry), "give pretrained", model_name="RN50")
    assert written.loaded == []
    with pytest.raises(InterruptedError):  # which brings its own
        load_encoder(written(entry), model_name="local-dir:here")
    assert written.loaded == [("local-dir:here", None)]


def test_files_without_an_entry(written, tmp_path):
    header = {key: value for key, value in HEADER.items() if key != "encoder"}
    path = tmp_path / "model"
    path.write_bytes(pack(header, ARRAYS))
    refused(path, "was saved without an encoder")
    assert flowalign.load(path).classes_.tolist() == ["ant", "bee", "cat"]
    for name in ("gaussian", "mlp"):
        refused(FILE.with_name(f"{name}_format_1.safetensors"), "was saved without an encoder")


def test_format_1_has_no_entry(tmp_path):
    header, arrays, _ = read(FILE.with_name("gaussian_format_1.safetensors"))
    altered = copy.deepcopy(header) | {"encoder": HEADER["encoder"]}
    (tmp_path / "model").write_bytes(pack(altered, arrays))
    with pytest.raises(ValueError, match="header has unknown keys"):
        flowalign.load(tmp_path / "model")
