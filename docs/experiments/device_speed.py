"""Measures prediction and training on the device at hand, beside bare products of the same shapes.

    python docs/experiments/device_speed.py [--device auto] [--rows N] [--repeats N]

Prints one table, in under two minutes. Features have 512 coordinates and live in the space of the
class embeddings. Two calls that are compared are made in turn, and the ratio is the median of
theirs; where there is no number, the device or this version has nothing to measure.

``predict``: from arrays of the host, and from a tensor on the device under scikit-learn's
``array_api_dispatch``, beside the matrix products that the default steps cannot do without, of
float32, in blocks of the same size, and on CUDA from arrays also beside these and a copy of the
rows from pinned memory; beside the same method in steps of 0.1; rows a second beside
``LogisticRegression.predict``; kernels launched for each solver step of a block, and times that
the host waits for the device for each block (on a CPU, operators of torch for each step); how far
labels and probabilities are those of the CPU; and the memory that a prediction adds on the device,
beside that which :mod:`flowalign.blocks` allows for the widest array.

Training: milliseconds a step for the defaults of the network and for the paper's recipe; beside
the same step launched one operator after the other, if it is not; and launches and waits a step.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Iterator
from unittest import mock

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # read when scipy is imported

import numpy as np
import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from torch.profiler import ProfilerActivity, profile

from flowalign import ClassEmbeddings, FlowMatchingAligner, blocks, parameters
from flowalign.network import MLPField
from flowalign.network.graph import RECORDERS
from flowalign.network.training import train

Rows = Iterator[tuple[str, str | float | None]]
WIDTH = 512
STEPS = 4  # of training, in an epoch
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "hipLaunchKernel")
LAUNCHED = ("operators of torch", "launches")  # what of it is counted, unless and if on CUDA
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def seconds(call, device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def in_turn(calls: dict, device: torch.device, repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each call in each round, after a first one to warm up."""
    rounds = [[seconds(call, device) for call in calls.values()] for _ in range(repeats + 1)]
    return dict(zip(calls, np.transpose(rounds[1:]), strict=True))


def ratio(times: dict[str, np.ndarray], one: str, *others: str) -> float | None:
    """Median over the rounds of the time of one call over that of others together."""
    if not {one, *others} <= set(times):
        return None
    return float(np.median(times[one] / sum(times[other] for other in others)))


def counted(call, device: torch.device) -> np.ndarray:
    """Launches and waits of a call; on a CPU operators of torch, and none."""
    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=kinds) as found:
        call()
        wait(device)
    events = found.events()
    if device.type == "cuda":
        names = [event.name for event in events]
        return np.array([sum(n.startswith(kind) for n in names) for kind in (LAUNCHES, WAITS)])

    def inner(event) -> bool:
        return event.cpu_parent is not None and event.cpu_parent.name.startswith("aten::")

    return np.array([sum(e.name.startswith("aten::") and not inner(e) for e in events), 0])


def made_up(n_classes: int, n_rows: int):
    """Class embeddings, 8 samples of each class with labels, and rows: few that are repeated."""
    rng = np.random.default_rng(0)
    E = rng.standard_normal((n_classes, WIDTH), dtype=np.float32)
    codes = np.repeat(np.arange(n_classes), 8)
    of_rows = rng.integers(n_classes, size=min(n_rows, 2**15))
    X, rows = (
        2 * E[c] + 3 * rng.standard_normal((len(c), WIDTH), dtype=np.float32)
        for c in (codes, of_rows)
    )
    return ClassEmbeddings(np.arange(n_classes), E), X, codes, np.resize(rows, (n_rows, WIDTH))


def products(aligner: FlowMatchingAligner, X: torch.Tensor, n_rows: int):
    """What predict multiplies, and nothing else: rotation, steps, and cosines at the stop."""
    field = aligner.velocity_field_
    C = (len(aligner.classes_), WIDTH)
    means, targets = (torch.randn(C, device=X.device) for _ in range(2))

    @torch.inference_mode()
    def bare() -> None:
        for block in blocks.slices(len(X), n_rows):
            z = X[block] @ field.basis
            for _ in range(aligner.n_steps_):
                scores = z @ means.T
                if field.config["text_weight"]:
                    z @ targets.T
                z = scores @ targets
            z @ targets.T

    return bare


def from_tensor(aligner: FlowMatchingAligner, X: torch.Tensor):
    """Return what predicts from a tensor on its device, or None where that is not to be had."""

    def call():
        with sklearn.config_context(array_api_dispatch=True):
            return aligner.predict(X)

    try:
        labels = call()
    except Exception:  # a version that knows no tensors may fail in any way
        return None
    there = torch.is_tensor(labels) and labels.device.type == X.device.type
    return call if there else None


def predictions(device: torch.device, n_classes: int, n_rows: int, repeats: int) -> Rows:
    names, samples, codes, X = made_up(n_classes, n_rows)
    aligner = FlowMatchingAligner(names, device=device).fit(samples, codes)
    row_size = max(n_classes, aligner.velocity_field_.row_size)
    block_rows = blocks.state_rows(4 * row_size, device.type)
    on_device = torch.tensor(X, device=device)
    tensors = from_tensor(aligner, on_device)
    calls = {"arrays": lambda: aligner.predict(X), "bare": products(aligner, on_device, block_rows)}
    if tensors is not None:
        calls["tensors"] = tensors
    if device.type == "cuda":
        pinned = torch.from_numpy(X).pin_memory()
        calls["copy"] = lambda: on_device.copy_(pinned, non_blocking=True)
    times = in_turn(calls, device, repeats)
    yield "rows a second, from arrays", f"{n_rows / np.median(times['arrays']):,.0f}"
    yield "from arrays, beside bare products", ratio(times, "arrays", "bare")
    yield "the same and a pinned copy", ratio(times, "arrays", "bare", "copy")
    yield "from a tensor, beside bare products", ratio(times, "tensors", "bare")

    some = X[: 2**17]
    linear = LogisticRegression()
    linear.classes_, linear.coef_ = np.arange(n_classes), samples[:: len(samples) // n_classes]
    linear.intercept_ = np.zeros(n_classes, dtype=np.float32)
    fine = copy.deepcopy(aligner).set_params(n_steps=5, step_size=0.1)
    both = {"ours": aligner, "fine": fine, "linear": linear}
    times = in_turn({k: lambda v=v: v.predict(some) for k, v in both.items()}, device, repeats)
    yield "steps of 0.1, beside default ones", ratio(times, "fine", "ours")
    yield "default, beside LogisticRegression.predict", ratio(times, "ours", "linear")

    def count(n_steps: int, n_blocks: int) -> np.ndarray:
        fine.set_params(n_steps=n_steps)
        return counted(lambda: fine.predict(X[: n_blocks * block_rows]), device)

    n_blocks = min(3, n_rows // block_rows)
    if n_blocks > 1:
        count(2, 1)  # warmed up
        all_blocks = count(2, n_blocks)
        yield (
            f"{LAUNCHED[device.type == 'cuda']} a solver step",
            (count(6, n_blocks) - all_blocks)[0] / (4 * n_blocks),
        )
        yield "waits a block", ((all_blocks - count(2, 1)) / (n_blocks - 1))[1]
    if device.type != "cpu":
        on_cpu = FlowMatchingAligner(names, device="cpu").fit(samples, codes)
        P, Q = (a.predict_proba(X[:4096]) for a in (aligner, on_cpu))
        yield "share of labels as on the CPU", np.mean(P.argmax(axis=1) == Q.argmax(axis=1))
        yield "probabilities differ by at most", np.abs(P - Q).max()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        calls["arrays"]()
        yield "MiB that it adds", (torch.cuda.max_memory_allocated() - before) / 2**20
        yield "MiB allowed for the widest array", blocks.STATE_BYTES["cuda"] / 2**20


def training(device: torch.device, sizes: tuple[int, int], batch_size: int) -> Rows:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(STEPS * batch_size, WIDTH, generator=generator).to(device)
    targets = torch.randn(50, WIDTH, generator=generator).to(device)
    codes = (torch.arange(len(x0)) % 50).to(device)

    def run(epochs: int) -> None:
        field = MLPField(WIDTH, *sizes)
        field.reset_parameters(torch.Generator().manual_seed(0))
        train(
            field.to(device),
            x0,
            targets,
            codes,
            noise=0.3,
            max_iter=epochs,
            batch_size=batch_size,
            learning_rate_init=1e-4,
            weight_decay=0.01,
            seed=0,
        )

    few, many = (2, 8) if device.type == "cpu" else (25, 100)

    def step_seconds() -> float:
        """Of a run, less what it costs to begin one."""
        calls = {"short": lambda: run(few), "long": lambda: run(many)}
        times = in_turn(calls, device, repeats=2)
        return (times["long"].min() - times["short"].min()) / (STEPS * (many - few))

    ours = step_seconds()
    yield "milliseconds", 1e3 * ours
    counts = counted(lambda: run(4), device) - counted(lambda: run(2), device)
    launches, waits = counts / (2 * STEPS)
    yield f"{LAUNCHED[device.type == 'cuda']} a step", launches
    yield "waits a step", waits
    if device.type in RECORDERS:
        with mock.patch.dict(RECORDERS, clear=True):
            yield "operator by operator, beside it", step_seconds() / ours


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--repeats", type=int)
    args = parser.parse_args()
    device = parameters.check_device(args.device)
    on_cpu = device.type == "cpu"
    n_rows = args.rows or (5_000 if on_cpu else 1_000_000)
    repeats = args.repeats or (15 if on_cpu else 3)
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, {n_rows:,} rows")
    parts = {
        "predict, 50 classes": predictions(device, 50, n_rows, repeats),
        "predict, 1000 classes": predictions(device, 1000, n_rows, repeats),
        "training step, defaults": training(device, (384, 3), 65),
        "training step, the paper's recipe": training(device, (512, 12), 32),
    }
    for title, rows in parts.items():
        print(title)
        for row, value in rows:
            shown = "-" if value is None else value if isinstance(value, str) else f"{value:.3g}"
            print(f"    {row:44}{shown:>12}", flush=True)


if __name__ == "__main__":
    main()
