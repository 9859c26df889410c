"""Reading ahead in threads while the model computes, and cutting a stream into batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Outcome: TypeAlias = tuple[T, R | None, Exception | None]

# Decoding and resizing pictures, reading files and hashing them release Python's lock.
READERS = min(8, os.cpu_count() or 1)


def in_threads(
    function: Callable[[T], R],
    values: Iterable[T],
    *,
    ahead: int,
    at_once: int = 1,
    turns: bool = False,
) -> Generator[Outcome[T, R], None, None]:
    """Call a function on a stream of values in threads.

    Whoever may leave the loop early closes it, :func:`contextlib.closing`. Left to the garbage
    collector, which may come while another thread starts, it would wait for its threads just then,
    and for ever.

    Parameters
    ----------
    function : callable
        Takes a value.
    values : iterable
        The values.
    ahead : int
        How many results may wait to be taken, so that memory does not grow with the data.
    at_once : int
        Values handed to a thread together; more than one where a call takes microseconds.
    turns : bool
        Whether to start anew only when all results are taken, so that nothing runs meanwhile.

    Yields
    ------
    (value, result, error)
        In the order of `values`; one of the last two is None.
    """

    def attempt(part: list[T]) -> list[Outcome[T, R]]:
        return [_attempt(function, value) for value in part]

    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[Future[list[Outcome[T, R]]]] = deque()
        try:
            for part in batches(values, at_once):
                waiting.append(pool.submit(attempt, part))
                if len(waiting) * at_once >= ahead:
                    wait([*waiting] if turns else [waiting[0]])
                    for _ in range(len(waiting) if turns else 1):
                        yield from waiting.popleft().result()
            if turns:
                wait([*waiting])
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _attempt(function: Callable[[T], R], value: T) -> Outcome[T, R]:
    try:
        return value, function(value), None
    except Exception as error:
        return value, None, error


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of `size`, the last one shorter."""
    iterator = iter(values)
    while part := list(islice(iterator, size)):
        yield part
