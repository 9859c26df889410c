"""Trained peers do what their docstrings say, step by step."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn.functional import cross_entropy, normalize

from flowalign.benchmark.adapters import CLIPAdapter, LPPlusPlus, TaskRes, TipAdapterF, train
from flowalign.datasets import make_cross_modal


def make(n_train):
    return make_cross_modal(
        6, n_train=n_train, n_test=20, n_features=24, difficulty=3, misalignment=1, random_state=3
    )


def support(data):
    """Unit features, codes and unit text, as tensors."""
    codes = np.searchsorted(data.class_embeddings.classes, data.y_train)
    text = torch.tensor(data.class_embeddings.vectors, dtype=torch.float32)
    return torch.tensor(data.X_train), torch.from_numpy(codes), normalize(text)


def minimise(logits, codes, optimizer, n_steps):
    """Full steps on the cross-entropy, their rate falling along a cosine."""
    (group,) = optimizer.param_groups
    highest = group["lr"]
    for step in range(n_steps):
        group["lr"] = highest * (1 + math.cos(math.pi * step / n_steps)) / 2
        optimizer.zero_grad()
        cross_entropy(logits(), codes).backward()
        optimizer.step()


def assert_probabilities(peer, data, logits):
    fitted = peer.fit(data.X_train, data.y_train, data.class_embeddings)
    expected = softmax(logits.detach().numpy(), axis=1)
    np.testing.assert_allclose(fitted.predict_proba(data.X_test), expected, atol=1e-4)


@pytest.mark.parametrize(("n_train", "n_epochs"), [(4, 100), (5, 200)])
@pytest.mark.parametrize("length", [1.0, 10.0])
def test_task_residual(n_train, n_epochs, length):
    data = make(n_train)
    x, codes, text = support(data)
    residual = torch.zeros_like(text, requires_grad=True)

    def logits(x):
        return 100 * x @ normalize(length * text + residual / 2).T

    minimise(lambda: logits(x), codes, torch.optim.Adam([residual], lr=2e-3), n_epochs)
    assert_probabilities(TaskRes(length), data, logits(torch.tensor(data.X_test)))


@pytest.mark.parametrize("ratio", [0.2, 0.6])
def test_clip_adapter(ratio):
    data = make(4)
    x, codes, text = support(data)
    generator = torch.Generator().manual_seed(0)
    down, up = (
        torch.empty(shape).uniform_(-b, b, generator=generator).requires_grad_()
        for shape, b in [((6, 24), 24**-0.5), ((24, 6), 6**-0.5)]
    )

    def logits(x):
        change = ((x @ down.T).relu() @ up.T).relu()
        return 100 * normalize(ratio * change + (1 - ratio) * x) @ text.T

    minimise(lambda: logits(x), codes, torch.optim.Adam([down, up], lr=1e-3), 100)
    assert_probabilities(CLIPAdapter(ratio), data, logits(torch.tensor(data.X_test)))


def test_tip_adapter_with_trained_keys():
    data = make(4)
    x, codes, text = support(data)
    keys = x.clone().requires_grad_()

    def logits(x, alpha, beta, own=0.0):
        votes = torch.exp(-beta * (1 - x @ keys.T)) * (1 - own)
        return 100 * x @ text.T + alpha * votes @ torch.eye(6)[codes]

    optimizer = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4)
    minimise(lambda: logits(x, 1.0, 5.5, own=torch.eye(24)), codes, optimizer, 20)
    expected = logits(torch.tensor(data.X_test), 3.0, 2.0)
    assert_probabilities(TipAdapterF(3.0, 2.0), data, expected)


@pytest.mark.parametrize("start", [25.0, 250.0])
def test_lp_plus_plus(start):
    """Gradients by differentiation; rates from the largest curvature of the loss."""
    data = make(4)
    x, codes, text = (a.double() if a.is_floating_point() else a for a in support(data))
    labels = torch.eye(6, dtype=x.dtype)[codes]
    similarity = x @ text.T
    weights, offsets = labels.T @ x, torch.zeros(6, dtype=x.dtype)
    blends = torch.full((6,), start * float((similarity * labels).sum(dim=1).mean()), dtype=x.dtype)
    rate = 4 * len(x) / float(torch.linalg.eigvalsh(x.T @ x)[-1])
    blend_rate = len(x) / (4 * float(similarity.square().sum(dim=0).max()))
    speeds = [torch.zeros_like(weights), torch.zeros_like(offsets)]
    for step in range(1, 301):
        parts = [weights, offsets, blends]
        for part in parts:
            part.requires_grad_()
        loss = cross_entropy(x @ weights.T + offsets + blends * similarity, codes)
        *gradients, last = torch.autograd.grad(loss, parts)
        speeds = [0.9 * v + g for v, g in zip(speeds, gradients, strict=True)]
        weights = (weights - rate * speeds[0]).detach()
        offsets = (offsets - rate * speeds[1]).detach()
        blends = (blends - (blend_rate * last if step % 10 == 0 else 0)).detach()
    new = torch.tensor(data.X_test).double()
    assert_probabilities(
        LPPlusPlus(start), data, new @ weights.T + offsets + blends * (new @ text.T)
    )


def test_an_epoch_meets_each_sample_once_in_batches():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    seen, rates = [], []

    def logits(rows):
        seen.append(rows)
        rates.append(optimizer.param_groups[0]["lr"])
        return weight.expand(len(rows), 2)

    train(logits, optimizer, np.zeros(300, int), n_epochs=3)
    assert [len(rows) for rows in seen] == [256, 44] * 3
    for k in (0, 2, 4):
        assert sorted(torch.cat(seen[k : k + 2]).tolist()) == list(range(300))
    assert seen[0].tolist() != seen[2].tolist()
    np.testing.assert_allclose(rates, (1 + np.cos(np.pi * np.arange(6) / 6)) / 4, rtol=1e-6)
