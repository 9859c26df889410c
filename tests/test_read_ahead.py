"""Reading ahead keeps the order, and does not run away."""

import threading
import time

import numpy as np
import pytest
from number_files import ReadingEncoder

from flowalign import FlowMatchingAligner, fit_blocks
from flowalign.read_ahead import READERS, batches, in_threads


@pytest.mark.parametrize("at_once", [1, 3])
def test_results_come_in_order_with_their_errors(at_once):
    def inverse(value):
        time.sleep(0.001 * (value % 3))
        return 1 / value

    values = [4, 3, 0, 2, 1, 5, 6]
    outcomes = [*in_threads(inverse, values, ahead=4, at_once=at_once)]
    assert [value for value, _, _ in outcomes] == values
    assert [result for _, result, _ in outcomes] == [1 / v if v else None for v in values]
    assert [type(error) for _, _, error in outcomes if error] == [ZeroDivisionError]


def test_no_more_than_ahead_is_waiting():
    started = []
    stream = in_threads(started.append, range(1000), ahead=10)
    next(stream)
    time.sleep(0.05)
    assert len(started) <= 11
    stream.close()
    assert len(started) <= 11


def test_closing_starts_nothing_that_was_waiting():
    started, go_on = [], threading.Event()

    def wait(value):
        started.append(value)
        if value:
            go_on.wait(10)

    stream = in_threads(wait, range(1000), ahead=200)
    next(stream)
    threading.Timer(0.2, go_on.set).start()
    stream.close()  # waits for those that run
    assert len(started) <= READERS + 1


def test_reading_goes_on_while_the_consumer_works():
    read = threading.Event()
    stream = in_threads(lambda value: value == 5 and read.set(), range(10), ahead=8)
    next(stream)
    assert read.wait(10)
    stream.close()


def test_batches_are_full_but_the_last():
    assert [*batches(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [*batches([], 3)] == []


def test_taking_turns_nothing_runs_while_the_consumer_works():
    started, finished = [], []

    def work(value):
        started.append(value)
        time.sleep(0.005 * value)
        finished.append(value)

    stream = in_threads(work, range(10), ahead=4, turns=True)
    for taken, _ in enumerate(stream):
        assert len(started) == len(finished) == min(10, 4 * (taken // 4 + 1))
        time.sleep(0.01)
        assert len(started) == len(finished) == min(10, 4 * (taken // 4 + 1))


def threads_at_work():
    return [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize("cached", [True, False])
def test_an_error_leaves_no_threads(cached, tmp_path):
    """To be waited for by the garbage collector, while another thread starts."""
    encoder = ReadingEncoder(cache=tmp_path / "cache" if cached else None)
    with pytest.raises(FileNotFoundError) as kept:  # its traceback holds the frames
        encoder.transform([f"{i}.txt" for i in range(99)])
    assert threads_at_work() == []
    assert kept.value


def test_a_block_that_is_wrong_leaves_no_threads():
    blocks = [(np.full((3, 2), np.nan), ["a", "b", "b"])] * 9
    with pytest.raises(ValueError, match="Block 0") as kept:
        fit_blocks(FlowMatchingAligner(), iter(blocks))
    assert threads_at_work() == []
    assert kept.value
