"""The Gaussian model as an object: what it believes, its densities, and how it is kept."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_t

import flowalign
from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.gaussian.evidence import Evidence
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.model_state import check_state
from flowalign.gaussian.statistics import ClassStatistics


def make(counts, d=4, e=6, seed=0, text=1.0, rest=0.3):
    """Model, features, codes and embeddings; means vary with the names by `text`."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(counts)), counts)
    E = rng.normal(size=(len(counts), e))
    means = text * E @ rng.normal(size=(e, d)) / e**0.5 + rest * rng.normal(size=(len(counts), d))
    X = means[codes] + rng.normal(size=(len(codes), d))
    statistics = ClassStatistics.of(torch.from_numpy(X), torch.from_numpy(codes), len(counts))
    return GaussianModel.of(statistics, torch.from_numpy(E)), X, codes, E


def sigma_of(model):
    return (model.within.basis * model.within.variances @ model.within.basis.T).numpy()


def test_the_log_density_is_a_multivariate_t():
    model, X, codes, _ = make([5, 3, 0, 1])
    df = len(codes) - 1
    found = model.log_density(X)
    assert found.dtype == torch.float64
    for c in range(4):
        widening = 1 + float(model.class_means.covariance[c, c])
        expected = multivariate_t.logpdf(
            X,
            loc=model.class_means.means[c].numpy(),
            shape=sigma_of(model) * widening * (df + 4) / df,
            df=df,
        )
        np.testing.assert_allclose(found[:, c], expected, rtol=1e-9)


def test_the_density_of_each_class_integrates_to_one():
    model, *_ = make([6, 2, 0], d=2)
    axis = np.linspace(-60, 60, 1201)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mass = model.log_density(grid).exp().sum(dim=0) * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(mass, 1, atol=0.01)


def test_an_offset_of_the_features_does_not_take_the_digits_of_the_density():
    model, X, codes, E = make([5, 3, 4])
    statistics = ClassStatistics.of(torch.from_numpy(X + 1e7), torch.from_numpy(codes), 3)
    far = GaussianModel.of(statistics, torch.from_numpy(E))
    np.testing.assert_allclose(far.log_density(X + 1e7), model.log_density(X), atol=1e-4)


def test_a_mean_is_the_less_certain_the_fewer_samples_its_class_has():
    uncertainty = make([50, 10, 2, 0])[0].class_means.covariance.diagonal().numpy()
    assert (np.diff(uncertainty) > 0).all()
    assert uncertainty[0] == pytest.approx(1 / 50, rel=0.1)


def test_spreads_tell_what_the_names_explain():
    explained, unexplained = (
        make([8] * 60, d=20, text=text, rest=rest)[0].class_means
        for text, rest in ((1.0, 0.0), (0.0, 1.0))
    )
    share = [p.text_spread / (p.text_spread + p.residual_spread) for p in (explained, unexplained)]
    assert share[0] > 0.9
    assert share[1] < 0.2


def test_its_field_carries_means_to_targets():
    model, *_ = make([5, 3, 4])
    targets = torch.eye(3, 4, dtype=torch.float64)
    field = model.field(targets, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(field.rotate_back(field.means), model.class_means.means)
    torch.testing.assert_close(field.rotate_back(field.targets), targets)
    assert {k: v for k, v in field.config.items() if v} == {}


def test_evidence_keeps_the_temperature_of_the_density():
    model, *_ = make([5, 3, 4])
    log_prior = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    weighed = replace(model, evidence=Evidence(density=0.05, text=0.4, centred_text=0.3))
    field = weighed.field(torch.eye(3, 4, dtype=torch.float64), log_prior)
    assert field.config["text_weight"] == pytest.approx(100 * 0.4 / 0.05)
    assert field.config["centred_text_weight"] == pytest.approx(100 * 0.3 / 0.05)
    assert field.config["tail"] == model.within.tail
    torch.testing.assert_close(field.log_prior, log_prior / 0.05)


@pytest.mark.parametrize("evidence", [None, Evidence(0.05), Evidence(0.05, 0.4, 0.3)])
def test_a_pickle_holds_arrays_and_brings_the_model_back(evidence):
    model, X, *_ = make([5, 3, 4])
    model = replace(model, evidence=evidence)
    assert not any(torch.is_tensor(part) for part in model.__getstate__().values())
    again = pickle.loads(pickle.dumps(model))
    assert again.evidence == evidence
    torch.testing.assert_close(again.log_density(X), model.log_density(X), rtol=0, atol=0)
    whole = again.statistics + again.statistics
    torch.testing.assert_close(whole.counts, 2 * model.statistics.counts)
    torch.testing.assert_close(
        model.to(torch.device("cpu")).log_density(X), model.log_density(X), rtol=0, atol=0
    )


def test_arrays_of_a_memory_map_make_it_again():
    """They may not be written, which torch does not know of its tensors."""
    model, X, *_ = make([5, 3, 4])
    state = {k: np.array(v) if np.ndim(v) else v for k, v in model.__getstate__().items()}
    for part in state.values():
        if np.ndim(part):
            part.flags.writeable = False
    again = GaussianModel.__new__(GaussianModel)
    again.__setstate__(state)
    torch.testing.assert_close(again.log_density(X), model.log_density(X), rtol=0, atol=0)


def test_where_float64_is_lacking_it_stays_on_the_cpu():
    model, X, *_ = make([5, 3, 4])
    moved = model.to(torch.device("mps"))
    torch.testing.assert_close(moved.log_density(X), model.log_density(X), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("statistics.counts", [9.0, -1.0, 4.0]),
        ("statistics.counts", np.float32([5, 3, 4])),
        ("statistics.counts", [1.0, 1.0, 1.0]),  # fewer than the rows of the scatter
        ("statistics.scatter", np.ones((3, 19))),
        ("class_means.common", np.ones(19)),
        ("class_means.text_spread", -0.1),
        ("class_means.residual_spread", True),
        ("within.variances", [0.0, *[1.0] * 19]),
        ("within.variances", [-1.0, *[1.0] * 19]),
        ("within.divisor", 0.0),
        ("within.tail", 20),  # as many as there are features: no degree of freedom
        ("within.tail", 1e30),
        ("within.single_share", "0"),
        ("evidence.text", -1.0),
        ("class_means.common_covariance", np.ones(2)),
        ("class_means.common_variance", -1.0),
        ("evidence.other", 1.0),
    ],
)
def test_what_is_no_state_of_a_model_is_refused(name, wrong):
    model = make([5, 3, 4], d=20)[0]
    model = replace(model, evidence=Evidence(0.05, 0.4, 0.3))
    state = model.__getstate__()
    check_state(state, 3, 20)
    check_state(state | {"within.tail": 21}, 3, 20)
    state[name] = np.array(wrong) if isinstance(wrong, list) else wrong
    with pytest.raises(ValueError, match="of the model"):
        check_state(state, 3, 20)


# ------------------------------------------------------------------ through the estimator


def test_the_aligner_keeps_its_model(data):
    aligner = FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)
    model = aligner.gaussian_model_
    np.testing.assert_array_equal(
        model.statistics.counts.cpu(), np.unique(data.y_train, return_counts=True)[1]
    )
    assert aligner.joint_
    assert model.evidence.heeds_text
    assert aligner.velocity_field_.config["noise_std"] == pytest.approx(0.3 / 32**0.5)
    mixed = ClassEmbeddings(
        data.class_embeddings.labels, data.class_embeddings.vectors[:, ::-1].copy()
    )
    mapped = FlowMatchingAligner(mixed, joint=False).fit(data.X_train, data.y_train)
    assert not mapped.gaussian_model_.evidence.heeds_text


def test_without_text_only_the_density_is_weighed(data):
    aligner = FlowMatchingAligner().fit(data.X_train, data.y_train)
    assert aligner.joint_
    assert aligner.gaussian_model_.evidence[1:] == (0, 0)
    assert aligner.velocity_field_.config["text_weight"] == 0


def test_the_network_has_the_same(data):
    given = data.X_train, data.y_train, data.class_embeddings
    network = FlowMatchingAligner(velocity_field="mlp", max_iter=1, n_steps=1, logit_scale=9)
    model, other = (a.fit(*given).gaussian_model_ for a in (network, FlowMatchingAligner()))
    assert model.evidence == other.evidence
    torch.testing.assert_close(model.class_means.means, other.class_means.means)


def test_the_density_tells_the_classes_of_new_rows(data):
    aligner = FlowMatchingAligner(normalize=False).fit(data.X_train, data.y_train)
    codes = aligner.gaussian_model_.log_density(data.X_test).argmax(dim=1).cpu()
    assert np.mean(aligner.classes_[codes] == data.y_test) > 0.9


@pytest.mark.parametrize("n_shots", [1, 3])
def test_a_file_holds_the_model(data, n_shots, tmp_path):
    X, y = flowalign.datasets.few_shot(data.X_train, data.y_train, n_shots, random_state=0)
    aligner = FlowMatchingAligner(data.class_embeddings).fit(X, y)
    flowalign.save(aligner, tmp_path / "model")
    loaded = flowalign.load(tmp_path / "model")
    one, other = aligner.gaussian_model_, loaded.gaussian_model_
    assert one.evidence == other.evidence
    for name, part in one.__getstate__().items():
        np.testing.assert_array_equal(other.__getstate__()[name], part)


@pytest.mark.parametrize("n_shots", [1, 3, 8])
def test_loaded_and_copied_it_says_the_same_to_the_bit(data, n_shots, tmp_path):
    """Of fewer samples than features, and of more: the layout of arrays decides how sums round."""
    X, y = np.tile(data.X_train, (2, 1)), np.tile(data.y_train, 2)
    X[len(X) // 2 :] *= np.linspace(0.9, 1.1, X.shape[1])
    X, y = flowalign.datasets.few_shot(X, y, n_shots, random_state=0)
    aligner = FlowMatchingAligner(data.class_embeddings).fit(X, y)
    flowalign.save(aligner, tmp_path / "model")
    expected = aligner.gaussian_model_.log_density(data.X_test)
    for again in (flowalign.load(tmp_path / "model"), copy.deepcopy(aligner)):
        found = again.gaussian_model_.log_density(data.X_test)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones(4), r"rows of 4 features, got shape \(4,\)"),
        (np.ones((2, 5)), r"rows of 4 features, got shape \(2, 5\)"),
        (np.full((2, 4), np.nan), "X contains NaN"),
    ],
)
def test_rows_that_are_none_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        make([5, 3, 4])[0].log_density(rows)


def test_rows_come_in_every_form():
    model, X, *_ = make([5, 3, 4])
    X = X.astype(np.float32)
    expected = model.log_density(X)
    forms = [
        X.tolist(),
        torch.from_numpy(X),
        np.asfortranarray(X),
        X.astype(">f4"),
        pd.DataFrame(X),
    ]
    for rows in forms:
        torch.testing.assert_close(model.log_density(rows), expected, rtol=0, atol=1e-9)
    assert model.log_density(X[:0]).shape == (0, 3)


def test_a_model_needs_samples_and_an_embedding_for_each_class():
    statistics = make([5, 3, 4])[0].statistics
    with pytest.raises(ValueError, match="one embedding for each of the 3 classes"):
        GaussianModel.of(statistics, torch.ones(2, 6, dtype=torch.float64))
    empty = ClassStatistics.of(torch.empty(0, 4), torch.empty(0, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match="no samples"):
        GaussianModel.of(empty)
