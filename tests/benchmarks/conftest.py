"""Ratios within one run: this machine and the next differ, two functions called in turn do not."""

import statistics
import threading
from pathlib import Path

import pytest
from timing import seconds

ROUNDS = 9


def pytest_addoption(parser):
    parser.addoption(
        "--feature-sets",
        type=Path,
        help="folder of feature sets, as docs/experiments/feature_sets.py describes them, and a "
        "reference.json: fits are compared on these, and in accuracy too",
    )


@pytest.fixture
def against(benchmark):
    """Time a function in turn with another; return the median ratio, and record it."""

    def measure(ours, theirs, rounds=ROUNDS):
        ours(), theirs()  # warmed up
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
        ratio = statistics.median(a / b for a, b in pairs)
        benchmark.extra_info["ratio"] = round(ratio, 3)
        benchmark.pedantic(ours, rounds=3)
        return ratio

    return measure


def _anonymous():
    """Anonymous memory of this process in bytes: pages of a mapped file do not count (Linux)."""
    # (smaps_rollup says it too, but walks all pages for it: what it watches takes twice as long.)
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.fixture
def added_memory():
    """Return the most memory, in bytes, that a call adds."""

    def measure(function):
        before, peak, done = _anonymous(), [0], threading.Event()

        def watch():
            while not done.wait(0.01):
                peak[0] = max(peak[0], _anonymous() - before)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            function()
        finally:
            done.set()
            watcher.join()
        return peak[0]

    return measure
