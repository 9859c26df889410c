"""What lies on another device stays there, and says the same: shown by a stand-in for a GPU.

``pytest --second-device`` runs other tests on it too.
"""

import copy

import numpy as np
import pytest
import torch
from second_device import Placed, second_device

from flowalign import FlowMatchingAligner, MultiViewAligner, load, save
from flowalign.datasets import make_cross_modal

DATA = make_cross_modal(n_classes=4, n_train=6, n_test=5, n_features=16, random_state=0)
LABELLED = np.arange(len(DATA.X_train)) % 2 == 0


@pytest.fixture
def device():
    with second_device() as device:
        yield device


def quick(device, **params):
    known = {"max_iter": 2, "n_blocks": 1, "hidden_dim": 8, "random_state": 0}
    return FlowMatchingAligner(DATA.class_embeddings, device=device, **known | params)


def fit(aligner):
    X, y = DATA.X_train[LABELLED], DATA.y_train[LABELLED]
    return aligner.fit(X, y, X_unlabeled=DATA.X_train[~LABELLED])


def everywhere(aligner):
    """What the aligner says, as arrays."""
    X = DATA.X_test
    return {
        "proba": aligner.predict_proba(X),
        "states": aligner.trajectory(X),
        "scores": aligner.score_samples(X),
        "stages": np.array(list(aligner.staged_predict_proba(X))),
        "drawn": aligner.sample(3, labels=aligner.classes_, random_state=0)[0],
    }


def the_same(one, other):
    found = everywhere(one)
    for name, values in everywhere(other).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)


def test_tensors_of_the_device_meet_no_others(device):
    there, here = torch.ones(2, 2, device=device), torch.eye(2)
    assert torch.equal((there @ here.to(device)).cpu(), torch.ones(2, 2))
    for wrong in (lambda: there @ here, lambda: here + there, lambda: here[there.long()]):
        with pytest.raises(RuntimeError, match="on the CPU|of the CPU"):
            wrong()
    with pytest.raises(RuntimeError, match="numpy"):
        there.numpy()
    layer = torch.nn.Linear(2, 2).to(device).double()
    assert isinstance(layer(there.double()), Placed)


def test_a_fit_is_there_and_says_the_same(device, velocity_field):
    one, other = (fit(quick(place, velocity_field=velocity_field)) for place in (device, "cpu"))
    assert all(isinstance(w, Placed) for w in one.velocity_field_.state_dict().values())
    assert isinstance(one.gaussian_model_.within.basis, Placed)
    the_same(one, other)
    np.testing.assert_allclose(one.transduction_proba_, other.transduction_proba_, atol=1e-4)
    np.testing.assert_array_equal(one.transduction_, other.transduction_)


def test_so_does_what_goes_on_and_what_was_copied_or_stored(device, tmp_path):
    one, other = (fit(quick(place)) for place in (device, "cpu"))
    for aligner in (one, other):
        aligner.partial_fit(DATA.X_train[~LABELLED], DATA.y_train[~LABELLED])
        aligner.forget(DATA.X_train[:2], DATA.y_train[:2])
    the_same(one, other)
    save(one, tmp_path / "model")
    for again in (copy.deepcopy(one), load(tmp_path / "model")):
        assert again.device_ == str(device)
        the_same(again, one)


def test_float64_is_computed_in_float64(device, velocity_field):
    one, other = (fit(quick(place, velocity_field=velocity_field)) for place in (device, "cpu"))
    one.velocity_field_ = copy.deepcopy(other.velocity_field_).to(device)
    one._classifier = other._classifier.to(device)
    X = DATA.X_test.astype(np.float64)
    for method in ("predict_proba", "transform", "decision_function"):
        found, expected = (getattr(aligner, method)(X) for aligner in (one, other))
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


def test_a_copy_of_a_field_stays_where_it_is(device, velocity_field):
    field = fit(quick(device, velocity_field=velocity_field)).velocity_field_
    copied = copy.deepcopy(field)
    assert all(isinstance(w, Placed) for w in copied.state_dict().values())
    for name, weight in field.state_dict().items():
        assert torch.equal(copied.state_dict()[name], weight)
        weight.add_(1)
        assert not torch.equal(copied.state_dict()[name], weight)
    assert copied.config == field.config


def test_several_views(device):
    X, rows = np.hstack([DATA.X_train, DATA.X_train[:, ::-1]]), np.hstack([DATA.X_test] * 2)

    def views(place):
        pair = [("one", quick(place), slice(0, 16)), ("two", quick(place), slice(16, None))]
        return MultiViewAligner(pair).fit(X, DATA.y_train)

    one, other = views(device), views("cpu")
    np.testing.assert_allclose(one.view_weights_, other.view_weights_, rtol=1e-4)
    np.testing.assert_allclose(one.predict_proba(rows), other.predict_proba(rows), atol=1e-4)
