"""Features whose common part is thousands of times what tells classes apart."""

import numpy as np
import pytest

from flowalign import FlowMatchingAligner


def offset_classes(n_classes, offset, dtype, per_class=8):
    """X, y of Gaussian classes of unit spread far from the origin, in `dtype`."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((n_classes, 64)) + offset * rng.standard_normal(64)
    y = np.repeat(np.arange(n_classes), per_class)
    return (means[y] + rng.standard_normal((len(y), 64))).astype(dtype), y


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("n_classes", [2, 6])
@pytest.mark.parametrize("offset", [3_000, 30_000])
def test_a_common_part_takes_no_digits_from_the_read_out(offset, n_classes, normalize):
    X, y = offset_classes(n_classes, offset, np.float32, 58)
    train = np.arange(len(y)) % 58 < 8
    model = FlowMatchingAligner(normalize=normalize).fit(X[train], y[train])
    assert model.stop_scores_["accuracy"].min() > 0.95  # on samples held out in float32
    for n_steps in (0, 5):
        model.set_params(n_steps=n_steps)
        labels = model.predict(X[~train])
        assert (labels == y[~train]).mean() > 0.99
        # Of a limited temperature probabilities are nearly equal here; none is larger.
        proba = model.predict_proba(X[~train])
        np.testing.assert_array_equal(proba[np.arange(len(labels)), labels], proba.max(axis=1))
    if n_classes == 2:
        np.testing.assert_array_equal(model.decision_function(X[~train]) > 0, labels == 1)


@pytest.mark.parametrize("offset", [0, 100, 30_000])
def test_scores_are_never_in_another_order_than_probabilities(offset):
    X, y = offset_classes(6, offset, np.float32)
    model = FlowMatchingAligner().fit(X, y)
    scores, labels = model.decision_function(X), model.predict(X)
    np.testing.assert_array_equal(scores[np.arange(len(y)), labels], scores.max(axis=1))
