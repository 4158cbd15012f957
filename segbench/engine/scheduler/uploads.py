"""What a worker of a launch into a URL does after each attempt: its upload."""

from __future__ import annotations

import logging
from collections.abc import Callable

from segbench.engine.results.mirror import push_or_mark
from segbench.engine.results.record import RECORD_NAME
from segbench.engine.run.attempt import AttemptRequest, Outcome

_LOG = logging.getLogger(__name__)


def pushing(url: str | None, attempt: Callable[[AttemptRequest], Outcome]) -> Callable[[AttemptRequest], Outcome]:
    """Return what a worker does for a launch into a mirror: the attempt, and then its upload, however it ended."""
    if url is None:
        return attempt

    def attempt_and_push(request: AttemptRequest) -> Outcome:
        try:
            return attempt(request)
        finally:
            if (request.folder / RECORD_NAME).exists():
                told = push_or_mark(url, request.folder)
                if told is not None:
                    _LOG.warning(told)

    return attempt_and_push
