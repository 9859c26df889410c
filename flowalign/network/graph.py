"""A step of training as one CUDA graph.

A step of a small network is hundreds of kernels of a few microseconds each, and a GPU waits for
their launches most of the time. A graph records them once and launches all of them together.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import torch

WARM_UP = 3
"""Runs before a recording: libraries set themselves up in the first ones, which no graph holds."""

_one_at_a_time = threading.Lock()


def record(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record what a step does on a device, and return what does it again.

    Every tensor of the step stays where it was: a replay reads and writes the same addresses.
    Numbers that the host computed are part of the recording. The warm-up runs the step, which
    changes what it changes; to put that back is left to the caller.

    Raises
    ------
    RuntimeError
        If the step cannot be recorded. The current stream is then the one that it was before.
    """
    # Threads share the stream: what one of them did would be in the recording of another.
    with _one_at_a_time:
        stream = _side_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        try:
            # A recording that fails leaves its stream the current one; this context does not.
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    step()
                graph = torch.cuda.CUDAGraph()
                # "thread_local" lets other threads of the process go on with their own work.
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    step()
        finally:
            torch.cuda.current_stream(device).wait_stream(stream)
    return graph.replay


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all trainings: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream(device)


RECORDERS = {"cuda": record}
"""How steps are recorded, for the types of device that can."""
