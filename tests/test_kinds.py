"""A new kind of velocity field is a module of its own and a line in one table."""

import pickle

import numpy as np
import pytest
import torch

import flowalign
from flowalign import FlowMatchingAligner
from flowalign.datasets import few_shot
from flowalign.fields import KINDS, VelocityField, kind_of

FIT_KNOWS = {"prior", "pool", "seeds", "device"} | set(FlowMatchingAligner().get_params())


@pytest.fixture
def inert(monkeypatch):
    monkeypatch.setitem(KINDS, "inert", "inert_field")


def test_it_fits_predicts_and_is_kept(inert, data, tmp_path):
    aligner = FlowMatchingAligner(data.class_embeddings, velocity_field="inert", noise=0.25)
    aligner.fit(data.X_train, data.y_train)
    unit = data.X_test / np.linalg.norm(data.X_test, axis=1, keepdims=True)
    centre = aligner.class_embeddings_.mean(axis=0)
    moved = aligner.set_params(n_steps=1, step_size=0.4).transform(data.X_test)
    np.testing.assert_allclose(moved, unit + 0.4 * 0.75 * (centre - unit), atol=1e-6)
    assert aligner.score(data.X_test, data.y_test) > 0.9
    assert aligner.stop_source_ == "cross-fitting"
    flowalign.save(aligner, tmp_path / "model")
    for again in (flowalign.load(tmp_path / "model"), pickle.loads(pickle.dumps(aligner))):
        np.testing.assert_array_equal(again.transform(data.X_test), moved)


def test_it_says_where_it_stops_with_one_sample_a_class(inert, data):
    X, y = few_shot(data.X_train, data.y_train, 1, random_state=0)
    aligner = FlowMatchingAligner(data.class_embeddings, velocity_field="inert").fit(X, y)
    assert aligner.stop_time_ == pytest.approx(0.3)


def test_a_file_of_an_unknown_kind_is_refused(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(KINDS, "inert", "inert_field")
        aligner = FlowMatchingAligner(data.class_embeddings, velocity_field="inert")
        flowalign.save(aligner.fit(data.X_train, data.y_train), tmp_path / "model")
    with pytest.raises(ValueError, match="no aligner that can be restored"):
        flowalign.load(tmp_path / "model")


@pytest.mark.parametrize("name", list(KINDS))
def test_a_kind_asks_for_what_its_fit_takes(name):
    kind = kind_of(name)
    assert issubclass(kind.field, VelocityField)
    assert set(kind.settings) <= FIT_KNOWS
    assert set(kind.without_effect) <= set(kind.settings)


def test_one_shot_stops_are_those_of_the_documentation():
    assert kind_of("gaussian").one_shot_stop == 0.5
    assert kind_of("mlp").one_shot_stop == 0.2


@pytest.mark.parametrize("name", list(KINDS))
def test_arrays_of_a_memory_map_make_a_field_again(name, data):
    """They may not be written, which torch does not know of its tensors."""
    aligner = FlowMatchingAligner(velocity_field=name, max_iter=1, n_steps=1, logit_scale=1)
    field = aligner.fit(data.X_train, data.y_train).velocity_field_
    state = field.__getstate__()
    for array in state["weights"].values():
        array.flags.writeable = False
    again = type(field).__new__(type(field))
    again.__setstate__(state)
    for name, weight in field.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight.cpu())


def test_unlabelled_rows_are_for_kinds_that_take_them_in(inert, data):
    aligner = FlowMatchingAligner(velocity_field="inert")
    with pytest.raises(ValueError, match="velocity_field='inert' takes no X_unlabeled"):
        aligner.fit(data.X_train, data.y_train, X_unlabeled=data.X_test)
