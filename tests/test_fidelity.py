"""The paper's recipe against its network as the paper describes it, trained beside it.

Both are read out as in the paper, by the cosines of where the flow arrives.

The full comparison with the curves of the reference implementation, over an hour of CPU, is
``docs/experiments/fidelity.py``.
"""

import numpy as np
import pytest
import torch
from fidelity import summed_classes
from paper_network import train
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn import functional

from flowalign import FlowMatchingAligner
from flowalign.datasets import make_cross_modal

EPOCHS = 60
SEEDS = range(3)


def paper_curve(X, codes, E, X_test, codes_test, seed):
    """Test accuracy after 0 to 5 Euler steps of the network, trained by the paper's recipe."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        *_, field = train(X, codes, E, EPOCHS)
        x, curve = X_test, []
        with torch.no_grad():
            for k in range(6):
                cosines = functional.normalize(x) @ functional.normalize(E).T
                curve.append(float((cosines.argmax(dim=1) == codes_test).float().mean()))
                x = x + 0.1 * field(torch.full((len(x),), 0.1 * k), x)
        return curve


@pytest.mark.slow
def test_the_papers_recipe_has_the_papers_curve():
    data = make_cross_modal(
        20, n_train=4, n_test=100, difficulty=2.5, misalignment=1.5, random_state=0
    )
    names = np.array(data.class_names)
    E = torch.tensor(np.stack(list(data.class_embeddings.to_dict().values()))).float()
    tensors = [
        torch.tensor(data.X_train), torch.tensor(np.searchsorted(names, data.y_train)), E,
        torch.tensor(data.X_test), torch.tensor(np.searchsorted(names, data.y_test)),
    ]  # fmt: skip
    paper = np.array([paper_curve(*tensors, seed) for seed in SEEDS])
    ours, codes_test = [], tensors[-1].numpy()
    for seed in SEEDS:
        model = FlowMatchingAligner(
            velocity_field="mlp", n_blocks=12, hidden_dim=data.X_train.shape[1],
            max_iter=EPOCHS, batch_size=32,
            learning_rate_init=2e-4, weight_decay=0.01, noise=0, random_state=seed,
            n_steps=5, logit_scale=100,
        ).fit(data.X_train, data.y_train, data.class_embeddings)  # fmt: skip
        ours.append([
            np.mean(cosine_similarity(states, E).argmax(axis=1) == codes_test)
            for states in model.trajectory(data.X_test)
        ])  # fmt: skip
    paper, ours = paper.mean(axis=0), np.mean(ours, axis=0)
    print("paper", paper.round(4), "ours", ours.round(4))
    assert paper[0] == pytest.approx(ours[0])
    assert paper.max() > paper[0] + 0.03  # the flow has something to do on these data
    np.testing.assert_allclose(ours, paper, atol=0.015)


def test_probabilities_are_summed_over_states():
    """The first row's class is that of no single state, the second's not that of summed logits."""
    tie, sure, three = [1.004, 0, 1, 0], [1, 0, 0, 0], [0, 1.004, 1, 1]
    states = np.array([[tie, sure], [[0, 1.004, 1, 0], three], [tie, three]])
    single = [summed_classes(state[None], np.eye(4)).tolist() for state in states]
    assert single == [[0, 0], [1, 1], [0, 1]]
    assert summed_classes(states, np.eye(4)).tolist() == [2, 0]
    assert summed_classes(3 * states, 2 * np.eye(4)).tolist() == [2, 0]  # lengths say nothing
