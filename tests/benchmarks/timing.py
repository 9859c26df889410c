"""Seconds of a call."""

import time


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
