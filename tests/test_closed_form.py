"""The Gaussian field as fitted: against discriminant analysis, priors, text and units."""

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from gaussian_toy import coupled
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from flowalign import ClassEmbeddings, FlowMatchingAligner, ode
from flowalign.gaussian.evidence import Evidence, weigh
from flowalign.gaussian.fit import KIND, fit_gaussian
from flowalign.gaussian.left_out import LeftOutSamples
from flowalign.gaussian.model import MAX_NOISE_RATIO

ZERO = torch.tensor(0.0)


def gaussian_classes(n_classes=4, n_shots=300, d=5, seed=0, separation=1.0):
    rng = np.random.default_rng(seed)
    means = separation * rng.normal(size=(n_classes, d))
    root = np.eye(d) + 0.5 * rng.normal(size=(d, d))
    codes = np.repeat(np.arange(n_classes), n_shots)
    return means[codes] + rng.normal(size=(len(codes), d)) @ root, codes


def fit(X, codes, targets, **options):
    return fitted(X, codes, targets, **options).field


def fitted(
    X, codes, targets, embeddings=None, joint=False, noise=0.0, prior=None, multiplicity=None
):
    """What a fit gives for targets that are where they are."""
    coupling = coupled(X, codes, targets, embeddings, joint, multiplicity)
    prior = np.full(len(targets), 1 / len(targets)) if prior is None else prior
    return fit_gaussian(coupling, prior=prior, noise=noise, device="cpu")


def twin(found, X, codes, targets):
    """Every sample left out of what was fitted to all."""
    coupling = coupled(X, codes, targets, targets)
    return KIND.leave_out(found, coupling, np.arange(len(X)), torch.tensor(targets).float())


def test_at_the_start_the_posterior_is_that_of_discriminant_analysis():
    X, codes = gaussian_classes(n_shots=2000, separation=0.4)
    shrinkage = 5 / (len(X) - 1 + 5)
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(X, codes)
    posterior = fit(X, codes, np.eye(4, 5)).posterior(ZERO, torch.tensor(X).float())
    np.testing.assert_allclose(posterior, peer.predict_proba(X), atol=0.01)
    assert 0.3 < posterior.amax(dim=1).mean() < 0.95  # they overlap


def test_a_prior_multiplies_the_posterior():
    X, codes = gaussian_classes(n_shots=20)
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    uniform, weighed = (
        fit(X, codes, np.eye(4, 5), prior=p).posterior(ZERO, torch.tensor(X).float()).numpy()
        for p in (None, prior)
    )
    expected = uniform * prior / (uniform @ prior)[:, None]
    np.testing.assert_allclose(weighed, expected, rtol=1e-4, atol=1e-6)


def test_it_is_the_minimiser_unless_there_is_text_in_the_same_space():
    X, codes = gaussian_classes(n_shots=6)
    E = np.random.default_rng(2).normal(size=(4, 5))
    for field in (fit(X, codes, E), fit(X, codes, E, embeddings=E), fit(X, codes, E, joint=True)):
        assert field.config["text_weight"] == 0
        assert field.config["tail"] is None
    design = fit(X, codes, E, embeddings=E, joint=True)
    assert design.config["text_weight"] > 0
    assert design.config["tail"] == 24 - 1 + 5
    assert {w.dtype for w in design.state_dict().values()} == {torch.float32}


def test_noise_bounds_the_variances():
    X, codes = gaussian_classes()
    X[:, 0] *= 1e-4
    r = np.sqrt(np.square(X).mean())
    quiet, noisy = (fit(X, codes, np.eye(4, 5), noise=noise).variances for noise in (0, 0.2))
    bound = (0.2 * r) ** 2 / MAX_NOISE_RATIO
    assert quiet.min() < bound
    torch.testing.assert_close(noisy, quiet.clamp_min(bound))


@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_noise_makes_a_first_euler_step_overshoot_by_2_percent(noise):
    """At most: where a class is narrowest. Noise widens it there before it shrinks."""
    X, _ = gaussian_classes(n_classes=1, n_shots=3000)
    X[:, :2] *= 1e-3
    field = fit(X, np.zeros(len(X), dtype=int), np.zeros((1, 5)), noise=noise).double()
    rows = torch.eye(5, dtype=torch.float64)
    z = torch.cat([rows, torch.zeros_like(rows)])

    def width(n_steps):
        states = ode.integrate(field.velocity, z, np.linspace(0, 0.1, n_steps + 1).tolist())[-1]
        return (states[:5] - states[5:]).diagonal()

    overshoot = width(1) / width(1000) - 1
    assert float(overshoot.max()) == pytest.approx(0.017, abs=0.002)
    assert (overshoot > 0.015).sum() >= 2


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_noise_is_relative_to_the_size_of_the_features(noise):
    X, codes = gaussian_classes(n_shots=5)
    size = np.sqrt(np.square(X + 3).mean())  # about 0, not about their mean
    field = fit(X + 3, codes, np.eye(4, 5), noise=noise)
    assert field.config["noise_std"] == pytest.approx(noise * size)


@pytest.mark.parametrize("shots", [1, 3])
def test_equal_samples_are_no_trouble_without_noise(shots):
    """No class has any width, and nothing gives it one."""
    X = np.repeat(np.random.default_rng(0).normal(size=(4, 6)), shots, axis=0)
    y = np.repeat(np.arange(4), shots)
    for rows, labels in ((X, y), (np.ones_like(X), y)):
        model = FlowMatchingAligner(noise=0, n_steps=10, step_size=0.1).fit(rows, labels)
        proba = model.predict_proba(X)
        assert np.isfinite(proba).all()
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
        assert (model.velocity_field_.variances > 0).all()
    model = FlowMatchingAligner(noise=0, n_steps=10, step_size=0.1).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), y)


def test_density_and_text_are_weighed_by_the_evidence():
    X, codes = gaussian_classes(n_shots=6)
    E = np.random.default_rng(2).normal(size=(4, 5))
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    found = fitted(X, codes, E, embeddings=E, joint=True, prior=prior)
    model, targets = replace(found.model, evidence=None), torch.tensor(E)
    said = LeftOutSamples(
        model, targets, torch.tensor(X).float(), torch.tensor(codes), joint=True
    )  # fmt: skip
    weights = weigh(said.density, said.text, np.zeros(4), codes, width=5, one_shot=False)
    assert found.model.evidence == pytest.approx(weights)
    beta, text, centred_text = weights
    assert found.field.config["text_weight"] == pytest.approx(100 * text / beta)
    assert found.field.config["centred_text_weight"] == pytest.approx(100 * centred_text / beta)
    torch.testing.assert_close(found.field.log_prior, torch.tensor(np.log(prior) / beta).float())
    assert twin(found, X, codes, E).field.config == found.field.config


@pytest.mark.parametrize("joint", [True, False])
def test_copies_of_samples_are_no_witnesses_of_one_another(joint):
    """Were they, each would be known by its copy, and the density believed without bound."""
    X, codes = gaussian_classes(n_shots=6, separation=0.3)
    E = np.random.default_rng(2).normal(size=(4, 5))
    once, twice = (
        fitted(X, codes, E, embeddings=E, joint=joint, multiplicity=np.full(len(X), times))
        for times in (1, 2)
    )
    assert twice.model.evidence == once.model.evidence
    np.testing.assert_array_equal(twice.support_ratios, once.support_ratios)
    assert twice.model.statistics.n == 2 * once.model.statistics.n


@pytest.mark.parametrize(("n_classes", "n_weighed"), [(4, 20), (25, 4)])
def test_many_samples_are_thinned_before_they_are_weighed(n_classes, n_weighed, monkeypatch):
    """By the widest array: as many columns as features, or as classes, if these are more."""
    monkeypatch.setattr("flowalign.blocks.MAX_HELD_OUT_ENTRIES", 100)
    seen = []

    def record(density, *_, **__):
        seen.append(density)
        return Evidence(0.1, 1.0, 1.0)

    monkeypatch.setattr("flowalign.gaussian.fit.weigh", record)
    X, codes = gaussian_classes(n_shots=30)
    E = np.random.default_rng(2).normal(size=(n_classes, 5))
    scores = fitted(X, codes, E, embeddings=E, joint=True).support_ratios
    assert len(np.unique(seen[0], axis=0)) == n_weighed
    assert len(scores) == n_weighed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_that_comes_in_is_changed(dtype):
    X, codes = gaussian_classes(n_shots=5)
    E, prior = np.random.default_rng(2).normal(size=(4, 5)), np.full(4, 0.25)
    given = [X.astype(dtype), codes, E, prior]
    before = [a.copy() for a in given]
    found = fitted(given[0], codes, E, embeddings=E, joint=True, noise=0.3, prior=prior)
    left_out = twin(found, given[0], codes, E)
    rows, t = torch.tensor(X).float(), torch.tensor(0.4)
    kept = rows.clone()
    for flow, read in itertools.product((found.field, left_out), ("posterior", "velocity")):
        state = pickle.dumps(flow)
        first = getattr(flow, read)(t, rows)
        torch.testing.assert_close(getattr(flow, read)(t, rows), first, rtol=0, atol=0)
        assert pickle.dumps(flow) == state
    torch.testing.assert_close(rows, kept, rtol=0, atol=0)
    for one, other in zip(given, before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_float32_features_give_the_field_of_their_float64():
    X, codes = gaussian_classes(n_shots=5)
    X, E = X.astype(np.float32), np.random.default_rng(2).normal(size=(4, 5))
    one, other = (
        fitted(x, codes, E, embeddings=E, joint=True, noise=0.3) for x in (X, X.astype(float))
    )
    t, x = torch.tensor(0.4), torch.tensor(X)
    torch.testing.assert_close(one.field(t, x), other.field(t, x), rtol=1e-5, atol=1e-5)
    left_out = [twin(found, X, codes, E).velocity(t, x) for found in (one, other)]
    torch.testing.assert_close(*left_out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_units_do_not_matter(scale):
    X, codes = gaussian_classes(n_shots=5)
    E = np.random.default_rng(2).normal(size=(4, 5))
    one, other = (fit(s * X, codes, s * E, embeddings=E, joint=True, noise=0.3) for s in (1, scale))
    x, t = torch.tensor(X[:9], dtype=torch.float32), torch.tensor(0.4)
    torch.testing.assert_close(other(t, scale * x) / scale, one(t, x), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------ through the estimator


def test_class_prior_moves_predictions():
    X, codes = gaussian_classes(n_classes=2, n_shots=40, separation=0.3)
    kept = np.r_[0:40, 40:45]  # forty of one class, five of the other
    X_test = gaussian_classes(n_classes=2, n_shots=500, separation=0.3)[0]
    shares = {}
    for prior in ("uniform", "empirical", [0.5, 0.5], [0.01, 0.99]):
        model = FlowMatchingAligner(normalize=False, n_steps=10, class_prior=prior)
        shares[str(prior)] = np.mean(model.fit(X[kept], codes[kept]).predict(X_test) == 0)
    assert shares["uniform"] == shares["[0.5, 0.5]"]
    assert shares["[0.01, 0.99]"] < shares["uniform"] < shares["empirical"]


def test_class_prior_by_label():
    X, codes = gaussian_classes(n_shots=5, n_classes=3)
    y = np.array(["b", "a", "c"])[codes]
    priors = [{"c": 0.7, "a": 0.1, "b": 0.2}, pd.Series([0.7, 0.1, 0.2], index=["c", "a", "b"])]
    by_label = [FlowMatchingAligner(class_prior=prior).fit(X, y) for prior in priors]
    by_position = FlowMatchingAligner(class_prior=[0.1, 0.2, 0.7]).fit(X, y)
    for model in by_label:
        np.testing.assert_array_equal(model.transform(X), by_position.transform(X))


@pytest.mark.parametrize("class_prior", ["uniform", "empirical"])
def test_a_class_without_samples_is_found_by_its_name(data, class_prior):
    seen = data.y_train != data.class_names[2]
    narrow = ClassEmbeddings(data.class_embeddings.labels, data.class_embeddings.vectors @ MIX)
    of_that_class = data.y_test == data.class_names[2]
    for table in (data.class_embeddings, narrow):  # in one space, and mapped
        model = FlowMatchingAligner(table, class_prior=class_prior)
        model.fit(data.X_train[seen], data.y_train[seen])
        assert model.joint_ == (table is data.class_embeddings)
        predicted = model.predict(data.X_test)
        assert np.isfinite(model.predict_proba(data.X_test)).all()
        found = np.mean(predicted[of_that_class] == data.class_names[2])
        assert found > (0.5 if model.joint_ else 0.2)
        assert np.mean(predicted[~of_that_class] == data.y_test[~of_that_class]) > 0.7


MIX = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0]


def test_text_that_contradicts_the_samples_is_overruled(data):
    """In a joint space by decree, the names permuted: zero-shot is wrong nearly always."""
    names = np.array(data.class_names)
    wrong = ClassEmbeddings(np.roll(names, 1), data.class_embeddings.vectors)
    model = FlowMatchingAligner(wrong, joint=True, n_steps=10)
    model.fit(data.X_train, data.y_train)
    zero_shot = model.set_params(n_steps=0).score(data.X_test, data.y_test)
    assert zero_shot < 0.2
    assert model.set_params(n_steps=10).score(data.X_test, data.y_test) > 0.8
