"""A million rows from a memory-mapped file: seconds, and memory beside that of the file.

Usage: ``python predict_speed.py FOLDER [--rows 1000000] [--classes 1000] [--features 512]``. The
file is made in FOLDER, 2 GB at the defaults, and kept for the next run. Memory is anonymous
memory (Linux): pages of the mapped file, which the system may drop at any time, do not count.
"""

import argparse
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from flowalign import ClassEmbeddings, FlowMatchingAligner


def anonymous():
    """Return the anonymous memory of this process in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1024


def watched(function):
    """Return the seconds of a call, and the most memory that it added, in MiB."""
    peak, done = [anonymous()], threading.Event()
    before = peak[0]

    def watch():
        while not done.wait(0.05):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    try:
        function()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        thread.join()
    return seconds, peak[0] - before


def main():
    """Print rows per second and memory, ours and logistic regression's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--features", type=int, default=512)
    options = parser.parse_args()
    n, d, n_classes = options.rows, options.features, options.classes
    rng = np.random.default_rng(0)
    E = rng.standard_normal((n_classes, d), dtype=np.float32)
    file = options.folder / f"rows_{n}_{n_classes}_{d}.npy"
    if not file.exists():
        rows = np.lib.format.open_memmap(file, "w+", np.float32, (n, d))
        for start in range(0, n, 10_000):
            part = rows[start : start + 10_000]
            codes = rng.integers(n_classes, size=len(part))
            part[:] = 2 * E[codes] + 3 * rng.standard_normal(part.shape, dtype=np.float32)
        rows.flush()
    X = np.load(file, mmap_mode="r")
    codes = np.repeat(np.arange(n_classes), 4)
    support = 2 * E[codes] + 3 * rng.standard_normal((len(codes), d), dtype=np.float32)
    aligner = FlowMatchingAligner(ClassEmbeddings(np.arange(n_classes), E)).fit(support, codes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its accuracy is not the question
        logistic = LogisticRegression(max_iter=5).fit(support, codes)
    print(f"{n} x {d}, {n_classes} classes, n_steps_={aligner.n_steps_}")
    for name, model in (("flowalign", aligner), ("logistic regression", logistic)):
        seconds, mebibytes = watched(lambda model=model: model.predict(X))
        print(f"{name:>20}: {n / seconds:10,.0f} rows a second, {mebibytes:8,.0f} MiB")


if __name__ == "__main__":
    main()
