"""Fitted fields are functions of what fits them, and are cached as such."""

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV


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

    first, second = fit(), fit(verbose=0)
    assert cached_fits(tmp_path) == 1
    assert second.loss_curve_ == first.loss_curve_
    np.testing.assert_array_equal(second.transform(data.X_test), first.transform(data.X_test))
    fit(noise=0.1)
    fit(joint=False)
    assert cached_fits(tmp_path) == 3
    fit(normalize=False)
    assert cached_fits(tmp_path) == 4


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_without_a_fixed_seed_nothing_is_cached(small, data, tmp_path, random_state):
    model = small(data.class_embeddings, memory=str(tmp_path), random_state=random_state)
    model.fit(data.X_train, data.y_train)
    assert cached_fits(tmp_path) == 0


def test_what_fits_a_network_is_part_of_the_key(small_mlp, data, tmp_path):
    changes = [
        {"n_blocks": 2}, {"hidden_dim": 40}, {"max_iter": 3}, {"batch_size": 7},
        {"learning_rate_init": 2e-3}, {"weight_decay": 0.1}, {"random_state": 1}, {},
    ]  # fmt: skip
    for params in changes:
        model = small_mlp(data.class_embeddings, memory=str(tmp_path), **params)
        model.fit(data.X_train, data.y_train)
    assert cached_fits(tmp_path) == len(changes)
