"""Fitted fields are functions of what fits them, and are cached as such."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV

from flowalign import FlowMatchingAligner
from flowalign.coupling import Coupling
from flowalign.datasets import make_cross_modal
from flowalign.fields import Kind, kind_of
from flowalign.fields.fitting import field_fitter
from flowalign.network.fit import default_batch_size, default_hidden_dim


def cached_fits(folder):
    return len(list(folder.rglob("output.pkl")))


@pytest.mark.filterwarnings("ignore:Persisting input arguments")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_over_the_solver_fits_once_per_fold(small, data, tmp_path, n_jobs):
    grid = {"n_steps": [0, 1, 3, 5], "step_size": [0.1, 0.2], "solver": ["euler", "midpoint"]}
    scores = []
    for memory in (None, tmp_path):
        model = small(data.class_embeddings, memory=memory and str(memory))
        search = GridSearchCV(model, grid, cv=2, n_jobs=n_jobs, refit=False)
        search.fit(data.X_train, data.y_train)
        scores.append(search.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(*scores)
    # Two processes may both have found a fold missing.
    assert 2 <= cached_fits(tmp_path) <= 2 * n_jobs


@pytest.mark.filterwarnings("ignore:Persisting input arguments")
def test_a_cached_field_is_the_field(small, data, tmp_path):
    def fit(**params):
        model = small(data.class_embeddings, memory=joblib.Memory(tmp_path, verbose=0), **params)
        return model.fit(data.X_train, data.y_train)

    first, second = fit(), fit(verbose=1)
    assert cached_fits(tmp_path) == 1
    assert second.loss_curve_ == first.loss_curve_
    np.testing.assert_array_equal(second.transform(data.X_test), first.transform(data.X_test))
    fit(noise=0.1)
    fit(joint=False)
    assert cached_fits(tmp_path) == 3
    fit(normalize=False)
    assert cached_fits(tmp_path) == 4


@pytest.mark.filterwarnings("ignore:Persisting input arguments")
def test_a_memory_changes_no_result(small, tmp_path):
    """Whatever the fit depends on: with what was stored before, as without a memory."""
    data = make_cross_modal(6, n_train=4, n_test=10, n_features=32, difficulty=4, random_state=0)
    X, y, table = data.X_train, data.y_train, data.class_embeddings
    skewed = [0.01, 0.01, 0.5, 0.01, 0.01, 0.46]
    few = [(X[3:], y[3:], table), (X, np.roll(y, 1), table), (X, y, None)]
    changes = [{"noise": 0.7}, {"joint": False}, {"normalize": False}]
    priors = [{"class_prior": prior} for prior in (skewed, skewed[::-1])]
    runs = [(params, (X, y, table)) for params in ({}, *priors, *changes)]
    trained = small().velocity_field == "mlp"
    first = None
    for params, support in runs + [({}, support) for support in few]:
        stored, plain = (
            small(**params, memory=memory).fit(*support).transform(10 * data.X_test)
            for memory in (str(tmp_path), None)
        )
        np.testing.assert_allclose(stored, plain, rtol=0, atol=1e-5, err_msg=str(params))
        first = plain if first is None else first
        if params or support is not runs[0][1]:  # a network is trained without a prior
            changed = np.abs(plain - first).max() > 1e-3
            assert changed == (not (trained and "class_prior" in params))


@pytest.mark.filterwarnings("ignore:Persisting input arguments")
@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_without_a_fixed_seed_only_what_is_not_random_is_cached(
    small, data, tmp_path, random_state
):
    model = small(data.class_embeddings, memory=str(tmp_path), random_state=random_state)
    model.fit(data.X_train, data.y_train)
    assert cached_fits(tmp_path) == (0 if small().velocity_field == "mlp" else 1)


@pytest.mark.filterwarnings("ignore:Persisting input arguments")
def test_integers_of_numpy_are_fixed_seeds(small_mlp, data, tmp_path):
    for seed in (np.int64(0), np.uint8(0)):
        model = small_mlp(data.class_embeddings, memory=str(tmp_path), random_state=seed)
        model.fit(data.X_train, data.y_train)
    assert cached_fits(tmp_path) == 1


def test_defaults_of_the_network_follow_the_data():
    """As wide as the features, and 24 steps an epoch, both within bounds."""
    widths = {1: 64, 64: 64, 65: 65, 383: 383, 384: 384, 2048: 384}
    assert {d: default_hidden_dim(d) for d in widths} == widths
    sizes = {1: 32, 24 * 32 - 1: 32, 24 * 33: 33, 24 * 256: 256, 10**6: 256}
    assert {n: default_batch_size(n) for n in sizes} == sizes


@pytest.mark.filterwarnings("ignore:Persisting input arguments")
def test_what_fits_a_network_is_part_of_the_key(small_mlp, data, tmp_path):
    changes = [
        {"n_blocks": 2}, {"hidden_dim": 40}, {"max_iter": 3}, {"batch_size": 7},
        {"learning_rate_init": 2e-3}, {"weight_decay": 0.1}, {"random_state": 1}, {},
    ]  # fmt: skip
    for params in changes:
        model = small_mlp(data.class_embeddings, memory=str(tmp_path), **params)
        model.fit(data.X_train, data.y_train)
    assert cached_fits(tmp_path) == len(changes)


def test_what_was_fitted_elsewhere_comes_to_the_device_of_the_fit(data):
    """As it has to out of a cache, where field and model open on the CPU."""
    codes = np.unique(data.y_train, return_inverse=True)[1]
    pairs, prior = Coupling.by_class(data.X_train, codes, None), np.full(6, 1 / 6)
    fitted = kind_of("gaussian").fit(pairs, prior=prior, noise=0.3, device="cpu")
    kind = Kind(type(fitted.field), lambda coupling: fitted)
    params = FlowMatchingAligner().get_params()
    moved = field_fitter(kind, params, prior, torch.device("meta"))(pairs)
    assert moved.field.basis.is_meta
    assert moved.model.within.basis.is_meta
    assert moved.model.statistics.sums.is_meta
