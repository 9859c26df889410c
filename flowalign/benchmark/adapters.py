"""Peers that are trained by gradient descent, each as in its paper unless noted.

Training sees the support features alone. Published code sees a new random view of each picture in
every epoch, which features that were encoded once cannot give.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional

from flowalign.benchmark.peer import Peer, PerSetting, cosine_logits, linear_logits
from flowalign.benchmark.peers import TipAdapter
from flowalign.sphere import CLIP_SCALE, unit_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.benchmark.peer import Scorer

BATCH_SIZE = 256


def train(
    logits: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    codes: NDArray[Any],
    n_epochs: int,
    seed: int = 0,
) -> None:
    """Minimise the cross-entropy in batches, with a rate that falls to zero along a cosine.

    ``logits`` maps the rows of a batch, (b,), to logits, (b, C).
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.from_numpy(codes)
    n_steps = n_epochs * -(-len(codes) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(codes), generator=generator).split(BATCH_SIZE):
            optimizer.zero_grad()
            functional.cross_entropy(logits(rows), labels[rows]).backward()
            optimizer.step()
            schedule.step()


class TipAdapterF(TipAdapter):
    """Tip-Adapter-F [1]_: the keys of the cache are trained too.

    20 epochs of AdamW at 1e-3, with weight and sharpness of 1 and 5.5 while training. In training,
    a sample gets no vote from its own key, which would be the sample itself. (The published code
    has a new view of each picture instead. It reports the best epoch on test; here it is the last.)

    Parameters
    ----------
    alpha, beta : float or "auto"
        As for :class:`~flowalign.benchmark.peers.TipAdapter`, but chosen after training.

    References
    ----------
    .. [1] R. Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot
       Classification", ECCV 2022, arXiv 2207.09519.
    """

    def _keys(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> NDArray[Any]:
        x, keys = torch.from_numpy(X), torch.nn.Parameter(torch.from_numpy(X.copy()))
        values = functional.one_hot(torch.from_numpy(codes), len(text)).to(x.dtype)
        zero_shot = CLIP_SCALE * x @ torch.from_numpy(text).T
        alpha, beta = self.usual["alpha"], self.usual["beta"]

        def logits(rows: Tensor) -> Tensor:
            affinity = torch.exp(-beta * (1 - x[rows] @ keys.T))
            others = affinity.scatter(1, rows[:, None], 0.0)
            return zero_shot[rows] + alpha * others @ values

        train(logits, torch.optim.AdamW([keys], lr=1e-3, eps=1e-4), codes, n_epochs=20)
        return keys.detach().numpy()


class CLIPAdapter(Peer):
    """CLIP-Adapter [1]_: a bottleneck of two layers, added to the features.

    The bottleneck has a quarter of the width, and ReLU after both layers. Training is by Adam at
    1e-3, 100 epochs in batches of 256. This is ours: the paper's rate of 1e-5 in batches of 32
    takes far longer.

    Parameters
    ----------
    ratio : float or "auto"
        Share of the bottleneck in the new features. With a single sample a class: 0.2, as in the
        published code; the paper also has 0.6, for fine-grained sets.

    References
    ----------
    .. [1] P. Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters",
       IJCV 2023, arXiv 2110.04544.
    """

    candidates: ClassVar = {"ratio": (0.2, 0.6)}
    usual: ClassVar = {"ratio": 0.2}
    n_folds: ClassVar = 2  # each takes two trainings

    def __init__(self, ratio: float | str = "auto") -> None:
        self.ratio = ratio

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return PerSetting(partial(_adapter, X, codes, text))

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Return adapted features, (n, d): the mix of bottleneck and feature, of length 1."""
        check_is_fitted(self)
        scores: Any = self._scores
        features = validate_data(self, X, reset=False)
        down, up, ratio, _ = scores.at(**self.settings_).args
        return _adapted_rows(down, up, ratio, unit_rows(features.astype(np.float32), "X"))


def _adapter(X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any], *, ratio: float) -> Scorer:
    x, targets = torch.from_numpy(X), torch.from_numpy(text)
    width, generator = X.shape[1], torch.Generator().manual_seed(0)

    def layer(n_out: int, n_in: int) -> Tensor:
        weight = torch.empty(n_out, n_in)
        torch.nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
        return weight.requires_grad_()

    down, up = layer(max(1, width // 4), width), layer(width, max(1, width // 4))

    def logits(rows: Tensor) -> Tensor:
        return CLIP_SCALE * _adapted(down, up, ratio, x[rows]) @ targets.T

    train(logits, torch.optim.Adam([down, up], lr=1e-3), codes, n_epochs=100)
    return partial(_adapter_logits, down.detach().numpy(), up.detach().numpy(), ratio, text)


def _adapted(down: Tensor, up: Tensor, ratio: float, x: Tensor) -> Tensor:
    change = functional.relu(functional.linear(functional.relu(functional.linear(x, down)), up))
    return functional.normalize(ratio * change + (1 - ratio) * x, dim=1)


def _adapted_rows(
    down: NDArray[Any], up: NDArray[Any], ratio: float, X: NDArray[Any]
) -> NDArray[Any]:
    weights = torch.from_numpy(down), torch.from_numpy(up)
    return _adapted(*weights, ratio, torch.from_numpy(X)).numpy()


def _adapter_logits(
    down: NDArray[Any], up: NDArray[Any], ratio: float, text: NDArray[Any], X_new: NDArray[Any]
) -> NDArray[Any]:
    return cosine_logits(text, _adapted_rows(down, up, ratio, X_new))


class TaskRes(Peer):
    """TaskRes [1]_: a residual is learned for each class embedding, and added with weight 0.5.

    Training is by Adam at 2e-3 in batches of 256, for 100 epochs with up to four samples a class
    and 200 with more. (The published code begins with an epoch at 1e-5.)

    Parameters
    ----------
    length : float or "auto"
        Length of the class embeddings that the residual is added to. The longer they are, the less
        a step changes them. With a single sample a class: 10, about the length of CLIP's
        embeddings, which the published code does not normalise. The choice between 10 and 1 is
        ours.

    References
    ----------
    .. [1] T. Yu et al., "Task Residual for Tuning Vision-Language Models", CVPR 2023,
       arXiv 2211.10277.
    """

    candidates: ClassVar = {"length": (1.0, 10.0)}
    usual: ClassVar = {"length": 10.0}
    n_folds: ClassVar = 2  # each takes two trainings

    def __init__(self, length: float | str = "auto") -> None:
        self.length = length

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return PerSetting(partial(_task_residual, X, codes, text))


def _task_residual(
    X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any], *, length: float
) -> Scorer:
    x, base = torch.from_numpy(X), length * torch.from_numpy(text)
    residual = torch.nn.Parameter(torch.zeros_like(base))

    def weights() -> Tensor:
        return functional.normalize(base + 0.5 * residual, dim=1)

    n_epochs = 100 if len(X) <= 4 * len(text) else 200
    optimizer = torch.optim.Adam([residual], lr=2e-3)
    train(lambda rows: CLIP_SCALE * x[rows] @ weights().T, optimizer, codes, n_epochs)
    return partial(cosine_logits, weights().detach().numpy())


class LPPlusPlus(Peer):
    r"""LP++ [1]_: a linear probe whose logits have the text blended in, class by class.

    The logits are :math:`w_c^T x + b_c + a_c\, e_c^T x` with learned weights, offsets and blends.
    Training takes 300 full gradient steps at rates from the curvature of the loss. Weights start
    from sums of the samples and move by :math:`4 n / \lambda_{\max}(X^T X)` with a momentum of 0.9.
    Blends move every tenth step. (The published code takes the best step on validation data, here
    it is the last. It moves blends along the sum of all gradients so far, here along the last.)

    Parameters
    ----------
    text : float or "auto"
        All blends start from `text` times the mean similarity of samples to their text. With a
        single sample a class: 250, as in the published code, which suits the low similarities of
        CLIP. The choice between 250 and 25 is ours, for spaces with high similarities.

    References
    ----------
    .. [1] Y. Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP",
       CVPR 2024, arXiv 2404.02285.
    """

    candidates: ClassVar = {"text": (25.0, 250.0)}
    usual: ClassVar = {"text": 250.0}
    n_folds: ClassVar = 2  # each takes two trainings

    def __init__(self, text: float | str = "auto") -> None:
        self.text = text

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        return PerSetting(partial(_blended_probe, X, codes, text_embeddings=text))


def _blended_probe(
    X: NDArray[Any], codes: NDArray[Any], *, text_embeddings: NDArray[Any], text: float
) -> Scorer:
    n, n_classes = len(X), len(text_embeddings)
    labels = np.eye(n_classes, dtype=X.dtype)[codes]
    weights, offsets = labels.T @ X, np.zeros(n_classes, X.dtype)
    similarity = X @ text_embeddings.T
    own = np.bincount(codes, similarity[np.arange(n), codes]) / np.bincount(codes)
    blends = np.full(n_classes, text * own.mean(), X.dtype)
    rate = 4 * n / np.linalg.norm(X, 2) ** 2
    blend_rate = n / (4 * np.square(similarity).sum(axis=0).max())
    speed, offset_speed = np.zeros_like(weights), np.zeros_like(offsets)
    for step in range(1, 301):
        logits = X @ weights.T + offsets + blends * similarity
        error = (softmax(logits, axis=1) - labels) / n
        speed = 0.9 * speed + error.T @ X
        offset_speed = 0.9 * offset_speed + error.sum(axis=0)
        weights, offsets = weights - rate * speed, offsets - rate * offset_speed
        if step % 10 == 0:
            blends = blends - blend_rate * (error * similarity).sum(axis=0)
    # Weights and blended text are both linear in the features, so they are one set of weights.
    return partial(linear_logits, weights + blends[:, None] * text_embeddings, offsets)
