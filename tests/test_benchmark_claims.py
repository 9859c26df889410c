"""Variants differ in what their names say, and verdicts follow from figures."""

import numpy as np
import pytest

from flowalign.benchmark import claims
from flowalign.benchmark.claims import (
    CLAIMS,
    measure,
    page,
    random_pairs,
    shipped,
    transport_pairs,
    verdict,
)


def test_random_pairs_keep_the_number_of_each_class():
    codes = np.repeat(np.arange(5), 8)
    pairs = random_pairs(np.zeros((40, 3)), np.zeros((5, 3)), codes, np.random.default_rng(0))
    assert np.bincount(pairs).tolist() == [8] * 5
    assert 0 < np.mean(pairs == codes) < 0.5


def test_transport_pairs_cost_least():
    rng = np.random.default_rng(0)
    X, targets = rng.normal(size=(2, 30, 6))
    X, targets = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (X, targets[:3]))
    codes = np.repeat(np.arange(3), 10)
    pairs = transport_pairs(X, targets, codes, rng)  # one batch
    assert np.bincount(pairs).tolist() == [10] * 3
    cost = np.square(X - targets[pairs]).sum()
    for _ in range(200):
        i, j = rng.choice(30, 2, replace=False)
        swapped = pairs.copy()
        swapped[[i, j]] = pairs[[j, i]]
        assert np.square(X - targets[swapped]).sum() >= cost - 1e-9


def test_what_ships_has_text_and_a_wide_range_of_difficulty():
    sets = shipped()
    assert [data.name for data in sets][:2] == ["emoji", "digits"]
    for data in sets:
        assert set(data.y_test) == set(data.y_train) == set(data.class_embeddings.classes)
        assert len(data.draw(16, 0)) == 16 * len(data.class_embeddings.classes)


@pytest.fixture(scope="module")
def seen():
    """All variants on four samples a class of the hardest synthetic set."""
    return measure(shipped()[-1], 4, 0)


def test_every_claim_is_measured(seen):
    names = {name for found in CLAIMS.values() for c in found for name in (c.better, c.worse)}
    assert names <= set(seen)
    assert all(0 <= accuracy <= 1 for accuracy in seen.values())
    # The one variant that has to lose: targets that have nothing to do with the sample.
    assert seen["network, random pairs"] < seen["network"] - 0.1


def cells(**gaps):
    names = {name for found in CLAIMS.values() for c in found for name in (c.better, c.worse)}
    base = {name: np.array([0.5, 0.5]) for name in names}
    return {
        (f"set {k}", n_shots): base | {name: np.array([gap, gap]) for name, gap in gaps.items()}
        for k in range(4)
        for n_shots in claims.SHOTS
    }


def test_the_page_says_what_the_figures_say():
    better = cells(**{"network, no noise": 0.4, "closed form, no noise": 0.6})
    text = page(better)
    section = text.split("Noise on the path helps")[1].split("\n\n\n")[0].split("Many steps")[0]
    assert "+10.0 ± 0.0\n     - confirmed" in section
    assert "-10.0 ± 0.0\n     - contradicted" in section
    assert "no such sets" in text  # none is easy
    easy = page(cells(**{"zero-shot": 0.95}))
    assert "+45.0 ± 0.0\n     - confirmed" in easy


@pytest.mark.parametrize(
    ("mean", "error", "expected"),
    [
        (1.0, 0.4, "confirmed"),
        (1.0, 0.6, "not decided"),
        (-1.0, 0.4, "contradicted"),
        (0.0, 0.0, "not decided"),
    ],
)
def test_verdicts(mean, error, expected):
    assert verdict(mean, error) == expected
