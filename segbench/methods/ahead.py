"""Makes things in threads a few ahead of their use, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_AHEAD = 2
"""Things that are made or ready beside one for each thread."""
_Drawn = TypeVar("_Drawn")
_Made = TypeVar("_Made")


def made_ahead(drawn: Iterable[_Drawn], make: Callable[[_Drawn], _Made], workers: int) -> Iterator[_Made]:
    """Yield what is made of each of ``drawn``, in their order.

    Parameters
    ----------
    drawn
        What decides each thing; taken from in this thread, at most a few ahead and never past its end.
    make
        Makes it, in one of the threads.
    workers
        Threads; 1 makes each as it is asked for, in this one.

    Examples
    --------
    >>> list(made_ahead([3, 1, 2], lambda n: n * n, workers=2))
    [9, 1, 4]
    """
    if workers == 1:
        yield from map(make, drawn)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as threads:
        waiting: deque[Future[_Made]] = deque()
        try:
            for one in drawn:
                waiting.append(threads.submit(make, one))
                if len(waiting) >= workers + _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
