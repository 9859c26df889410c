"""Samples are judged by fields and targets that have not seen them."""

import numpy as np
import pytest
import torch

from flowalign.coupling import Coupling
from flowalign.fields import Fitted, kind_of
from flowalign.held_out import folds, hold_out
from flowalign.network import MLPField

C, D = 6, 12
E = np.random.default_rng(0).normal(size=(C, 5))


def coupling(n_shots, E=E, joint=False):
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(C), n_shots)
    X = (rng.normal(size=(C, D)) if E is None or not joint else E)[codes]
    return Coupling.by_class(X + rng.normal(size=X.shape), codes, E, joint)


GAUSSIAN, NETWORK = kind_of("gaussian"), kind_of("mlp")


def closed_form(pairs):
    return GAUSSIAN.fit(pairs, prior=np.full(C, 1 / C), noise=0.3, device="cpu")


def network(pairs):
    """Stand in for training: what it was fitted to is kept beside it."""
    field = MLPField(pairs.X.shape[1], 8, 1)
    field.seen = {row.tobytes() for row in pairs.X}
    return Fitted(field, [0.0])


def never(pairs):
    raise AssertionError("the closed form needs no other fit")


def test_validation_data_are_taken_as_they_are():
    pairs = coupling(2)
    fitted = network(pairs)
    X_val, codes = np.ones((4, D)), np.array([0, 0, 1, 5])
    source, (part,) = hold_out(NETWORK, fitted, pairs, (X_val, codes), never)
    assert source == "validation data"
    assert part.flow is fitted.field
    assert part.x.dtype == part.targets.dtype == torch.float32  # as the field, not as the arrays
    np.testing.assert_array_equal(part.x, X_val.astype(np.float32))
    np.testing.assert_array_equal(np.sort(part.codes), codes)
    np.testing.assert_allclose(part.targets, pairs.targets, rtol=1e-6)


def test_cross_fitting_never_judges_a_sample_by_a_field_that_saw_it():
    pairs = coupling(5)
    source, parts = hold_out(NETWORK, network(pairs), pairs, None, network)
    assert source == "cross-fitting"
    assert len(parts) == NETWORK.max_folds == 2
    for part, rows in zip(parts, folds(pairs), strict=False):
        judged = {row.tobytes() for row in pairs.X[rows]}
        assert len(part.x) == len(rows) == len(judged)
        np.testing.assert_allclose(np.sort(part.x[:, 0]), np.sort(pairs.X[rows, 0]), rtol=1e-6)
        assert part.flow.seen == {row.tobytes() for row in pairs.X} - judged
        np.testing.assert_allclose(part.targets, pairs.without(rows).targets, rtol=1e-5)


@pytest.mark.parametrize(("joint", "n_parts"), [(True, 1), (False, 4)])
def test_leaving_one_out(joint, n_parts):
    pairs = coupling(3, joint=joint)
    fitted = closed_form(pairs)
    source, parts = hold_out(GAUSSIAN, fitted, pairs, None, never)
    assert source == "leave-one-out"
    assert len(parts) == n_parts
    held = [np.arange(18)] if joint else folds(pairs)
    for part, rows in zip(parts, held, strict=True):
        np.testing.assert_array_equal(part.x, pairs.X[rows].astype(np.float32))
        np.testing.assert_array_equal(part.codes, pairs.codes[rows])
        expected = pairs if joint else pairs.without(rows)
        np.testing.assert_allclose(part.targets, expected.targets, rtol=1e-4, atol=1e-6)
        carried_to = part.flow.rotate_back(part.flow.field.targets)
        np.testing.assert_allclose(carried_to, part.targets, atol=1e-5)


def test_one_shot():
    """Nothing tells a sample's class but its name; without one nothing can be said."""
    with_text, without = coupling(1), coupling(1, E=None)
    for kind, fit in ((GAUSSIAN, closed_form), (NETWORK, network)):
        source, parts = hold_out(kind, fit(with_text), with_text, None, fit)
        assert source == "held-out classes"
        held = folds(with_text)[: kind.max_folds]
        assert sum(len(part.x) for part in parts) == sum(map(len, held))
        assert hold_out(kind, fit(without), without, None, fit) == ("nothing", [])


def test_two_samples_a_class_are_held_out_one_by_one():
    pairs = coupling(2)
    for kind, fit, source in (
        (GAUSSIAN, closed_form, "leave-one-out"),
        (NETWORK, network, "cross-fitting"),
    ):
        found, parts = hold_out(kind, fit(pairs), pairs, None, fit)
        assert found == source
        held = folds(pairs)[: kind.max_folds]
        assert sum(len(part.x) for part in parts) == sum(map(len, held))


def test_many_samples_are_judged_in_blocks():
    """Of about a thousand rows; each is judged once, beside its own class."""
    pairs = coupling(2)
    X_val = np.random.default_rng(2).normal(size=(2500, D))
    codes = np.random.default_rng(3).integers(C, size=2500)
    _, parts = hold_out(NETWORK, network(pairs), pairs, (X_val, codes), never)
    assert [len(part.x) for part in parts] == [1024, 1024, 452]
    np.testing.assert_array_equal(
        np.concatenate([part.x for part in parts]), X_val.astype(np.float32)
    )
    np.testing.assert_array_equal(np.concatenate([part.codes for part in parts]), codes)


@pytest.mark.parametrize("joint", [True, False])
def test_a_set_of_one_sample_says_nothing(joint):
    one = Coupling.by_class(E[:1] if joint else np.ones((1, D)), np.array([0]), E, joint)
    for kind, fit in ((GAUSSIAN, closed_form), (NETWORK, network)):
        assert hold_out(kind, fit(one), one, None, fit) == ("nothing", [])


def test_copies_are_cross_fitted_in_closed_form_too():
    """Taking one of two equal samples out of a model in closed form would leave the other."""
    pairs = coupling(3)
    twice = Coupling.by_class(np.repeat(pairs.X, 2, axis=0), np.repeat(pairs.codes, 2), E, False)
    source, parts = hold_out(GAUSSIAN, closed_form(twice), twice, None, closed_form)
    assert source == "cross-fitting"
    judged = np.concatenate([part.x.numpy() for part in parts])  # each once, as without copies
    assert sorted(map(bytes, judged)) == sorted(map(bytes, pairs.X.astype(np.float32)))


def test_very_many_validation_samples_keep_their_proportions(monkeypatch):
    monkeypatch.setattr("flowalign.blocks.MAX_HELD_OUT_ENTRIES", 100 * D)
    pairs = coupling(2)
    codes = np.repeat([0, 1, 2], [800, 150, 50])
    _, (part,) = hold_out(NETWORK, network(pairs), pairs, (np.ones((1000, D)), codes), never)
    assert np.abs(np.bincount(part.codes) - [80, 15, 5]).max() <= 1


def test_many_classes_leave_room_for_fewer_samples(monkeypatch):
    """As wide features do: there is one cosine for each class."""
    monkeypatch.setattr("flowalign.blocks.MAX_HELD_OUT_ENTRIES", 60)
    X = np.random.default_rng(0).normal(size=(12, 3))
    for n_classes, n_rows in ((2, 20), (6, 10)):
        pairs = Coupling.by_class(X, np.arange(12) % n_classes, E[:n_classes], False)
        fitted, X_val = network(pairs), (np.ones((50, 3)), np.arange(50) % 2)
        _, (part,) = hold_out(NETWORK, fitted, pairs, X_val, never)
        assert len(part.x) == n_rows


def test_no_part_is_empty(monkeypatch):
    """When samples are thinned, those of a fold may all be among the others."""
    pairs = coupling(2)
    fitted = closed_form(pairs)
    monkeypatch.setattr("flowalign.blocks.MAX_HELD_OUT", 1)
    parts = hold_out(GAUSSIAN, fitted, pairs, None, never)[1]
    assert [len(part.x) for part in parts] == [1]


def test_single_samples_of_a_mixed_set_are_not_judged():
    X = np.random.default_rng(0).normal(size=(8, D))
    pairs = Coupling.by_class(X, np.array([0, 1, 2, 3, 4, 5, 5, 5]), E, False)
    for kind, fit in ((GAUSSIAN, closed_form), (NETWORK, network)):
        _, parts = hold_out(kind, fit(pairs), pairs, None, fit)
        n_held_out = 3 if fit is closed_form else kind.max_folds  # of class 5, one in each fold
        assert np.concatenate([part.codes for part in parts]).tolist() == [5] * n_held_out
