"""What is saved comes back to the bit; what is not a model is refused."""

import copy
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flowalign
from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import make_cross_modal
from flowalign.fields import VelocityField
from flowalign.persistence import SKOPS_TRUSTED, contents
from flowalign.persistence.file_format import pack, read

FIXTURES = Path(__file__).parent / "models"


def equal(a, b):
    """Whether two attributes are the same to the bit, types included."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, ClassEmbeddings | VelocityField):
        equal(a.__getstate__(), b.__getstate__())
    elif hasattr(a, "rotation"):
        equal(vars(a), vars(b))
    else:
        assert a == b


def the_same(a, b, X):
    assert set(vars(a)) == set(vars(b))
    for name, value in vars(a).items():
        equal(value, getattr(b, name))
    for method in ("predict", "predict_proba", "transform", "decision_function"):
        equal(getattr(a, method)(X), getattr(b, method)(X))


def round_trip(model, tmp_path):
    path = tmp_path / "model"
    flowalign.save(model, path)
    return flowalign.load(path)


@pytest.fixture
def saved(fitted, tmp_path):
    flowalign.save(fitted, tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(fitted, data, tmp_path):
    the_same(fitted, round_trip(fitted, tmp_path), data.X_test)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text", ["joint", "mapped", "none"])
def test_round_trip_of_spaces(small, text, dtype, tmp_path):
    widths = {"joint": text == "joint", "n_text_features": None if text == "joint" else 12}
    data = make_cross_modal(5, n_features=16, **widths, random_state=0)
    table = None if text == "none" else data.class_embeddings
    model = small(table, n_steps="auto", logit_scale="auto")
    model.fit(data.X_train.astype(dtype), data.y_train)
    loaded = round_trip(model, tmp_path)
    the_same(model, loaded, data.X_test.astype(dtype))
    again = loaded.fit(data.X_train.astype(dtype), data.y_train)
    equal(again.predict_proba(data.X_test), model.predict_proba(data.X_test))


@pytest.mark.parametrize(
    "classes",
    [
        np.array([2, 3, 5, 7]),
        np.array([-1, 0, 4, 9], dtype=np.int8),
        np.array([-1.0, 0.0, 3.0, 1e6]),
        np.array(["a", "b", "ü", "日本"]),
        np.array(["a", "b", "c", "d"], dtype="<U30"),
        np.array(["a", "b", "c", "d e"], dtype=object),
        np.array([2, 3, 5, 7], dtype=">i4"),
    ],
    ids=lambda classes: classes.dtype.str,
)
def test_labels_keep_their_dtype(classes, tmp_path):
    data = make_cross_modal(4, n_train=3, n_features=8, random_state=0)
    codes = np.searchsorted(data.class_embeddings.classes, data.y_train)
    model = FlowMatchingAligner().fit(data.X_train, classes[codes])
    loaded = round_trip(model, tmp_path)
    assert loaded.classes_.dtype == model.classes_.dtype.newbyteorder("=")
    np.testing.assert_array_equal(loaded.predict(data.X_test), model.predict(data.X_test))


def test_two_classes_of_truth_values(tmp_path):
    data = make_cross_modal(2, n_train=3, n_features=8, random_state=0)
    model = FlowMatchingAligner().fit(data.X_train, data.y_train == "class 1")
    assert round_trip(model, tmp_path).predict(data.X_test).dtype == bool


def test_feature_names_priors_and_parameters_of_numpy(data, tmp_path):
    frame = pd.DataFrame(data.X_train, columns=[f"feature {k}" for k in range(32)])
    prior = dict(zip(data.class_names, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1], strict=True))
    model = FlowMatchingAligner(
        data.class_embeddings.to_dict(), class_prior=prior, noise=np.float64(0.5),
        n_steps=np.int64(3), random_state=np.int32(4), memory=str(tmp_path / "cache"),
    ).fit(frame, data.y_train)  # fmt: skip
    loaded = round_trip(model, tmp_path)
    assert loaded.feature_names_in_.tolist() == list(frame)
    assert loaded.memory is None
    assert loaded.get_params()["noise"] == 0.5
    assert type(loaded.n_steps) is int
    equal(loaded.class_embeddings, data.class_embeddings)
    np.testing.assert_array_equal(loaded.class_prior, list(prior.values()))
    X = frame.iloc[:5]
    equal(loaded.predict_proba(X), model.predict_proba(X))
    loaded.fit(frame, data.y_train)
    equal(loaded.predict_proba(X), model.predict_proba(X))


def test_the_path_is_used_as_given(fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("model", Path("with.two.dots"), "ümlaut.safetensors"):
        flowalign.save(fitted, path)
        flowalign.save(fitted, str(path))  # in its own place
        flowalign.load(path)
    assert sorted(os.listdir()) == ["model", "with.two.dots", "ümlaut.safetensors"]


def test_a_save_that_fails_leaves_what_was_there(fitted, saved, monkeypatch):
    before = saved.read_bytes()

    def full(self, path):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        flowalign.save(fitted, saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["model"]


def test_files_of_the_same_model_are_the_same(fitted, tmp_path):
    for name in ("a", "b"):
        flowalign.save(fitted, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_cannot_be_saved(fitted, data, tmp_path, monkeypatch):
    path = tmp_path / "model"
    with pytest.raises(NotFittedError):
        flowalign.save(FlowMatchingAligner(), path)
    with pytest.raises(TypeError, match=r"FlowMatchingAligner, got Pipeline.*skops"):
        flowalign.save(make_pipeline(StandardScaler(), fitted), path)
    model = copy.deepcopy(fitted).set_params(random_state=np.random.RandomState(0))
    with pytest.raises(TypeError, match=r"set_params\(random_state="):
        flowalign.save(model, path)
    days = np.arange(6).astype("datetime64[D]")
    codes = np.searchsorted(data.class_names, data.y_train)
    for labels, error in ((days, TypeError), (days.astype(object), TypeError)):
        model = copy.deepcopy(fitted)
        model.classes_ = labels
        with pytest.raises(error, match="strings or numbers"):
            flowalign.save(model, path)
    monkeypatch.setattr(contents, "MAX_PADDED", 1000)
    model = FlowMatchingAligner().fit(data.X_train, np.array(data.class_names, "<U200")[codes])
    with pytest.raises(ValueError, match="need 7 characters"):
        flowalign.save(model, path)
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_the_cpu(saved, data):
    header, arrays, _ = read(saved)
    for device in ("cuda:63", "meta", "no such thing"):
        header["fitted"]["device"] = device
        saved.write_bytes(pack(header, arrays))
        loaded = flowalign.load(saved)
        assert loaded.device_ == "cpu"
        assert len(loaded.predict(data.X_test)) == len(data.X_test)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_across_devices(data, tmp_path):
    model = FlowMatchingAligner(device="cuda").fit(
        data.X_train, data.y_train, data.class_embeddings
    )
    loaded = round_trip(model, tmp_path)
    assert loaded.device_.startswith("cuda")
    equal(loaded.predict_proba(data.X_test), model.predict_proba(data.X_test))


@pytest.mark.parametrize("name", ["gaussian", "mlp"])
def test_files_of_format_1_open(name):
    """Written by flowalign 0.1; see models/make.py."""
    loaded = flowalign.load(FIXTURES / f"{name}_format_1.safetensors")
    assert loaded.velocity_field == name
    assert loaded.classes_.tolist() == ["ant", "bee", "cat"]
    with np.load(FIXTURES / f"{name}_format_1.npz") as expected:
        found = loaded.predict_proba(expected["X"])
        np.testing.assert_allclose(found, expected["proba"], rtol=1e-4, atol=1e-6)


# Files that are no models.


def refused(path, match=None):
    with pytest.raises(ValueError, match=match):
        flowalign.load(path)


def test_foreign_files(tmp_path, fitted):
    path = tmp_path / "model"
    with pytest.raises(FileNotFoundError):
        flowalign.load(path)
    with pytest.raises(OSError):  # noqa: PT011
        flowalign.load(tmp_path)
    for content in (b"", b"short", b"\0" * 100, pickle.dumps(fitted), b"PK\x03\x04" + b"\0" * 99):
        path.write_bytes(content)
        refused(path, "not a safetensors file|damaged")
    save_file({"weight": np.ones(3)}, path)
    refused(path, "no aligner: a safetensors file of something else")
    save_file({"weight": np.ones(3)}, path, {"flowalign": "{"})
    refused(path, "damaged header")
    save_file({"weight": np.ones(3)}, path, {"flowalign": "[" * 100_000})
    refused(path, "damaged")


@pytest.mark.parametrize("length", [2**63, 2**40, 2**27, 10_000])
def test_huge_headers_allocate_nothing(length, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(length.to_bytes(8, "little") + b"{}" * 100)
    tracemalloc.start()
    refused(path, "not a safetensors file")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_cut_off_anywhere(saved):
    data = saved.read_bytes()
    for end in np.random.default_rng(0).integers(len(data), size=100):
        saved.write_bytes(data[:end])
        refused(saved)
    saved.write_bytes(data + b"\0")
    refused(saved)


def test_any_byte_altered(saved):
    data = saved.read_bytes()
    rng = np.random.default_rng(0)
    n_header = int.from_bytes(data[:8], "little") + 8
    places = [*range(8), *rng.integers(8, n_header, size=300), *rng.integers(len(data), size=100)]
    for place in places:
        altered = bytearray(data)
        altered[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(altered)
        if place >= n_header or altered[place] not in b" \t\n\r" or data[place] not in b" \t\n\r":
            refused(saved)


def walk(value, path=()):
    """All places of a header."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from walk(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from walk(value[0], (*path, 0))


def changed(header, path, change):
    header = copy.deepcopy(header)
    if not path:
        return change(header)
    at = header
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = change(at[path[-1]])
    return header


HOSTILE = [
    None,
    True,
    -1,
    0,
    10**30,
    -0.5,
    1e308,
    "",
    "x",
    "__import__('os')",
    [],
    [[]],
    {},
    {"a": 1},
]


def test_headers_altered_with_a_right_checksum(saved, data):
    """Each value of the header replaced by others: refused, or an aligner that predicts."""
    header, arrays, _ = read(saved)
    n_refused = n_opened = 0
    said = set()
    for path in walk(header):
        for value in HOSTILE:
            altered = changed(header, path, lambda _, value=value: value)
            if altered == header:
                continue
            saved.write_bytes(pack(altered, arrays))
            try:
                loaded = flowalign.load(saved)
            except ValueError:
                n_refused += 1
            else:
                n_opened += 1
                try:
                    loaded.predict(data.X_test[:2])
                except ValueError as error:
                    said.add(str(error)[:20])
    assert said <= {"The flow left the ra", "n_steps='auto' was s"}
    assert n_refused > 5 * n_opened


def test_headers_with_missing_or_unknown_keys(saved):
    header, arrays, _ = read(saved)
    for path in walk(header):
        if path and isinstance(path[-1], str) and path[:1] != ("params",):
            altered = copy.deepcopy(header)
            at = altered
            for key in path[:-1]:
                at = at[key]
            del at[path[-1]]
            saved.write_bytes(pack(altered, arrays))
            refused(saved, "no aligner that can be restored")
        altered = changed(header, path, lambda v: v | {"new": 1} if isinstance(v, dict) else v)
        if altered != header:
            saved.write_bytes(pack(altered, arrays))
            refused(saved, "unknown keys")


def test_a_parameter_that_is_not_there_has_its_default(saved):
    """Files stay readable when a later minor version adds a parameter."""
    header, arrays, _ = read(saved)
    del header["params"]["noise"]
    saved.write_bytes(pack(header, arrays))
    assert flowalign.load(saved).noise == FlowMatchingAligner().noise


def test_arrays_altered_with_a_right_checksum(saved):
    header, arrays, _ = read(saved)
    changes = {
        "longer": lambda a: np.concatenate([a, a[:1]]),
        "flat": lambda a: a.reshape(-1, 1) if a.ndim == 1 else a.ravel(),
        "other dtype": lambda a: a.astype(np.float16 if a.dtype.kind == "f" else np.int16),
        "not a number": lambda a: np.full(
            a.shape, np.nan, a.dtype if a.dtype.kind == "f" else "f4"
        ),
        "infinite": lambda a: np.full(a.shape, np.inf, a.dtype if a.dtype.kind == "f" else "f4"),
    }
    for name, array in arrays.items():
        for change in changes.values():
            saved.write_bytes(pack(header, arrays | {name: change(array)}))
            if name == "class_embeddings" or array.size:
                refused(saved)
        saved.write_bytes(pack(header, {k: v for k, v in arrays.items() if k != name}))
        refused(saved)
    saved.write_bytes(pack(header, arrays | {"more": np.ones(2)}))
    refused(saved, "arrays that no aligner has")


def test_sizes_are_not_believed(tmp_path, data):
    """A header that asks for a network of 10^12 weights gets none."""
    model = FlowMatchingAligner(velocity_field="mlp", max_iter=1, n_steps=1, logit_scale=1)
    path = tmp_path / "model"
    flowalign.save(model.fit(data.X_train, data.y_train), path)
    header, arrays, _ = read(path)
    for name in ("hidden_dim", "n_blocks", "dim"):
        altered = copy.deepcopy(header)
        altered["field"]["config"][name] = 10**6
        path.write_bytes(pack(altered, arrays))
        refused(path, "field.config is")


def test_a_newer_format_says_so(saved):
    header, arrays, _ = read(saved)
    header |= {"format": 2, "version": "9.1"}
    saved.write_bytes(pack(header, arrays))
    refused(saved, r"format is 2.*written by flowalign '9\.1'")


def test_opening_unpickles_nothing():
    saved = FIXTURES / "mlp_format_1.safetensors"
    code = (
        "import pickle, sys, flowalign\n"
        "def no(*args, **kwargs): raise AssertionError('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = no\n"
        f"flowalign.load({str(saved)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Other ways to keep an aligner.


@pytest.mark.parametrize("module", [pickle, cloudpickle, joblib], ids=lambda m: m.__name__)
def test_pickles(module, fitted, data, tmp_path):
    if module is joblib:
        joblib.dump(fitted, tmp_path / "model")
        loaded = joblib.load(tmp_path / "model")
    else:
        loaded = module.loads(module.dumps(fitted))
    the_same(fitted, loaded, data.X_test)


def test_skops(fitted, data):
    text = skops.io.dumps(fitted)
    assert set(skops.io.get_untrusted_types(data=text)) <= set(SKOPS_TRUSTED)
    the_same(fitted, skops.io.loads(text, trusted=SKOPS_TRUSTED), data.X_test)


def test_the_file_is_a_plain_safetensors_file(saved):
    with safe_open(saved, framework="numpy") as file:
        _, header = json.loads(file.metadata()["flowalign"])
        assert json.loads(header)["format"] == 1
        assert "class_embeddings" in file.keys()  # noqa: SIM118
