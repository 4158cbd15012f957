"""An interrupt that compiled code hands on as another error cancels all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.statuses import Status
from segbench.engine.run.attempt import _failed


def test_an_interrupt_within_compiled_code_is_a_cancellation_and_no_failure(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path, "0" * 12, 1)
    stop = KeyboardInterrupt()
    with pytest.raises(SystemError) as caught:
        raise SystemError("returned a result with an exception set") from stop
    assert _failed(caught.value, folder) == (Status.CANCELLED, "cancelled while it ran")
    assert _failed(SystemError("bad argument"), folder)[0] is Status.FAILED
