"""What the paper on Flow Matching Alignment claims, looked at on feature sets.

``python -m flowalign.benchmark.claims --out claims.rst`` takes the sets that come with the packages
(emoji, digits, synthetic ones of three difficulties), ``--features FOLDER`` takes your own.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from tqdm import tqdm

from flowalign import ode
from flowalign.aligner import FlowMatchingAligner
from flowalign.benchmark.adapters import CLIPAdapter
from flowalign.benchmark.feature_sets import EMOJI, FeatureSet, load_feature_set
from flowalign.benchmark.summary import interval
from flowalign.class_embeddings import ClassEmbeddings
from flowalign.coupling import Coupling
from flowalign.datasets import make_cross_modal
from flowalign.fitting import NETWORK_SETTINGS, default_batch_size, fit_network
from flowalign.spaces import cosine_similarities, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOTS = (1, 4, 16)
STOP = 5  # steps of 0.1, where stops are held fixed
EASY = 0.9  # zero-shot accuracy
REPEATS = 10  # pairings of each sample in a coupling that changes from visit to visit


@dataclass(frozen=True)
class Claim:
    """Two measured variants; the claim is that the first is better.

    Attributes
    ----------
    text : str
        The claim.
    better, worse : str
        Names of accuracies that :func:`measure` returns.
    easy_only : bool
        Whether it is about sets on which zero-shot classification is right nine times of ten.
    margin : float
        Points by which the first may be worse, where the claim is that it is no worse.
    """

    text: str
    better: str
    worse: str
    easy_only: bool = False
    margin: float = 0.0


CLAIMS = {
    "Noise on the path helps across data sizes": [
        Claim("network", "network", "network, no noise"),
        Claim("closed form", "closed form", "closed form, no noise"),
    ],
    "Many steps are better than one that goes as far": [
        Claim("network", "network", "network, one step"),
        Claim("closed form", "closed form", "closed form, one step"),
    ],
    "The coupling must follow the class label": [
        Claim("network, against random pairs", "network, own pairs", "network, random pairs"),
        Claim(
            "network, against optimal transport", "network, own pairs", "network, transport pairs"
        ),
    ],
    "Stopping early is better than the whole flow": [
        Claim("network", "network", "network, whole flow"),
        Claim("closed form", "closed form", "closed form, whole flow"),
    ],
    "On easy sets a fixed stop falls below zero-shot": [
        Claim("network", "zero-shot", "network", easy_only=True),
        Claim("closed form", "zero-shot", "closed form", easy_only=True),
    ],
    'On easy sets n_steps="auto" is no worse than zero-shot by half a point': [
        Claim("network", "network, auto", "zero-shot", easy_only=True, margin=0.5),
        Claim("closed form", "closed form, auto", "zero-shot", easy_only=True, margin=0.5),
    ],
    "Features from an adapted encoder gain as plain ones do": [
        Claim("plain features over zero-shot", "closed form, auto", "zero-shot"),
        Claim("adapted features over their zero-shot", "adapted, auto", "adapted, zero-shot"),
    ],
}


def shipped() -> list[FeatureSet]:
    """Feature sets that need no download.

    The digits are the 8 x 8 pixels of scikit-learn's. They have no text: their class embeddings
    are ten equidistant points, mapped near the class means.
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
    """Test accuracies of all variants on one draw.

    The fields have a fixed stop half way unless their name says otherwise.
    """
    rows = data.draw(n_shots, seed)
    X, y = data.X_train[rows], data.y_train[rows]
    seen: dict[str, float] = {}
    for name, field in (("closed form", "gaussian"), ("network", "mlp")):
        model = FlowMatchingAligner(velocity_field=field, logit_scale=100, random_state=seed)
        model.fit(X, y, data.class_embeddings)
        seen[f"{name}, auto"] = model.score(data.X_test, data.y_test)
        stages = [float(np.mean(p == data.y_test)) for p in model.staged_predict(data.X_test)]
        seen["zero-shot"], seen[name], seen[f"{name}, whole flow"] = (
            stages[k] for k in (0, STOP, -1)
        )
        one = model.set_params(step_size=0.1 * STOP, n_steps=1)
        seen[f"{name}, one step"] = one.score(data.X_test, data.y_test)
        plain = FlowMatchingAligner(
            velocity_field=field, noise=0, n_steps=STOP, logit_scale=100, random_state=seed
        )
        plain.fit(X, y, data.class_embeddings)
        seen[f"{name}, no noise"] = plain.score(data.X_test, data.y_test)
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


def own_pairs(
    X: NDArray[Any], targets: NDArray[Any], codes: NDArray[Any], rng: np.random.Generator
) -> NDArray[Any]:
    """Give each sample the target of its class: (n,) codes."""
    return codes


def random_pairs(
    X: NDArray[Any], targets: NDArray[Any], codes: NDArray[Any], rng: np.random.Generator
) -> NDArray[Any]:
    """Give each sample the target of another, drawn without replacement: (n,) codes."""
    return rng.permutation(codes)


def transport_pairs(
    X: NDArray[Any], targets: NDArray[Any], codes: NDArray[Any], rng: np.random.Generator
) -> NDArray[Any]:
    """Pair batches of samples with their targets so that the squared distances are smallest."""
    paired, size = np.empty_like(codes), default_batch_size(len(codes))
    order = rng.permutation(len(codes))
    for start in range(0, len(codes), size):
        batch = order[start : start + size]
        # All have length 1 or nearly so: the farther the inner product, the nearer.
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
    """Accuracy of the default network, trained on the pairs of a coupling, half way along its flow.

    Pairs change from visit to visit in the paper's comparison; here each sample has ten partners,
    in as many copies, each visited a tenth as often. That lengthens the warm-up of the learning
    rate, so couplings are compared with each other only.
    """
    rng = np.random.default_rng(seed)
    X, codes = unit_rows(data.X_train[rows], "X"), data.y_train[rows]
    pairs = np.concatenate([pair(X, targets, codes, rng) for _ in range(REPEATS)])
    default = FlowMatchingAligner()
    settings = {name: getattr(default, name) for name in NETWORK_SETTINGS}
    settings["max_iter"] //= REPEATS
    settings["batch_size"] = default_batch_size(len(X))
    coupling = Coupling(np.tile(X, (REPEATS, 1)), pairs, None, targets, True, None)
    field = fit_network(
        coupling, noise=default.noise, seeds=(seed, seed), device="cpu", **settings
    ).field
    goals = torch.from_numpy(targets)
    with torch.inference_mode():
        x = torch.from_numpy(unit_rows(data.X_test, "X"))
        states = ode.integrate(field.velocity, x, ode.grid(STOP, 0.1), last_only=True)
        found = cosine_similarities(states[-1], goals).argmax(dim=1)
    return float(np.mean(found.numpy() == data.y_test))


def measure_all(
    sets: Sequence[FeatureSet], *, n_seeds: int = 3, n_jobs: int = -1
) -> dict[tuple[str, int], dict[str, NDArray[Any]]]:
    """Measure all draws: of set and shots, of each variant the accuracies of the draws."""
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


def page(cells: dict[tuple[str, int], dict[str, NDArray[Any]]]) -> str:
    """Write the page, as reStructuredText."""
    sets = list(dict.fromkeys(name for name, _ in cells))
    n_draws = max(len(values["zero-shot"]) for values in cells.values())
    parts = [
        _heading("The paper's claims", "="),
        f"Made by ``python -m flowalign.benchmark.claims`` on {len(sets)} feature sets "
        f"({'; '.join(sets)}), {n_draws} draws where there are samples left to draw. Figures are "
        "points of test accuracy by which one variant is above another, mean over draws and sets, "
        "with Student's 95 % interval over sets, each averaged over its numbers of shots. Stops "
        "are fixed half way unless a name says otherwise, so that nothing is chosen on test. "
        "*Confirmed* and *contradicted* need an interval that excludes zero, and so four sets.",
    ]
    parts += [_difficulty(cells)]
    for title, claims in CLAIMS.items():
        rows = [_row(claim, cells) for claim in claims]
        head = ["", *(f"{k} shot{'s' if k > 1 else ''}" for k in SHOTS), "all", "verdict"]
        parts += [_heading(title, "-"), _table([head, *rows])]
    return "\n\n".join(parts) + "\n"


def _row(claim: Claim, cells: dict[tuple[str, int], dict[str, NDArray[Any]]]) -> list[str]:
    gaps = {
        cell: 100 * float(np.mean(seen[claim.better] - seen[claim.worse]))
        for cell, seen in cells.items()
        if not claim.easy_only or seen["zero-shot"].mean() >= EASY
    }
    sets = list(dict.fromkeys(name for name, _ in gaps))  # a set's order changes from run to run
    if not sets:
        return [claim.text, *[""] * len(SHOTS), "", "no such sets"]
    by_shots = [[gap for (_, k), gap in gaps.items() if k == n_shots] for n_shots in SHOTS]
    shown = [_signed(np.mean(found)) if found else "" for found in by_shots]
    mean, low, high = interval(
        [
            float(np.mean([gap for (other, _), gap in gaps.items() if other == name]))
            for name in sets
        ]
    )
    spread = f" [{_signed(low)}, {_signed(high)}]" if np.isfinite(low) else ""
    return [
        claim.text,
        *shown,
        _signed(mean) + spread,
        verdict(low + claim.margin, high + claim.margin),
    ]


def verdict(low: float, high: float) -> str:
    """Say what an interval speaks for."""
    if np.isnan(low):
        return "too few sets"
    if low <= 0 <= high:
        return "not decided"
    return "confirmed" if low > 0 else "contradicted"


def _signed(points: Any) -> str:
    return f"{round(float(points), 1) + 0.0:+.1f}"  # no -0.0


def _difficulty(cells: dict[tuple[str, int], dict[str, NDArray[Any]]]) -> str:
    rows = [["set", "shots", "zero-shot", "closed form gains", "network gains"]]
    points = defaultdict(list)
    for (name, n_shots), seen in cells.items():
        base = seen["zero-shot"].mean()
        gains = [seen[f"{field}, auto"].mean() - base for field in ("closed form", "network")]
        rows.append([name, str(n_shots), f"{100 * base:.1f}", *(_signed(100 * g) for g in gains)])
        points[n_shots].append((base, gains[0]))
    found = [
        f"{spearmanr(*np.transpose(pairs)).statistic:+.2f} at {n_shots}"
        for n_shots, pairs in points.items()
        if len(pairs) > 2 and np.ptp(pairs, axis=0).all()
    ]
    said = (
        "Where class names live in another space than the features, zero-shot means their mapped "
        "embeddings, which have seen the support set. Rank correlation over sets of zero-shot "
        f"accuracy and the gain of the closed form, by shots: {', '.join(found) or 'too few sets'}."
        " The claim asks for negative ones; a handful of sets can hardly confirm it."
    )
    return "\n\n".join([_heading("Gains are largest on difficult sets", "-"), said, _table(rows)])


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def _table(rows: list[list[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for k, cell in enumerate(row):
            lines.append(f"   {'* -' if k == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m flowalign.benchmark.claims",
        description="Check the paper's claims on feature sets, by default on those that ship.",
    )
    parser.add_argument("--out", type=Path, required=True, help="the page, an .rst file")
    parser.add_argument("--features", type=Path, help="folder of .npz feature sets")
    parser.add_argument("--seeds", type=int, default=3, help="number of draws")
    parser.add_argument("--jobs", type=int, default=-1, help="draws at once")
    args = parser.parse_args(arguments)
    sets = shipped()
    if args.features:
        sets = [load_feature_set(path) for path in sorted(args.features.glob("*.npz"))]
        if not sets:
            parser.error(f"--features: no .npz file at {args.features}")
    args.out.write_text(page(measure_all(sets, n_seeds=args.seeds, n_jobs=args.jobs)), "utf-8")


if __name__ == "__main__":
    main()
