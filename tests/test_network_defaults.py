"""What the network takes where it is not told: widths and batches within stated bounds."""

import numpy as np
import pytest

from flowalign import FlowMatchingAligner
from flowalign.network.fit import default_batch_size


@pytest.mark.parametrize(("width", "hidden_dim"), [(8, 64), (64, 64), (100, 100), (500, 384)])
def test_the_network_is_as_wide_as_the_features_but_64_to_384(width, hidden_dim):
    X, y = np.random.default_rng(0).normal(size=(6, width)), [0, 1] * 3
    params = {"n_steps": 5, "logit_scale": 30, "max_iter": 1, "random_state": 0}
    model = FlowMatchingAligner(velocity_field="mlp", **params).fit(X, y)
    assert model.velocity_field_.config == {"dim": width, "hidden_dim": hidden_dim, "n_blocks": 3}
    model.set_params(hidden_dim=16, n_blocks=1).fit(X, y)
    assert model.velocity_field_.config == {"dim": width, "hidden_dim": 16, "n_blocks": 1}


def test_an_epoch_has_about_24_steps_of_32_to_256_samples():
    sizes = [default_batch_size(n) for n in (1, 767, 768, 800, 2400, 6143, 6144, 10**6)]
    assert sizes == [32, 32, 32, 33, 100, 255, 256, 256]


def test_the_aligner_takes_that_size():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(960, 4)), np.arange(960) % 2
    params = {"n_steps": 5, "logit_scale": 30, "max_iter": 1, "n_blocks": 1, "random_state": 0}
    losses = [
        FlowMatchingAligner(velocity_field="mlp", batch_size=size, **params).fit(X, y).loss_curve_
        for size in ("auto", 40, 32)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    "setting",
    [
        {"noise": 0.2},
        {"max_iter": 2},
        {"batch_size": 7},
        {"learning_rate_init": 2e-3},
        {"weight_decay": 0.02},
        {"random_state": 1},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_every_setting_of_the_training_changes_the_weights(setting):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 4)), np.arange(40) % 2
    params = {"n_steps": 5, "logit_scale": 30, "max_iter": 3, "n_blocks": 1, "random_state": 0}

    def weights(**changes):
        model = FlowMatchingAligner(velocity_field="mlp", **params | changes).fit(X, y)
        return np.concatenate(
            [w.cpu().ravel() for w in model.velocity_field_.state_dict().values()]
        )

    np.testing.assert_array_equal(weights(), weights())
    assert not np.array_equal(weights(), weights(**setting))
