"""Witnesses are weighed by what they say of samples that they have not seen."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from flowalign import calibration
from flowalign.calibration import calibrate


def witnesses(n_witnesses, m=60, n_classes=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n_witnesses, m, n_classes))


def drawn(scores, seed=1):
    """Classes drawn from the softmax of scores."""
    noise = np.random.default_rng(seed).gumbel(size=scores.shape)
    return (scores + noise).argmax(axis=1)


def log_loss(weights, said, codes, offsets=0.0):
    scores = np.tensordot(weights, said, axes=1) + offsets
    return -log_softmax(scores, axis=1)[np.arange(len(codes)), codes]


@pytest.mark.parametrize("weights", [[2.0], [0.05, 0.6], [3.0, 0.2, 1.0]], ids=len)
def test_the_weights_that_made_the_labels_are_found(weights):
    said = witnesses(len(weights), m=20_000) / np.reshape(weights, (-1, 1, 1))
    codes = drawn(np.tensordot(weights, said, axes=1))
    found, loss = calibrate(list(said), codes, np.ones(len(weights)), np.full(len(weights), 0.5))
    np.testing.assert_allclose(found, weights, rtol=0.05)
    assert loss == pytest.approx(log_loss(found, said, codes).mean())


@pytest.mark.parametrize("n_samples", [1, 5, 60])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("n_witnesses", [1, 2, 3])
def test_they_are_the_stated_maximum(n_samples, scale, n_witnesses):
    """Of the likelihood under gamma priors, by a search that knows no derivatives."""
    said = scale * witnesses(n_witnesses, m=n_samples)
    codes = drawn(said.sum(axis=0) / scale)
    means, shapes = np.array([30.0, 0.5, 2.0])[:n_witnesses], np.array([0.5, 1, 16])[:n_witnesses]
    offsets = np.log([0.1, 0.3, 0.2, 0.2, 0.2])

    def penalised(logs):
        u = np.exp(logs)
        return log_loss(u * means, said, codes, offsets).sum() + (shapes * (u - logs)).sum()

    found, _ = calibrate(list(said), codes, means, shapes, offsets)
    start = np.log(found / means) + 0.3  # it is convex: from anywhere the same
    best = minimize(penalised, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    np.testing.assert_allclose(found, np.exp(best.x) * means, rtol=1e-3)


@pytest.mark.parametrize("share", [1.0, 1e-3])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_a_few_steps_are_enough(scale, share, monkeypatch):
    """Of Newton's, which double the digits, also where the prior is far off or a step too long."""
    said = witnesses(2, m=500)
    said[1] *= share
    codes = drawn(scale * said[0])
    exact = calibrate(list(said), codes, [1, 1], [0.5, 0.5])
    monkeypatch.setattr(calibration, "MAX_ITERATIONS", 12)
    few = calibrate(list(said), codes, [1, 1], [0.5, 0.5])
    np.testing.assert_allclose(few[0], exact[0], rtol=1e-6)


def test_a_few_right_samples_do_not_make_certainty():
    right, _ = calibrate([np.eye(4)], np.arange(4), [30], [0.5])
    assert right == pytest.approx(30, rel=0.01)
    wrong, _ = calibrate([np.eye(4)], np.array([1, 2, 3, 0]), [30], [0.5])
    assert wrong < 1
    one_class, loss = calibrate([np.eye(4)[:, :1]], np.zeros(4, dtype=int), [30], [0.5])
    assert (one_class, loss) == (pytest.approx(30), pytest.approx(0))


def test_a_witness_that_says_nothing_is_silenced_and_the_other_heard():
    said = witnesses(2, m=4000)
    codes = drawn(3 * said[0])
    found, _ = calibrate(list(said), codes, [1, 1], [0.5, 0.5])
    assert found[0] == pytest.approx(3, rel=0.1)
    assert found[1] < 0.1


def test_the_shape_is_what_the_mean_weighs():
    said = witnesses(1, m=20)
    codes = drawn(5 * said[0])
    loose, held = (calibrate(list(said), codes, [1], [shape])[0] for shape in (0.5, 1000))
    assert loose > 2
    assert held == pytest.approx(1, rel=0.02)


def test_fixed_weights_stay_and_are_scored():
    said, codes = witnesses(2), np.arange(60) % 5
    weights, loss = calibrate(list(said), codes, [3, 2], [0.5, 0.5], fixed=True)
    np.testing.assert_array_equal(weights, [3, 2])
    assert loss == pytest.approx(log_loss([3, 2], said, codes).mean())


def test_one_gross_mistake_among_close_calls_overflows_nothing():
    """Weights are tried at which the softmax of the mistake has no place in float64."""
    values = np.array([[0.002, 0.0]] * 4200 + [[-1.0, 0.0]])
    scales = np.geomspace(100, 8000, 5001)
    u = scales / 30
    losses = 4200 * np.log1p(np.exp(-0.002 * scales)) + scales + 0.5 * (u - np.log(u))
    found, _ = calibrate([values], np.zeros(4201, dtype=int), [30], [0.5])
    assert found == pytest.approx(scales[losses.argmin()], rel=0.01)


@pytest.mark.parametrize("scale", [1e-6, 1e3, 1e7])
def test_equal_witnesses_of_any_size_are_weighed(scale):
    """Large ones leave the priors no digits, so that nothing tells their weights apart."""
    for seed in (188, 343, 468):
        rng = np.random.default_rng(seed)
        said = scale * rng.normal(size=(30, 5))
        weights, loss = calibrate([said, said], rng.integers(5, size=30), [1, 3], [0.5, 0.5])
        assert np.isfinite(loss)
        assert (weights > 0).all()


def test_what_classes_share_does_not_matter():
    said, codes = witnesses(1), np.arange(60) % 5
    shifted = said + 1e4 * np.arange(60)[:, None]
    found, moved = (calibrate([w[0]], codes, [1], [0.5])[0] for w in (said, shifted))
    np.testing.assert_allclose(moved, found, rtol=1e-6)


def test_float32_is_weighed_in_float64():
    said, codes = 0.01 * witnesses(1)[0].astype(np.float32), np.arange(60) % 5
    one, other = (calibrate([w], codes, [30], [0.5]) for w in (said, said.astype(np.float64)))
    assert one == other


def test_nothing_given_is_changed():
    said, offsets = witnesses(2), np.log(np.full(5, 0.2))
    before = said.copy(), offsets.copy()
    calibrate(list(said), np.arange(60) % 5, [1, 1], [0.5, 0.5], offsets)
    np.testing.assert_array_equal(said, before[0])
    np.testing.assert_array_equal(offsets, before[1])
    assert logsumexp(offsets) == pytest.approx(0)
