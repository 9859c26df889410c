"""Accuracies of the variants of the method that the paper's claims compare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from tqdm import tqdm

from flowalign import ode
from flowalign.aligner import FlowMatchingAligner
from flowalign.benchmark.adapters import CLIPAdapter
from flowalign.benchmark.feature_sets import EMOJI, FeatureSet, load_feature_set
from flowalign.class_embeddings import ClassEmbeddings
from flowalign.coupling import Coupling
from flowalign.datasets import make_cross_modal
from flowalign.held_out import HeldOut
from flowalign.network.fit import KIND, default_batch_size, fit_network
from flowalign.sphere import contrasts, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOTS = (1, 4, 16)
STOP = 5  # steps of 0.1, for variants with a fixed stop
REPEATS = 10  # partners of each sample in a coupling that changes from visit to visit


def shipped() -> list[FeatureSet]:
    """Feature sets that need no download.

    The digits are scikit-learn's, of 8 x 8 pixels. They have no text. Their class embeddings are
    ten equidistant points, mapped near the class means.
    """
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X[order].astype(np.float32), y[order].astype(np.int64)
    sets = [
        load_feature_set(EMOJI),
        FeatureSet(
            "digits", X[:600], y[:600], X[600:], y[600:], ClassEmbeddings(range(10), np.eye(10)), ""
        ),
    ]
    for name, difficulty, misalignment in [
        ("easy", 1.6, 0.6),
        ("medium", 2.5, 0.8),
        ("hard", 4, 1.5),
    ]:
        data = make_cross_modal(
            30, n_train=20, difficulty=difficulty, misalignment=misalignment, random_state=0
        )
        labels = data.class_embeddings.classes
        codes = [np.searchsorted(labels, y) for y in (data.y_train, data.y_test)]
        table = ClassEmbeddings(range(len(labels)), data.class_embeddings.vectors)
        sets.append(
            FeatureSet(
                f"synthetic, {name}", data.X_train, codes[0], data.X_test, codes[1], table, ""
            )
        )
    return sets


def measure(data: FeatureSet, n_shots: int, seed: int) -> dict[str, float]:
    """Return test accuracies of all variants on one draw.

    Stops are fixed half way unless the name of a variant says otherwise. The class of a state is
    that of the most similar class embedding, so that the flow alone is measured. "auto" is the
    aligner's prediction, which also uses the model of the classes.
    """
    rows = data.draw(n_shots, seed)
    X, y = data.X_train[rows], data.y_train[rows]
    seen: dict[str, float] = {}
    for name, field in (("closed form", "gaussian"), ("network", "mlp")):
        model = FlowMatchingAligner(velocity_field=field, logit_scale=100, random_state=seed)
        model.fit(X, y, data.class_embeddings)
        seen[f"{name}, auto"] = model.score(data.X_test, data.y_test)
        stages = [right(model, x, data.y_test) for x in model.staged_transform(data.X_test)]
        seen["zero-shot"], seen[name], seen[f"{name}, whole flow"] = (
            stages[k] for k in (0, STOP, -1)
        )
        one = model.set_params(step_size=0.1 * STOP, n_steps=1)
        seen[f"{name}, one step"] = right(one, one.transform(data.X_test), data.y_test)
        plain = FlowMatchingAligner(
            velocity_field=field, noise=0, n_steps=STOP, logit_scale=100, random_state=seed
        )
        plain.fit(X, y, data.class_embeddings)
        seen[f"{name}, no noise"] = right(plain, plain.transform(data.X_test), data.y_test)
    targets = model.class_embeddings_
    for name, pair in PAIRINGS.items():
        seen[f"network, {name}"] = _coupled(data, rows, targets, pair, seed)
    adapter = CLIPAdapter(ratio=0.2).fit(X, y, data.class_embeddings)
    adapted = FlowMatchingAligner(random_state=seed)
    adapted.fit(adapter.transform(X), y, data.class_embeddings)
    X_test = adapter.transform(data.X_test)
    seen["adapted, auto"] = adapted.score(X_test, data.y_test)
    seen["adapted, zero-shot"] = adapted.set_params(n_steps=0).score(X_test, data.y_test)
    return seen


def right(model: FlowMatchingAligner, states: NDArray[Any], codes: NDArray[Any]) -> float:
    """Return the share of states, (n, d), nearest to the embedding of their own class, (n,)."""
    cosines = contrasts(torch.from_numpy(states), torch.from_numpy(model.class_embeddings_))
    return float(np.mean(cosines.argmax(dim=1).numpy() == codes))


def own_pairs(
    X: NDArray[Any], targets: NDArray[Any], codes: NDArray[Any], rng: np.random.Generator
) -> NDArray[Any]:
    """Give each sample the target of its class: (n,) codes."""
    return codes


def random_pairs(
    X: NDArray[Any], targets: NDArray[Any], codes: NDArray[Any], rng: np.random.Generator
) -> NDArray[Any]:
    """Give each sample the target of another one, drawn without replacement: (n,) codes."""
    return rng.permutation(codes)


def transport_pairs(
    X: NDArray[Any], targets: NDArray[Any], codes: NDArray[Any], rng: np.random.Generator
) -> NDArray[Any]:
    """Pair batches of samples with their targets so that the squared distances are smallest."""
    paired, size = np.empty_like(codes), default_batch_size(len(codes))
    order = rng.permutation(len(codes))
    for start in range(0, len(codes), size):
        batch = order[start : start + size]
        # All rows have length 1 or nearly so: the larger the inner product, the nearer they are.
        row, column = linear_sum_assignment(-X[batch] @ targets[codes[batch]].T)
        paired[batch[row]] = codes[batch][column]
    return paired


PAIRINGS: dict[str, Callable[..., NDArray[Any]]] = {
    "own pairs": own_pairs,
    "random pairs": random_pairs,
    "transport pairs": transport_pairs,
}


def _coupled(
    data: FeatureSet,
    rows: NDArray[Any],
    targets: NDArray[Any],
    pair: Callable[..., NDArray[Any]],
    seed: int,
) -> float:
    """Return the accuracy half way along the default network, trained on pairs of a coupling.

    In the paper's comparison, pairs change from visit to visit. Here each sample has ten copies
    with a partner each, visited a tenth as often. That makes the warm-up of the learning rate
    longer, so couplings are compared only with each other.
    """
    rng = np.random.default_rng(seed)
    X, codes = unit_rows(data.X_train[rows], "X"), data.y_train[rows]
    pairs = np.concatenate([pair(X, targets, codes, rng) for _ in range(REPEATS)])
    default = FlowMatchingAligner()
    settings = {name: getattr(default, name) for name in KIND.settings if hasattr(default, name)}
    settings["max_iter"] //= REPEATS
    settings |= {"batch_size": default_batch_size(len(X)), "seeds": (seed, seed), "device": "cpu"}
    settings["prior"] = np.full(len(targets), 1 / len(targets))
    coupling = replace(Coupling.by_class(np.tile(X, (REPEATS, 1)), pairs, targets, True), E=None)
    field = fit_network(coupling, **settings).field
    x = torch.from_numpy(unit_rows(data.X_test, "X"))
    test = HeldOut(field, x, data.y_test, torch.from_numpy(targets))
    found = test.contrasts(ode.grid(STOP, 0.1), np.array([STOP]), "euler")[0].argmax(axis=1)
    return float(np.mean(found == data.y_test))


def measure_all(
    sets: Sequence[FeatureSet], *, n_seeds: int = 3, n_jobs: int = -1
) -> dict[tuple[str, int], dict[str, NDArray[Any]]]:
    """Measure all draws; return arrays of accuracies by (set, shots) and variant."""
    tasks = [
        (data, n_shots, seed)
        for data in sets
        for n_shots in SHOTS
        for seed in range(n_seeds if np.bincount(data.y_train).max() > n_shots else 1)
    ]
    results = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(measure)(*t) for t in tasks)
    cells: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (data, n_shots, _), seen in zip(tasks, tqdm(results, total=len(tasks)), strict=True):
        for name, accuracy in seen.items():
            cells[data.name, n_shots][name].append(accuracy)
    return {
        cell: {name: np.array(values) for name, values in variants.items()}
        for cell, variants in cells.items()
    }
