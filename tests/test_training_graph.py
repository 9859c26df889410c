"""Recorded steps train as steps that are launched one by one, and give way to them."""

import math

import pytest
import torch
from cuda_stand_in import Cuda, install
from torch.utils._python_dispatch import TorchDispatchMode

from flowalign import path
from flowalign.network import MLPField, graph, training

needs_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
BUDGET = {
    "noise": 0.3,
    "max_iter": 6,
    "batch_size": 8,
    "learning_rate_init": 1e-2,
    "weight_decay": 0.1,
    "seed": 3,
}


@pytest.fixture
def cuda(monkeypatch):
    """A stand-in for CUDA on which the CPU records its steps."""
    stand_in = install(monkeypatch)
    yield stand_in
    graph._side_stream.cache_clear()


def problem(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    field = MLPField(5, 16, 2)
    field.reset_parameters(generator)
    x0 = torch.randn(20, 5, generator=generator)
    targets = torch.randn(3, 5, generator=generator)
    return field.to(device), x0.to(device), targets.to(device), (torch.arange(20) % 3).to(device)


def weights_of(field):
    return torch.nn.utils.parameters_to_vector(field.parameters()).detach()


def run(device="cpu", **changes):
    """Losses and weights of a training."""
    field, *data = problem(device)
    losses = training.train(field, *data, **BUDGET | changes)
    return losses, weights_of(field)


def assert_same(one, other):
    assert one[0] == other[0]
    assert torch.equal(one[1], other[1])


def textbook(noise, batch_size, max_iter, learning_rate_init, weight_decay, seed):
    """The training loop with nothing kept in place: new tensors and a number for each step."""
    field, x0, targets, codes = problem()
    generator = torch.Generator().manual_seed(seed)
    sigma = noise * path.rms(x0)
    optimizer = torch.optim.AdamW(field.parameters(), weight_decay=weight_decay, fused=True)
    n_batches = math.ceil(len(x0) / batch_size)
    losses = []
    for epoch in range(max_iter):
        total = torch.zeros(())
        for k, rows in enumerate(torch.randperm(len(x0), generator=generator).split(batch_size)):
            t = torch.rand(len(rows), generator=generator)
            eps = torch.randn(len(rows), 5, generator=generator) if noise else None
            ends = x0[rows], targets[codes[rows]]
            u = path.derivative(t, *ends, eps, sigma)
            loss = (field(t, path.point(t, *ends, eps, sigma)) - u).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = learning_rate_init * training.learning_rate_factor(
                epoch * n_batches + k, n_batches, max_iter * n_batches
            )
            optimizer.step()
            total += loss.detach() * (len(rows) / len(x0))
        losses.append(float(total))
    return losses, weights_of(field)


SETTINGS = [
    {},
    {"noise": 0.0},
    {"batch_size": 10},
    {"batch_size": 7},
    {"batch_size": 64},
    {"max_iter": 1},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_the_numbers_are_those_of_the_textbook_loop(changes):
    assert_same(run(**changes), textbook(**BUDGET | changes))


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_replays_give_the_numbers_of_plain_steps(changes, cuda):
    """Times, noise, rate and rows are new in each of them; the warm-up leaves no trace."""
    assert_same(run(**changes), textbook(**BUDGET | changes))
    settings = BUDGET | changes
    size, epochs = min(20, settings["batch_size"]), settings["max_iter"]
    replays = [epochs * (20 // size)] + [epochs] * (20 % size > 0)
    assert sorted(g.replays for g in cuda.graphs) == sorted(replays)


def test_a_step_is_run_for_the_warm_up_and_the_recording_alone(cuda):
    field, *data = problem()
    sizes, streams, locked = [], [], []

    def note(module, inputs):
        sizes.append(len(inputs[1]))
        streams.append(cuda.current)
        locked.append(graph._one_at_a_time.locked())

    field.register_forward_pre_hook(note)
    training.train(field, *data, **BUDGET)
    # Other threads may go on with their work, but for recordings of their own.
    assert all(locked)
    assert cuda.modes == ["thread_local"] * 2
    runs = graph.WARM_UP + 1
    assert sizes in ([8] * runs + [4] * runs, [4] * runs + [8] * runs)
    # All on one stream beside the usual one; each waits for what was left to the other.
    assert len(set(streams)) == 1
    (side,) = set(streams)
    assert side is not cuda.default is cuda.current
    assert side.waited_for == [cuda.default] * 2
    assert cuda.default.waited_for == [side] * 2


def test_no_gradient_is_left(cuda):
    """Gradients lie in the memory of the graphs."""
    field, *data = problem()
    training.train(field, *data, **BUDGET)
    assert [weight.grad for weight in field.parameters()] == [None] * len(list(field.parameters()))


STAGES = ["create", "begin", "step", "end"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", [1, 2])
def test_a_recording_that_fails_leaves_plain_steps_from_a_clean_start(stage, number, cuda):
    """Whatever fails, and be it the graph of the last batch, after that of the others."""
    seen = []

    def fail(name):
        seen.append(name)
        if name == stage and seen.count(name) == number:
            raise torch.OutOfMemoryError("the driver is too old")  # a RuntimeError

    cuda.fail = fail
    with pytest.warns(RuntimeWarning, match=r"without a CUDA graph.*the driver is too old"):
        losses_and_weights = run()
    assert_same(losses_and_weights, textbook(**BUDGET))
    assert [g.replays for g in cuda.graphs] == [0] * len(cuda.graphs)
    assert cuda.current is cuda.default


def test_a_step_that_cannot_warm_up_fails_as_a_plain_step_does(cuda):
    field, *data = problem()
    before = weights_of(field)

    def broken(module, inputs):
        raise RuntimeError("no memory for a step")

    field.register_forward_pre_hook(broken)
    with (
        pytest.warns(RuntimeWarning, match="no memory"),
        pytest.raises(RuntimeError, match="no memory"),
    ):
        training.train(field, *data, **BUDGET)
    assert torch.equal(weights_of(field), before)


@pytest.mark.parametrize("stage", STAGES)
def test_a_recording_that_is_interrupted_leaves_the_field_as_it_was(stage, cuda):
    field, *data = problem()
    before = weights_of(field)

    def interrupt(name):
        if name == stage:
            raise KeyboardInterrupt

    cuda.fail = interrupt
    with pytest.raises(KeyboardInterrupt):
        training.train(field, *data, **BUDGET)
    assert torch.equal(weights_of(field), before)
    assert cuda.current is cuda.default
    cuda.fail = lambda stage: None  # the next training finds nothing in its way
    assert_same(run(), textbook(**BUDGET))


def test_an_interrupted_training_keeps_what_its_steps_have_learned(cuda, monkeypatch):
    def interrupted(epochs, **kwargs):
        yield from list(epochs)[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "tqdm", interrupted)
    weights = []
    for recorders in (graph.RECORDERS, {}):
        monkeypatch.setattr(graph, "RECORDERS", recorders)
        field, *data = problem()
        with pytest.raises(KeyboardInterrupt):
            training.train(field, *data, **BUDGET)
        weights.append(weights_of(field))
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], weights_of(problem()[0]))
    assert sum(g.replays for g in cuda.graphs) == 6


@pytest.mark.parametrize("rate", [1e30, 1e39, math.inf])
def test_a_replayed_training_that_diverges_names_the_learning_rate(rate, cuda):
    with pytest.raises(ValueError, match="learning_rate_init"):
        run(learning_rate_init=rate)
    assert sum(g.replays for g in cuda.graphs) == 18


@pytest.mark.parametrize("rate", [1e39, math.inf])
def test_a_rate_beyond_float32_is_the_largest_one(rate):
    tensor = torch.tensor(0.5)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=tensor, fused=True)
    training._set_rate(optimizer, rate)
    assert float(tensor) == torch.finfo(torch.float32).max


def test_a_device_without_a_fused_optimiser_takes_its_rate_as_a_number(monkeypatch):
    fused, weights = run()
    monkeypatch.setattr(training, "FUSED", ())
    losses, other = run()
    assert losses == pytest.approx(fused, rel=1e-4)
    torch.testing.assert_close(other, weights, rtol=0, atol=1e-4)


class NoReading(TorchDispatchMode):
    """Refuses operations for which a host would wait for its device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten._to_copy.default,
        ), function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("recorded", [True, False])
def test_nothing_is_read_within_an_epoch(recorded, monkeypatch):
    def watched(epochs, **kwargs):
        with NoReading():
            yield from epochs

    stand_in = install(monkeypatch) if recorded else Cuda()
    expected = run()
    monkeypatch.setattr(training, "tqdm", watched)
    assert_same(run(), expected)
    assert len(stand_in.graphs) == 4 * recorded


# ------------------------------------------------------------------ on a GPU


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_cuda)])
def test_a_gpu_computes_the_same_with_graphs_and_without(changes, device, monkeypatch):
    losses, weights = run(device, **changes)
    again = run(device, **changes)
    monkeypatch.setattr(graph, "RECORDERS", {})
    plain = run(device, **changes)
    assert losses == pytest.approx(plain[0], rel=1e-4)
    assert losses == pytest.approx(again[0], rel=1e-6)
    torch.testing.assert_close(weights, plain[1], rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_cuda)])
def test_a_gpu_is_never_waited_for_within_an_epoch(recorded, device, monkeypatch):
    def watched(epochs, **kwargs):
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield from epochs
        finally:
            torch.cuda.set_sync_debug_mode("default")

    if not recorded:
        monkeypatch.setattr(graph, "RECORDERS", {})
    expected = run(device)[0]
    monkeypatch.setattr(training, "tqdm", watched)
    assert run(device)[0] == pytest.approx(expected, rel=1e-4)
