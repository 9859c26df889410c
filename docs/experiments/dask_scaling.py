"""Reports what Dask workers bring to predictions of many rows, and what the scheduler takes.

    python docs/experiments/dask_scaling.py [--rows 500000] [--classes 100] [--repeats 3]

Rows, 512 features in a ``.npy`` file, are assigned to classes in blocks of 10,000 by one and by two
single-thread workers, processes both, in turn; their start is not counted. Then blocks in which
nothing is done, more and more of them: what each takes, with all processes on this machine. Rows
are random, as the time does not depend on them; the model is fitted to a synthetic support set of
16 shots.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster

from flowalign import FlowMatchingAligner, SavedAligner, save
from flowalign.datasets import make_cross_modal

WIDTH = 512
BLOCK = 10_000
BLOCKS_OF_NOTHING = (1_000, 4_000, 16_000, 64_000)


def predict(span: tuple[int, int], path: Path, saved: SavedAligner) -> np.ndarray:
    return saved.predict(np.load(path, mmap_mode="r")[slice(*span)])


def bulk(client: Client, path: Path, saved: SavedAligner, n_rows: int) -> tuple[float, np.ndarray]:
    """Seconds, and the labels."""
    client.run(saved.predict, np.load(path, mmap_mode="r")[:100])  # loads model and modules
    spans = [(i, min(i + BLOCK, n_rows)) for i in range(0, n_rows, BLOCK)]
    start = time.perf_counter()
    futures = client.map(predict, spans, path=path, saved=saved, pure=False)
    labels = np.concatenate(client.gather(futures))
    return time.perf_counter() - start, labels


def nothing(client: Client, n_blocks: int) -> tuple[float, float]:
    """Seconds of so many empty blocks; and of them those of this process, scheduler and client."""
    start, own = time.perf_counter(), time.process_time()
    client.gather(client.map(len, [()] * n_blocks, pure=False))
    return time.perf_counter() - start, time.process_time() - own


def cluster(n_workers: int) -> LocalCluster:
    return LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    data = make_cross_modal(args.classes, n_train=16, n_test=1, n_features=WIDTH, random_state=0)
    aligner = FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(aligner, folder / "model.safetensors")
        saved, path = SavedAligner(folder / "model.safetensors"), folder / "rows.npy"
        rows = np.lib.format.open_memmap(path, "w+", np.float32, (args.rows, WIDTH))
        rng = np.random.default_rng(0)
        for i in range(0, args.rows, BLOCK):
            rows[i : i + BLOCK] = rng.standard_normal(
                (min(BLOCK, args.rows - i), WIDTH), np.float32
            )
        rows.flush()
        ratios = []
        for _ in range(args.repeats):
            results = []
            for n_workers in (1, 2):
                with cluster(n_workers) as workers, Client(workers) as client:
                    results.append(bulk(client, path, saved, args.rows))
            (one, labels), (two, again) = results
            assert (labels == again).all()
            ratios.append(two / one)
            print(
                f"one worker {one:6.1f} s, {args.rows / one:7.0f} rows a second, "
                f"two {two:6.1f} s, ratio {two / one:.3f}"
            )
        print(f"median ratio {np.median(ratios):.3f}")
    with cluster(2) as workers, Client(workers) as client:
        nothing(client, 100)
        for n_blocks in BLOCKS_OF_NOTHING:
            taken, own = (1e3 * seconds / n_blocks for seconds in nothing(client, n_blocks))
            print(f"{n_blocks:6} blocks {taken:.2f} ms each, scheduler and client {own:.2f} ms")


if __name__ == "__main__":
    main()
