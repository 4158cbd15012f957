"""Runs a command that ends, with all that it has started, when its starter ends: ``python guarded.py COMMAND...``.

Who starts it keeps the other end of its standard input open. When that closes, because the starter was killed, or when
the command has ended, everything below this process is killed: also what has left the process group, for on Linux
orphans become this process's children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

import psutil

_SUBREAPER = 36
_LAST_S = 5.0


def command(asked: Sequence[str]) -> list[str]:
    """Return the command that runs another one guarded; its standard input is to be a pipe."""
    return [sys.executable, "-I", __file__, *asked]


def main(asked: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(asked, stdin=subprocess.DEVNULL, start_new_session=True)

    def stop(_: int, __: FrameType | None) -> None:
        end_below()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        end_below()

    threading.Thread(target=watch, name="starter-watch", daemon=True).start()
    code = process.wait()
    end_below()
    return code if code >= 0 else 128 - code


def end_below() -> None:
    """Kill every process below this one, and those that these start meanwhile."""
    own, deadline = psutil.Process(), time.monotonic() + _LAST_S
    while time.monotonic() < deadline:
        below = [one for one in own.children(recursive=True) if _lives(one)]
        if not below:
            return
        for one in below:
            with contextlib.suppress(psutil.Error):
                one.kill()
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
