"""Ratios within one run: this machine and the next differ, two functions called in turn do not."""

import statistics
import time

import pytest

ROUNDS = 9


@pytest.fixture
def against(benchmark):
    """Time a function in turn with another; return the median ratio, and record it."""

    def measure(ours, theirs, rounds=ROUNDS):
        def seconds(function):
            start = time.perf_counter()
            function()
            return time.perf_counter() - start

        ours(), theirs()  # warmed up
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
        ratio = statistics.median(a / b for a, b in pairs)
        benchmark.extra_info["ratio"] = round(ratio, 3)
        benchmark.pedantic(ours, rounds=3)
        return ratio

    return measure
