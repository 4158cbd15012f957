"""What a launch into a mirror does besides: it holds the URL by a lease, and keeps the store there up to date."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.mirror import pull_records, pull_store, push_launch_files, push_left, push_store
from segbench.engine.results.remote_files import filesystem, told
from segbench.engine.results.store.writer import StoreWriter
from segbench.errors import SegbenchError

LEASE = "lease.json"
PUSH_EVERY_S = 180.0
_BEAT_S = 20.0
_LEASE_S = 600.0
"""A launch that has not renewed its lease for so long is dead."""


@dataclass
class MirroredLaunch:
    """Keeps a mirror's URL up to date while a launch runs; for a local results folder nothing is done."""

    out: ResultsFolder
    tell: Callable[[str], None]
    push_every_s: float = PUSH_EVERY_S
    _writer: StoreWriter | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _keeper: threading.Thread | None = None

    def keep(self, writer: StoreWriter) -> None:
        """Upload a snapshot of the writer's store every few minutes from now on, and renew the lease."""
        self._writer = writer
        if self.out.url is not None:
            self._keeper = threading.Thread(
                target=self._keep, args=(self.out.url, writer), name="segbench-remote", daemon=True
            )
            self._keeper.start()

    def end(self) -> None:
        """Upload what is left: attempts whose upload had failed, and the store; give the lease back."""
        if self.out.url is None:
            return
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join()
        with told(self.out.url):
            push_left(self.out)
            if self._writer is not None:
                push_store(self._writer)
            _drop_lease(self.out.url)

    def _keep(self, url: str, writer: StoreWriter) -> None:
        pushed = time.monotonic()
        while not self._stop.wait(min(_BEAT_S, self.push_every_s)):
            try:
                with told(url):
                    _renew_lease(url)
                    push_launch_files(self.out)
                    if time.monotonic() - pushed >= self.push_every_s:
                        push_store(writer)
                        pushed = time.monotonic()
            except SegbenchError as error:
                self.tell(f"could not upload the store, trying again later: {error}")


@contextlib.contextmanager
def launching(
    out: ResultsFolder, tell: Callable[[str], None], push_every_s: float = PUSH_EVERY_S
) -> Iterator[MirroredLaunch]:
    """Keep a mirror and its URL together for the time of a launch; a local results folder is left alone.

    First the newest snapshot and the records that it lacks are fetched; the writer is opened after that, and handed to
    the launch's ``keep``. The caller holds the driver's lock.

    Raises
    ------
    SegbenchError
        The URL cannot be reached, lives within one process, or another machine's launch holds it.
    """
    launch = MirroredLaunch(out, tell, push_every_s)
    if out.url is not None:
        if out.url.startswith("memory:"):
            raise SegbenchError("memory:// lives within one process and a launch has many: name a folder or a bucket")
        with told(out.url):
            _take_lease(out.url)
            push_left(out)
            pull_store(out)
            fetched = pull_records(out)
        if fetched:
            tell(f"fetched {fetched} records from {out.url}")
    try:
        yield launch
    finally:
        launch.end()


def _take_lease(url: str) -> None:
    fs, root = filesystem(url)
    fs.makedirs(root, exist_ok=True)
    try:
        holder = json.loads(fs.cat_file(f"{root}/{LEASE}"))
    except (FileNotFoundError, ValueError):
        holder = {}
    alive = time.time() - float(holder.get("renewed_at", 0)) < _LEASE_S
    if alive and holder.get("host") != socket.gethostname():
        raise SegbenchError(
            f"another 'segbench grid launch' (process {holder.get('pid')} on {holder.get('host')}) "
            f"is running in {url}: wait for it, or name another --out; "
            f"a dead one is forgotten after {_LEASE_S / 60:.0f} minutes"
        )
    _renew_lease(url)


def _renew_lease(url: str) -> None:
    fs, root = filesystem(url)
    lease = {"host": socket.gethostname(), "pid": os.getpid(), "renewed_at": time.time()}
    fs.pipe_file(f"{root}/{LEASE}", json.dumps(lease).encode())


def _drop_lease(url: str) -> None:
    fs, root = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(f"{root}/{LEASE}")
