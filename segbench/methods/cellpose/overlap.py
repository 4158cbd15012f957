"""Lets a batch be prepared and the masks of another be finished on the processor while a third is on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any


def overlapped(
    batches: Iterable[Any],
    prepare: Callable[[Any], Any],
    run: Callable[[Any], Sequence[tuple[Any, ...]]],
    finish: Callable[..., Any],
    threads: int,
) -> Iterator[Any]:
    """Yield ``finish(*part)`` of all parts of ``run(prepare(batch))`` of all batches, in order.

    Parameters
    ----------
    batches
        What is prepared together; each is asked for when the one before is in work.
    prepare, finish
        Run in other threads.
    run
        Runs in this thread.
    threads
        How many others there may be.

    Examples
    --------
    >>> list(overlapped([1, 2], prepare=lambda n: n * 10, run=lambda n: [(n,), (n + 1,)], finish=str, threads=2))
    ['10', '11', '20', '21']
    """
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        left = iter(batches)
        ahead: list[Future[Any]] = [pool.submit(prepare, batch) for batch in islice(left, 1)]
        ends: list[Future[Any]] = []
        while ahead:
            ready = ahead.pop().result()
            ahead = [pool.submit(prepare, batch) for batch in islice(left, 1)]
            before, ends = ends, [pool.submit(finish, *part) for part in run(ready)]
            for end in before:
                yield end.result()
        for end in ends:
            yield end.result()
