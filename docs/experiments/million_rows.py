"""Reports how fast ``fit_blocks`` reads rows from files, and in how much memory.

    python docs/experiments/million_rows.py FOLDER [--rows 1000000] [--classes 1000] [--check]

Writes rows of 512 features, float32, in random order of their classes, and integer labels into
.npy files in FOLDER, which are removed afterwards: 2 GB a million. Fits to the first tenth of the
files and to all: seconds, rows a second (of all, and of what the second fit has more, which is
without what a fit costs whatever the number of rows), and the largest anonymous memory of the
process, of which mapped files are no part. Beside them, in the same run, bare products
``rows.T @ rows`` of the same files in float32 and in float64, in blocks, summed in float64. Before
anything is timed, all files are read once. With ``--check``, also the largest difference of
class means and of entries of the covariance from those by statistics that are float64 throughout,
relative to the largest entry. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import re
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from flowalign import ClassEmbeddings, FlowMatchingAligner, fit_blocks
from flowalign.gaussian import GaussianModel
from flowalign.gaussian.statistics import ClassStatistics

WIDTH, N_FILES, BLOCK = 512, 10, 2**13


def anonymous_memory() -> float:
    """Of this process, in GiB."""
    found = re.search(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**20


@contextmanager
def watched():
    """Seconds, and the memory before and at its peak, of what is done within."""
    gc.collect()
    result = {"before": anonymous_memory(), "peak": 0.0}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            result["peak"] = max(result["peak"], anonymous_memory())

    thread = threading.Thread(target=look)
    thread.start()
    start = time.perf_counter()
    try:
        yield result
    finally:
        result["seconds"] = time.perf_counter() - start
        done.set()
        thread.join()


def write(folder: Path, n_rows: int, E: np.ndarray) -> tuple[list[Path], list[Path]]:
    rng = np.random.default_rng(0)
    features, labels = [], []
    for k in range(N_FILES):
        n = n_rows // N_FILES
        features.append(folder / f"features-{k}.npy")
        labels.append(folder / f"labels-{k}.npy")
        codes = rng.integers(len(E), size=n)
        np.save(labels[-1], codes)
        X = np.lib.format.open_memmap(features[-1], "w+", np.float32, (n, WIDTH))
        for rows in starts(n):
            noise = rng.standard_normal(X[rows].shape, np.float32)
            X[rows] = 2 * E[codes[rows]] + 3 * noise
        X.flush()
    return features, labels


def starts(n: int) -> list[slice]:
    return [slice(i, i + BLOCK) for i in range(0, n, BLOCK)]


def products(paths: list[Path], dtype: torch.dtype) -> torch.Tensor:
    """Sum of all ``rows.T @ rows``."""
    total = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    for path in paths:
        X = np.load(path, mmap_mode="r")
        for rows in starts(len(X)):
            part = torch.tensor(X[rows], dtype=dtype)
            total += part.T @ part
    return total


def statistics_in_float64(features: list[Path], labels: list[Path], n: int) -> ClassStatistics:
    """Of rows of length 1, by sums of squares."""
    counts = torch.zeros(n, dtype=torch.float64)
    sums, squares = counts.new_zeros(n, WIDTH), counts.new_zeros(WIDTH, WIDTH)
    for path, of_labels in zip(features, labels, strict=True):
        X, y = np.load(path, mmap_mode="r"), torch.from_numpy(np.load(of_labels))
        for rows in starts(len(X)):
            part = torch.tensor(X[rows], dtype=torch.float64)
            part /= part.norm(dim=1, keepdim=True)
            counts += torch.bincount(y[rows], minlength=n)
            sums.index_add_(0, y[rows], part)
            squares += part.T @ part
    means = sums / counts[:, None]
    return ClassStatistics(counts, sums, squares - sums.T @ means)


def covariance_of(model: GaussianModel) -> torch.Tensor:
    basis = model.within.basis
    return (basis * model.within.variances) @ basis.T


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.cpu(), other.cpu()
    return float((one - other).abs().max() / other.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    E = np.random.default_rng(1).standard_normal((args.classes, WIDTH), np.float32)
    table = ClassEmbeddings(np.arange(args.classes), E)
    features, labels = write(args.folder, args.rows, E)
    try:
        report(features, labels, table, check=args.check)
    finally:
        for path in features + labels:
            path.unlink()


def report(
    features: list[Path], labels: list[Path], table: ClassEmbeddings, *, check: bool
) -> None:
    n_rows = sum(len(np.load(path, mmap_mode="r")) for path in labels)
    for path in features:
        np.load(path, mmap_mode="r").max()
    n_classes, n_threads = len(table.classes), torch.get_num_threads()
    print(f"{n_rows:,} rows of {WIDTH}, {n_classes} classes, threads: {n_threads}")
    speeds = {}
    for n_files in (1, N_FILES):
        aligner = FlowMatchingAligner(table)
        with watched() as seen:
            fit_blocks(aligner, features[:n_files], labels[:n_files])
        n = n_rows * n_files // N_FILES
        speeds[n] = seen["seconds"]
        print(
            f"fit to {n:12,}: {seen['seconds']:7.1f} s, {n / seen['seconds']:9,.0f} rows a second; "
            f"anonymous memory {seen['before']:.2f} GiB before, {seen['peak']:.2f} at its peak",
            flush=True,
        )
    (few, short), (many, long) = speeds.items()
    pace = (many - few) / (long - short)
    print(f"each row more: {pace:,.0f} rows a second")
    for dtype in (torch.float32, torch.float64):
        with watched() as seen:
            products(features, dtype)
        speed = n_rows / seen["seconds"]
        shares = f"the fit has {many / long / speed:.2f} of it, each row more {pace / speed:.2f}"
        print(f"products of {dtype}: {speed:,.0f} rows a second; {shares}", flush=True)
    if check:
        statistics = statistics_in_float64(features, labels, n_classes)
        vectors = torch.tensor(table.vectors, dtype=torch.float64)
        vectors /= vectors.norm(dim=1, keepdim=True)
        exact, model = GaussianModel.of(statistics, vectors), aligner.gaussian_model_
        means = apart(model.class_means.means, exact.class_means.means)
        covariance = apart(covariance_of(model), covariance_of(exact))
        print(f"differences: means {means:.1e}, covariance {covariance:.1e}")


if __name__ == "__main__":
    main()
