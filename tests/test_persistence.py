"""What is saved comes back to the bit."""

import copy
import dataclasses
import json
import os
import pickle
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flowalign
from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import make_cross_modal
from flowalign.fields import VelocityField
from flowalign.persistence import allowed
from flowalign.persistence.file_format import pack, read


def equal(a, b):
    """Whether two attributes are the same to the bit, types included."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert sorted(a) == sorted(b)
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, ClassEmbeddings | VelocityField) or dataclasses.is_dataclass(a):
        equal(a.__getstate__(), b.__getstate__())
    else:
        assert a == b


def the_same(a, b, X):
    assert set(vars(a)) == set(vars(b))
    for name, value in a.__getstate__().items():
        equal(value, getattr(b, name))
    for method in ("predict", "predict_proba", "transform", "decision_function", "score_samples"):
        equal(getattr(a, method)(X), getattr(b, method)(X))


def round_trip(model, tmp_path):
    path = tmp_path / "model"
    flowalign.save(model, path)
    return flowalign.load(path)


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


@pytest.mark.parametrize("dtype", [">i4", ">f8", ">U3"])
def test_labels_of_class_embeddings_in_foreign_byte_order(dtype, data, tmp_path):
    codes = np.searchsorted(data.class_names, data.y_train).astype(dtype[1:])
    table = ClassEmbeddings(np.arange(6).astype(dtype), data.class_embeddings.vectors)
    model = FlowMatchingAligner(table).fit(data.X_train, codes)
    loaded = round_trip(model, tmp_path)
    assert loaded.classes_.dtype == np.dtype(dtype).newbyteorder("=")
    assert loaded.class_embeddings.labels.dtype.isnative
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
        device=torch.device("cpu"),
    ).fit(frame, data.y_train)  # fmt: skip
    loaded = round_trip(model, tmp_path)
    assert loaded.feature_names_in_.tolist() == list(frame)
    assert loaded.memory is None
    assert loaded.get_params()["noise"] == 0.5
    assert type(loaded.n_steps) is int
    assert loaded.device == "cpu"
    equal(loaded.class_embeddings, data.class_embeddings)
    np.testing.assert_array_equal(loaded.class_prior, list(prior.values()))
    X = frame.iloc[:5]
    equal(loaded.predict_proba(X), model.predict_proba(X))
    loaded.fit(frame, data.y_train)
    equal(loaded.predict_proba(X), model.predict_proba(X))


SETTINGS = [
    {"step_size": 0.3},
    {"n_steps": 2},
    {"n_steps": 2, "logit_scale": 7.0},
    {"step_size": 0.05, "n_steps": "auto"},
    {"solver": "midpoint"},
]


@pytest.mark.parametrize("before", [*SETTINGS, {"normalize": False}], ids=str)
def test_parameters_set_before_and_after(before, data, tmp_path):
    """What fit settled is kept beside parameters that were changed since; both go on alike."""
    X = 3 * data.X_test  # whether rows are normalised is seen
    model = FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)
    chosen = model.stop_time_
    model.set_params(**before)
    loaded = round_trip(model, tmp_path)
    the_same(model, loaded, X)
    for after in SETTINGS:
        model.set_params(**after)
        loaded.set_params(**after)
        assert loaded.stop_time_ == model.stop_time_
        the_same(model, loaded, X)
    assert loaded.set_params(n_steps="auto", step_size=0.1).stop_time_ == chosen


def test_features_that_are_not_normalised(data, tmp_path):
    model = FlowMatchingAligner(normalize=False).fit(data.X_train, data.y_train)
    loaded = round_trip(model.set_params(normalize=True), tmp_path)
    the_same(model, loaded, 3 * data.X_test)


def test_a_stop_that_was_not_chosen(data, tmp_path):
    model = FlowMatchingAligner(n_steps=2, logit_scale=30.0).fit(data.X_train, data.y_train)
    loaded = round_trip(model, tmp_path)
    with pytest.raises(NotFittedError, match="no stop was chosen"):
        loaded.set_params(n_steps="auto").predict(data.X_test)
    with pytest.raises(NotFittedError, match="nothing was calibrated"):
        loaded.set_params(n_steps=0, logit_scale="auto").predict_proba(data.X_test)


def test_the_path_is_used_as_given(fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("model", Path("with.two.dots"), "ümlaut.safetensors"):
        flowalign.save(fitted, path)
        flowalign.save(fitted, str(path))  # in its own place
        flowalign.load(path)
    assert sorted(os.listdir()) == ["model", "with.two.dots", "ümlaut.safetensors"]


def test_a_save_that_fails_leaves_what_was_there(fitted, model_file, monkeypatch):
    before = model_file.read_bytes()

    def full(self, path):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        flowalign.save(fitted, model_file)
    assert model_file.read_bytes() == before
    assert os.listdir(model_file.parent) == ["model"]


def test_arrays_may_be_laid_out_column_by_column(tmp_path):
    rows = np.arange(6.0).reshape(2, 3)
    (tmp_path / "a").write_bytes(pack({}, {"x": np.asfortranarray(rows), "y": rows[:, ::2]}))
    _, arrays, _ = read(tmp_path / "a")
    equal(arrays, {"x": rows, "y": rows[:, ::2]})


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
    other = type("Other", (FlowMatchingAligner,), {})()
    with pytest.raises(TypeError, match="FlowMatchingAligner, got Other"):
        flowalign.save(other.fit(data.X_train, data.y_train), path)
    model = copy.deepcopy(fitted).set_params(random_state=np.random.RandomState(0))
    with pytest.raises(TypeError, match=r"set_params\(random_state="):
        flowalign.save(model, path)
    days = np.arange(6).astype("datetime64[D]")
    codes = np.searchsorted(data.class_names, data.y_train)
    for labels in (days, days.astype(object), np.arange(6).astype(np.longdouble)):
        if labels.dtype == np.float64:
            continue  # there is no longer one here
        model = copy.deepcopy(fitted)
        model.classes_ = labels
        with pytest.raises(TypeError, match="strings or numbers"):
            flowalign.save(model, path)
    monkeypatch.setattr(allowed, "MAX_PADDED", 100)
    model = FlowMatchingAligner().fit(data.X_train, np.array(data.class_names, "<U200")[codes])
    with pytest.raises(ValueError, match="need only 7 characters"):
        flowalign.save(model, path)
    assert not list(tmp_path.iterdir())
    flowalign.save(FlowMatchingAligner().fit(data.X_train, data.y_train), path)  # as wide as needed


def test_a_device_that_is_not_there_is_the_cpu(model_file, data):
    header, arrays, _ = read(model_file)
    for device in ("cuda:63", "meta", "no such thing"):
        header["fitted"]["device"] = device
        model_file.write_bytes(pack(header, arrays))
        loaded = flowalign.load(model_file)
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


# Other ways to keep an aligner.


@pytest.mark.parametrize("module", [pickle, cloudpickle, joblib], ids=lambda m: m.__name__)
def test_pickles(module, fitted, data, tmp_path):
    if module is joblib:
        joblib.dump(fitted, tmp_path / "model")
        loaded = joblib.load(tmp_path / "model")
    else:
        loaded = module.loads(module.dumps(fitted))
    the_same(fitted, loaded, data.X_test)


def test_the_file_is_a_plain_safetensors_file(model_file):
    with safe_open(model_file, framework="numpy") as file:
        _, header = json.loads(file.metadata()["flowalign"])
        assert json.loads(header)["format"] == 2
        assert "class_embeddings" in file.keys()  # noqa: SIM118
