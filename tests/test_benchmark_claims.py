"""Variants differ in what their names say, and verdicts follow from figures."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import t
from sklearn.metrics.pairwise import cosine_similarity

from flowalign import FlowMatchingAligner
from flowalign.benchmark import measurements
from flowalign.benchmark.adapters import CLIPAdapter
from flowalign.benchmark.claims import CLAIMS, page, verdict
from flowalign.benchmark.measurements import measure, random_pairs, shipped, transport_pairs
from flowalign.network import fit as network_fit


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
    assert seen["network, random pairs"] < seen["network, own pairs"] - 0.1


def test_a_variant_is_what_its_name_says(seen):
    data = shipped()[-1]
    rows = data.draw(4, 0)
    support = (data.X_train[rows], data.y_train[rows], data.class_embeddings)

    def fitted(**params):
        return FlowMatchingAligner(**params).fit(*support)

    # Of the flow, the class that its states are most similar to.
    for name, params in {
        "zero-shot": {"n_steps": 0},
        "closed form": {"n_steps": 5},
        "closed form, whole flow": {"n_steps": 10},
        "closed form, one step": {"n_steps": 1, "step_size": 0.5},
        "closed form, no noise": {"n_steps": 5, "noise": 0},
    }.items():
        model = fitted(**params)
        cosines = cosine_similarity(model.transform(data.X_test), model.class_embeddings_)
        accuracy = np.mean(cosines.argmax(axis=1) == data.y_test)
        assert seen[name] == pytest.approx(accuracy, abs=1e-9), name
    assert seen["zero-shot"] == fitted(n_steps=0).score(data.X_test, data.y_test)
    # Of the aligner, what it predicts, which hears the model too.
    assert seen["closed form, auto"] == fitted().score(data.X_test, data.y_test)
    assert seen["closed form, auto"] != seen["closed form"]
    adapter = CLIPAdapter(ratio=0.2).fit(*support)
    adapted = FlowMatchingAligner().fit(adapter.transform(support[0]), *support[1:])
    X_test = adapter.transform(data.X_test)
    assert seen["adapted, auto"] == adapted.score(X_test, data.y_test)
    adapted.set_params(n_steps=0)
    assert seen["adapted, zero-shot"] == adapted.score(X_test, data.y_test)
    # The variants are different things: hardly two of them are right for the same samples.
    assert len(set(seen.values())) > len(seen) / 2


def cells(**gaps):
    names = {name for found in CLAIMS.values() for c in found for name in (c.better, c.worse)}
    base = {name: np.array([0.5, 0.5]) for name in names}
    return {
        (f"set {k}", n_shots): base | {name: np.array([gap, gap]) for name, gap in gaps.items()}
        for k in range(4)
        for n_shots in measurements.SHOTS
    }


def test_the_page_says_what_the_figures_say():
    better = cells(**{"network, no noise": 0.4, "closed form, no noise": 0.6})
    text = page(better)
    section = text.split("Noise on the path helps")[1].split("\n\n\n")[0].split("Many steps")[0]
    assert "+10.0 [+10.0, +10.0]\n     - confirmed" in section
    assert "-10.0 [-10.0, -10.0]\n     - contradicted" in section
    assert "no such sets" in text  # none is easy
    easy = page(cells(**{"zero-shot": 0.95, "network, auto": 0.946, "closed form, auto": 0.94}))
    section = easy.split("is no worse than zero-shot by half a point")[1].split("Features from")[0]
    assert "-0.4 [-0.4, -0.4]\n     - confirmed" in section
    assert "-1.0 [-1.0, -1.0]\n     - contradicted" in section
    three = {cell: seen for cell, seen in better.items() if cell[0] != "set 0"}
    assert "+10.0\n     - too few sets" in page(three)


def test_sets_are_the_units_of_an_interval():
    """Three numbers of shots on one set are no three witnesses."""
    found = cells()
    for (name, n_shots), seen in found.items():
        gap = {"set 0": 0.1, "set 1": 0.03, "set 2": 0.0, "set 3": -0.01}[name]
        seen["network, no noise"] = 0.5 - gap + 0.0 * n_shots * seen["network"]
    section = page(found).split("Noise on the path helps")[1].split("Many steps")[0]
    gaps = [10, 3, 0, -1]
    half = t.ppf(0.975, 3) * np.std(gaps, ddof=1) / 2
    assert f"+3.0 [{3 - half:+.1f}, {3 + half:+.1f}]\n     - not decided" in section


def test_each_number_of_shots_has_its_column():
    found = cells()
    for (_, n_shots), accuracies in found.items():
        accuracies["network, no noise"] = np.array([0.5, 0.5]) - n_shots / 100
    section = page(found).split("Noise on the path helps")[1].split("Many steps")[0]
    row = section.split("* - network\n")[1].split("* - closed form")[0]
    assert row.replace("     - ", "").split("\n")[:5] == [
        "+1.0", "+4.0", "+16.0", "+7.0 [+7.0, +7.0]", "confirmed",
    ]  # fmt: skip


@pytest.mark.parametrize(("zero_shot", "easy"), [(0.9, True), (0.89, False)])
def test_easy_is_right_nine_times_of_ten(zero_shot, easy):
    text = page(cells(**{"zero-shot": zero_shot, "network": 0.95, "closed form": 0.95}))
    section = text.split("a fixed stop falls below zero-shot")[1].split("On easy sets")[0]
    assert ("no such sets" in section) != easy


def test_a_margin_moves_both_ends_of_an_interval():
    """Worse by about half a point, where half a point is allowed: nothing is decided."""
    found = cells(**{"zero-shot": 0.95, "closed form, auto": 0.95})
    for (name, _), accuracies in found.items():
        gap = {"set 0": 0.005, "set 1": 0.006, "set 2": 0.005, "set 3": 0.006}[name]
        accuracies["network, auto"] = np.array([0.95, 0.95]) - gap
    section = page(found).split("is no worse than zero-shot by half a point")[1]
    row = section.split("* - network\n")[1].split("* - closed form")[0]
    assert "[-0.6, -0.5]\n     - not decided" in row


def test_gains_that_fall_with_accuracy_have_a_negative_rank_correlation():
    found = cells()
    for k, ((_, n_shots), accuracies) in enumerate(found.items()):
        accuracies["zero-shot"] = np.array([0.5, 0.5]) + 0.02 * k
        gain = 0.1 - 0.01 * k if n_shots == 4 else 0.01 * k
        accuracies["closed form, auto"] = accuracies["zero-shot"] + gain
        accuracies["network, auto"] = accuracies["zero-shot"] - 0.05
    text = page(found)
    assert "by shots: +1.00 at 1, -1.00 at 4, +1.00 at 16." in text
    first = text.split("network gains\n")[1].split("   * - ")[1]
    assert first.replace("     - ", "").split() == ["set", "0", "1", "50.0", "+0.0", "-5.0"]


def test_own_pairs_are_the_coupling_by_label(monkeypatch):
    data = shipped()[-1]
    rows = data.draw(4, 0)
    targets = np.eye(30, 64, dtype=np.float32)
    seen = []

    def watch(field, x0, targets, labels, **settings):
        seen.append((x0, labels, settings))
        return []

    monkeypatch.setattr(network_fit, "train", watch)
    measurements._coupled(data, rows, targets, measurements.own_pairs, 0)
    ((x0, labels, settings),) = seen
    own = cdist(x0, data.X_train[rows]).argmin(axis=1)
    assert np.bincount(own).tolist() == [10] * 120
    np.testing.assert_array_equal(labels, data.y_train[rows][own])
    np.testing.assert_allclose(x0, data.X_train[rows][own], rtol=1e-5)
    assert settings["max_iter"] == 5
    assert settings["batch_size"] == 32


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.4, "confirmed"),
        (-0.1, 0.6, "not decided"),
        (-0.5, -0.4, "contradicted"),
        (0.0, 0.0, "not decided"),
        (np.nan, np.nan, "too few sets"),
    ],
)
def test_verdicts(low, high, expected):
    assert verdict(low, high) == expected
