"""CUDA graphs on the CPU: what `flowalign.network.graph` asks of ``torch.cuda``, in Python.

A recording holds the operations of torch with the very tensors that they read and wrote. A replay
runs them again into these. Whatever Python computed in between is left as it was, as on a GPU: a
number that should change from step to step shows when it does not.
"""

import inspect
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowalign.network import graph

SIGNATURE = inspect.signature(torch.cuda.graph)


class Graph(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []
        self.replays = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for function, args, kwargs, result in self.operations:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old is not new:
                    old.copy_(new)


class Stream:
    def __init__(self, device=None):
        self.waited_for = []

    def wait_stream(self, stream):
        self.waited_for.append(stream)


class Cuda:
    """The graphs that were begun, in which modes, and the stream that work goes to.

    ``fail`` is called with the name of each stage of a recording, and may raise.
    """

    def __init__(self):
        self.graphs, self.modes = [], []
        self.default = self.current = Stream()
        self.fail = lambda stage: None

    def CUDAGraph(self):
        self.fail("create")
        self.graphs.append(Graph())
        return self.graphs[-1]

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def graph(self, *args, **kwargs):
        bound = SIGNATURE.bind(*args, **kwargs).arguments
        self.modes.append(bound["capture_error_mode"])
        return self._capture(bound["cuda_graph"], bound["stream"])

    @contextmanager
    def _capture(self, graph, stream):
        self.current = stream  # and stays so if the recording fails, as in torch
        before = stream
        self.fail("begin")
        try:
            with graph:
                yield
                self.fail("step")
        finally:
            self.fail("end")
        self.current = before


def install(monkeypatch):
    """Let the CPU record its steps; return the :class:`Cuda` that they are recorded with."""
    cuda = Cuda()
    monkeypatch.setitem(graph.RECORDERS, "cpu", graph.record)
    graph._side_stream.cache_clear()
    for name in ("CUDAGraph", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: cuda.current)
    return cuda
