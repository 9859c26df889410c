"""Every wrong parameter gets a ValueError or TypeError that names it."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from flowalign import FlowMatchingAligner, parameters

X = np.random.default_rng(0).normal(size=(12, 6))
Y = np.repeat(["a", "b", "c"], 4)
E = dict(zip("abc", np.random.default_rng(1).normal(size=(3, 6)), strict=True))


BAD_PARAMETERS = [
    ({"velocity_field": "unet"}, ValueError, "velocity_field must be one of gaussian, mlp; got "),
    ({"velocity_field": None}, TypeError, "velocity_field"),
    ({"joint": "maybe"}, ValueError, "joint must be 'auto', True or False, got 'maybe'"),
    ({"noise": -0.1}, ValueError, "noise must be finite and at least 0, got -0.1"),
    ({"noise": np.nan}, ValueError, "noise"),
    ({"noise": np.inf}, ValueError, "noise"),
    ({"noise": "0.3"}, TypeError, "noise must be a number"),
    ({"n_steps": -1}, ValueError, "n_steps must be at least 0, got -1"),
    ({"n_steps": 2.5}, TypeError, "n_steps must be 'auto' or an integer, got 2.5"),
    ({"n_steps": True}, TypeError, "n_steps"),
    ({"n_steps": 11}, ValueError, "n_steps=11 steps of step_size=0.1 end at time 1.1.*at most 10"),
    ({"step_size": 0}, ValueError, "step_size"),
    ({"step_size": 1.5}, ValueError, "step_size"),
    ({"solver": "rk45"}, ValueError, "solver must be one of euler, .*; got 'rk45'"),
    ({"n_blocks": 0}, ValueError, "n_blocks"),
    ({"hidden_dim": 0}, ValueError, "hidden_dim"),
    ({"hidden_dim": 8.0}, TypeError, "hidden_dim"),
    ({"max_iter": 0}, ValueError, "max_iter"),
    ({"batch_size": 0}, ValueError, "batch_size"),
    ({"learning_rate_init": 0}, ValueError, "learning_rate_init"),
    ({"weight_decay": -1}, ValueError, "weight_decay"),
    ({"normalize": "yes"}, TypeError, "normalize"),
    ({"logit_scale": 0}, ValueError, "logit_scale"),
    ({"logit_scale": 1e38}, ValueError, "logit_scale must be finite and above 0 and at most 1e"),
    ({"memory": 3}, ValueError, "memory"),
    ({"device": "toaster"}, ValueError, "device='toaster'.*device='auto'"),
    ({"device": "cuda:99"}, ValueError, "device='cuda:99'.*not available"),
    ({"device": "meta"}, ValueError, "device='meta'"),
    ({"device": 3.5}, ValueError, "device=3.5"),
    ({"random_state": "seed"}, ValueError, "seed"),
    ({"class_prior": "flat"}, ValueError, "class_prior must be one of uniform, empirical"),
    ({"class_prior": 0.5}, ValueError, "class_prior.*each of the 3 classes.*got 0.5"),
    ({"class_prior": [0.5, 0.5]}, ValueError, "class_prior.*each of the 3"),
    ({"class_prior": [0.5, 0.5, 0.5]}, ValueError, "class_prior must be positive and sum to 1"),
    ({"class_prior": [1.0, 0.0, 0.0]}, ValueError, "Leave a class that is impossible out"),
    ({"class_prior": [0.5, np.nan, 0.5]}, ValueError, "class_prior"),
    ({"class_prior": {"a": 1}}, ValueError, "class_prior must have the labels 'a', 'b', 'c' as"),
    ({"class_prior": None}, ValueError, "class_prior.*'uniform' or 'empirical'; got None"),
    ({"class_prior": ["a", "b", "c"]}, TypeError, "class_prior must be 'uniform', 'empirical', or"),
    ({"class_prior": [1.0], "velocity_field": "mlp"}, ValueError, "class_prior"),
    (
        {"learning_rate_init": 1e30, "velocity_field": "mlp"},
        ValueError,
        "diverged.*learning_rate_init",
    ),
    (
        {"joint": True, "class_embeddings": {k: v[:4] for k, v in E.items()}},
        ValueError,
        "joint=True",
    ),
]


@pytest.mark.parametrize(("params", "error", "message"), BAD_PARAMETERS)
def test_bad_parameters(params, error, message):
    model = FlowMatchingAligner(**{"class_embeddings": E, "max_iter": 2, "n_blocks": 1} | params)
    with pytest.raises(error, match=message):
        model.fit(X, Y)
    assert not hasattr(model, "velocity_field_")


def test_bad_solver_parameters_at_predict():
    model = FlowMatchingAligner(max_iter=2, n_blocks=1, random_state=0).fit(X, Y, E)
    for params, message in [
        ({"n_steps": 11}, "n_steps=11"),
        ({"n_steps": -1}, "n_steps"),
        ({"solver": "nope"}, "solver"),
        ({"step_size": -0.1}, "step_size"),
        ({"logit_scale": -1.0}, "logit_scale"),
    ]:
        before = model.get_params()
        with pytest.raises(ValueError, match=message):
            model.set_params(**params).predict(X)
        model.set_params(**before)


def test_unfitted():
    model = FlowMatchingAligner()
    for method in ("predict", "predict_proba", "decision_function", "transform", "trajectory"):
        with pytest.raises(NotFittedError):
            getattr(model, method)(X)
    with pytest.raises(NotFittedError):
        next(model.staged_predict(X))
    assert not hasattr(model, "n_steps_")


def test_a_flow_that_leaves_the_numbers_is_an_error_not_a_nan():
    model = FlowMatchingAligner(random_state=0).fit(X, Y, E)
    model.velocity_field_.targets.fill_(torch.inf)
    with pytest.raises(ValueError, match="n_steps"):
        model.predict(X)


def test_class_probabilities():
    classes, counts = np.array(["a", "b", "c"]), np.array([6, 0, 1])
    for given, expected in [
        ("uniform", np.full(3, 1 / 3)),
        ("empirical", np.array([0.7, 0.1, 0.2])),
        ({"b": 0.5, "a": 0.2, "c": 0.3}, np.array([0.2, 0.5, 0.3])),
        (torch.tensor([0.2, 0.5, 0.3]), np.array([0.2, 0.5, 0.3])),
        ([torch.tensor(p, requires_grad=True) for p in (0.2, 0.5, 0.3)], [0.2, 0.5, 0.3]),
    ]:
        found = parameters.class_probabilities(given, classes, counts)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("n_classes", [3, 5, 7, 1000])
def test_probabilities_of_16_bits_are_as_exact_as_16_bits_are(n_classes):
    classes = np.arange(n_classes)
    exact = np.full(n_classes, 1 / n_classes)
    for given in (
        exact.astype(np.float16),
        torch.tensor(exact).half(),
        torch.tensor(exact).bfloat16(),
        list(torch.tensor(exact).bfloat16()),
        dict(enumerate(exact.astype(np.float16))),
    ):
        found = parameters.class_probabilities(given, classes, np.ones(n_classes))
        assert found.dtype == np.float64
        assert found.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(found, exact, rtol=1e-2)
    rounded = exact.astype(np.float16).astype(float)
    if abs(rounded.sum() - 1) > 1e-5:  # in float64 that is no rounding
        with pytest.raises(ValueError, match="sum to 1"):
            parameters.class_probabilities(rounded, classes, np.ones(n_classes))
