"""What a worker of a launch into a URL does after each attempt: its upload."""

from __future__ import annotations

import logging
from collections.abc import Callable

from segbench.engine.results.mirror import push_or_mark
from segbench.engine.run.request import AttemptRequest

_LOG = logging.getLogger(__name__)


def pushing(attempt: Callable[[AttemptRequest], None]) -> Callable[[AttemptRequest], None]:
    """Return what a worker does: the attempt and, in a mirror, its upload after that, however it ended."""

    def attempt_and_push(request: AttemptRequest) -> None:
        try:
            attempt(request)
        finally:
            if request.folder.has_record():
                told = push_or_mark(request.folder)
                if told is not None:
                    _LOG.warning(told)

    return attempt_and_push
