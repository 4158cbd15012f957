"""Results on a URL (``s3://bucket/path``): a local mirror for DuckDB to work on, and what travels between the two.

Each attempt's folder is uploaded by the machine that ran it, its ``record.json`` last, so that a record there means
that all of the attempt is there. The store is uploaded as a snapshot, now and then. Whatever fsspec speaks will do; a
file system that does not put a file in place in one step gets it under another name and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segbench.engine.results.launch_files import DRIVER_LOCK
from segbench.engine.results.record import RECORD_NAME
from segbench.engine.results.store.reader import STORE_NAME, query, store_path
from segbench.engine.results.store.recovery import attempt_number, record_paths
from segbench.engine.results.store.writer import StoreWriter, remove_store
from segbench.errors import SegbenchError
from segbench.paths import cache_folder

MARK = "remote.json"
"""In a mirror: its URL and what is known of the snapshot there."""
_LAUNCH_FILES = ("grid.json", "driver.json")
"""What a launch writes of itself into its folder, for ``grid status``."""
LEASE = "lease.json"
_UNPUSHED = ".unpushed"
PUSH_EVERY_S = 180.0
_BEAT_S = 20.0
_LEASE_S = 600.0
"""A launch that has not renewed its lease for so long is dead."""
_WHOLE = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"))
"""File systems whose uploads appear whole or not at all."""
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs",
    "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol", "hdfs": "pyarrow",
}  # fmt: skip


def is_url(out: str | os.PathLike[str]) -> bool:
    """Return whether a results folder is named by a URL.

    Examples
    --------
    >>> is_url("s3://bucket/results"), is_url("/shared/results"), is_url("C:/results")
    (True, False, False)
    """
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", os.fspath(out)) is not None


def mirror(url: str) -> Path:
    """Return the local folder that stands for a URL, made if missing: under the cache folder, one a URL."""
    url = url.rstrip("/")
    name = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[-60:]
    folder = cache_folder() / "mirrors" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    if not (folder / MARK).exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / MARK, {"url": url})
    return folder


def url_of(out: Path) -> str | None:
    """Return the URL that a folder is the mirror of; None for an ordinary results folder."""
    found = _read_json(Path(out) / MARK).get("url")
    return str(found) if found else None


def open_mirror(url: str) -> Path:
    """Return the mirror of a URL with the newest snapshot of its store, for reading.

    While a launch of this machine writes into the mirror, that is newer than any snapshot, and nothing is fetched.

    Raises
    ------
    SegbenchError
        The URL cannot be reached, or fsspec or a package that it needs is missing.
    """
    folder = mirror(url)
    if not _driven_here(folder):
        pull_store(url, folder)
        pull_launch_files(url, folder)
    return folder


def push_attempt(url: str, folder: Path) -> None:
    """Upload an attempt's folder, ``runs/ID/attempt-NNN``, its record last.

    Raises
    ------
    OSError
        The upload failed; no record of this attempt is there then.
    """
    fs, root = _filesystem(url)
    target = f"{root}/runs/{folder.parent.name}/{folder.name}"
    if fs.exists(target) and not fs.exists(f"{target}/{RECORD_NAME}"):
        fs.rm(target, recursive=True)  # left by an upload that was cut off
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (RECORD_NAME, _UNPUSHED)]
    there = [f"{target}/{path.relative_to(folder).as_posix()}" for path in files]
    for parent in sorted({name.rpartition("/")[0] for name in [*there, f"{target}/{RECORD_NAME}"]}):
        fs.makedirs(parent, exist_ok=True)
    if files:
        fs.put([str(path) for path in files], there)
    _put_whole(fs, folder / RECORD_NAME, f"{target}/{RECORD_NAME}")


def pull_records(url: str, folder: Path, every: bool = False) -> int:
    """Fetch the records that the mirror lacks, and return how many.

    Runs that its store has finished are not looked at, unless ``every`` says so: a listing each takes its time.
    Artifacts stay where they are: ``pull_attempt`` fetches those of one attempt.
    """
    fs, root = _filesystem(url)
    finished: set[str] = set()
    if store_path(folder).exists() and not every:
        finished = set(query(folder, "select run_id from attempts where status = 'done'")["run_id"])
    sources: list[str] = []
    targets: list[Path] = []
    for run in _names(fs, f"{root}/runs"):
        for attempt in [] if run in finished else _names(fs, f"{root}/runs/{run}"):
            here = folder / "runs" / run / attempt / RECORD_NAME
            if attempt_number(Path(attempt)) and not here.exists():
                there = f"{root}/runs/{run}/{attempt}/{RECORD_NAME}"
                if fs.exists(there):
                    sources.append(there)
                    targets.append(here)
    for there, here in zip(sources, targets, strict=True):
        here.parent.mkdir(parents=True, exist_ok=True)
        _get_whole(fs, there, here)
    return len(sources)


def pull_attempt(url: str, folder: Path, record_only: bool = False) -> bool:
    """Fetch the folder of an attempt into the mirror, its record last; return whether the URL has it."""
    fs, root = _filesystem(url)
    source = f"{root}/runs/{folder.parent.name}/{folder.name}"
    if not fs.exists(f"{source}/{RECORD_NAME}"):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    for path in [] if record_only else fs.find(source):
        relative = str(path)[len(str(fs._strip_protocol(source))) :].lstrip("/")
        if relative != RECORD_NAME:
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(path, str(folder / relative))
    _get_whole(fs, f"{source}/{RECORD_NAME}", folder / RECORD_NAME)
    return True


def push_store(url: str, writer: StoreWriter) -> None:
    """Upload a snapshot of the store, and beside it what the launch wrote of itself."""
    fs, root = _filesystem(url)
    fs.makedirs(root, exist_ok=True)
    copy = writer.out / f"{STORE_NAME}.snapshot"
    try:
        writer.snapshot(copy)
        _put_whole(fs, copy, f"{root}/{STORE_NAME}")
    finally:
        copy.unlink(missing_ok=True)
    _push_launch_files(url, writer.out)
    _note_snapshot(writer.out, url, _version(fs, f"{root}/{STORE_NAME}"))


def pull_store(url: str, folder: Path) -> bool:
    """Fetch the newest snapshot of the store into the mirror; return whether there was a newer one."""
    fs, root = _filesystem(url)
    with _told(url):
        version = _version(fs, f"{root}/{STORE_NAME}")
        if version is None or (version == _read_json(folder / MARK).get("snapshot") and store_path(folder).exists()):
            return False
        part = folder / f"{STORE_NAME}.fetched-{os.getpid()}"
        fs.get_file(f"{root}/{STORE_NAME}", str(part))
        remove_store(store_path(folder))
        part.replace(store_path(folder))
    _note_snapshot(folder, url, version)
    return True


def pull_launch_files(url: str, folder: Path) -> None:
    """Fetch what the last launch wrote of itself, with the time at which it did."""
    fs, root = _filesystem(url)
    with _told(url):
        for name in _LAUNCH_FILES:
            if fs.exists(f"{root}/{name}"):
                _get_whole(fs, f"{root}/{name}", folder / name)
                at = _read_json(folder / name).get("at")
                if at is not None:  # how long ago it was tells whether the launch lives
                    os.utime(folder / name, (at, at))


def _push_launch_files(url: str, out: Path) -> None:
    fs, root = _filesystem(url)
    for name in _LAUNCH_FILES:
        if (out / name).exists():
            _put_whole(fs, out / name, f"{root}/{name}")


@dataclass
class RemoteLaunch:
    """What a launch into a mirror does besides; ``url`` is None for an ordinary folder, and nothing is done then."""

    url: str | None
    out: Path
    tell: Callable[[str], None]
    push_every_s: float = PUSH_EVERY_S
    _writer: StoreWriter | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _keeper: threading.Thread | None = None

    def keep(self, writer: StoreWriter) -> None:
        """Upload a snapshot of the writer's store every few minutes from now on, and renew the lease."""
        self._writer = writer
        if self.url is not None:
            self._keeper = threading.Thread(target=self._keep, name="segbench-remote", daemon=True)
            self._keeper.start()

    def end(self) -> None:
        """Upload what is left: attempts whose upload had failed, and the store; give the lease back."""
        if self.url is None:
            return
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join()
        with _told(self.url):
            push_left(self.url, self.out)
            if self._writer is not None:
                push_store(self.url, self._writer)
            _drop_lease(self.url)

    def _keep(self) -> None:
        assert self.url is not None
        assert self._writer is not None
        pushed = time.monotonic()
        while not self._stop.wait(min(_BEAT_S, self.push_every_s)):
            try:
                with _told(self.url):
                    _renew_lease(self.url)
                    _push_launch_files(self.url, self.out)
                    if time.monotonic() - pushed >= self.push_every_s:
                        push_store(self.url, self._writer)
                        pushed = time.monotonic()
            except SegbenchError as error:
                self.tell(f"could not upload the store, trying again later: {error}")


@contextlib.contextmanager
def launching(out: Path, tell: Callable[[str], None], push_every_s: float = PUSH_EVERY_S) -> Iterator[RemoteLaunch]:
    """Keep a mirror and its URL together for the time of a launch; an ordinary results folder is left alone.

    First the newest snapshot and the records that it lacks are fetched; the writer is opened after that, and handed to
    the launch's ``keep``. The caller holds the driver's lock.

    Raises
    ------
    SegbenchError
        The URL cannot be reached, lives within one process, or another machine's launch holds it.
    """
    url = url_of(out)
    launch = RemoteLaunch(url, out, tell, push_every_s)
    if url is not None:
        if url.startswith("memory:"):
            raise SegbenchError("memory:// lives within one process and a launch has many: name a folder or a bucket")
        with _told(url):
            _take_lease(url)
            push_left(url, out)
            pull_store(url, out)
            fetched = pull_records(url, out)
        if fetched:
            tell(f"fetched {fetched} records from {url}")
    try:
        yield launch
    finally:
        launch.end()


def push_or_mark(url: str | None, folder: Path) -> str | None:
    """Upload an attempt's folder; where that fails return why, in one line: the next launch's begin or end tries again.

    With no URL nothing is done.
    """
    if url is None:
        return None
    # before the upload: being killed in it leaves the mark
    (folder / _UNPUSHED).touch()
    try:
        with _told(url):
            push_attempt(url, folder)
    except SegbenchError as error:
        return f"could not upload {folder.parent.name}/{folder.name}: {error}"
    (folder / _UNPUSHED).unlink(missing_ok=True)
    return None


def fetch_record(out: Path, folder: Path) -> None:
    """Fetch an attempt's record into a mirror where another machine has run it; does nothing in an ordinary folder."""
    if not (folder / RECORD_NAME).exists() and (url := url_of(out)) is not None:
        with _told(url):
            pull_attempt(url, folder, record_only=True)


def push_left(url: str, out: Path) -> int:
    """Upload the attempts of a mirror whose upload failed or was cut off; return how many."""
    pushed = 0
    for mark in sorted(out.glob(f"runs/*/attempt-*/{_UNPUSHED}")):
        if (mark.parent / RECORD_NAME).exists():
            push_attempt(url, mark.parent)
            mark.unlink()
            pushed += 1
    return pushed


def pull_all(url: str, folder: Path, artifacts: bool = False) -> None:
    """Fetch every record that the mirror lacks and, if asked, the artifacts beside it."""
    with _told(url):
        pull_records(url, folder, every=True)
        for _, _, path in record_paths(folder) if artifacts else ():
            if not (path.parent / "job.json").exists():
                pull_attempt(url, path.parent)


def _driven_here(folder: Path) -> bool:
    lock = FileLock(folder / DRIVER_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _take_lease(url: str) -> None:
    fs, root = _filesystem(url)
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
    fs, root = _filesystem(url)
    lease = {"host": socket.gethostname(), "pid": os.getpid(), "renewed_at": time.time()}
    fs.pipe_file(f"{root}/{LEASE}", json.dumps(lease).encode())


def _drop_lease(url: str) -> None:
    fs, root = _filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(f"{root}/{LEASE}")


def _filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL and the path in it; raises SegbenchError where a package is missing."""
    try:
        import fsspec  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise SegbenchError(f"{url} needs the package fsspec: pip install fsspec") from None
    protocol = url.partition("://")[0].lower()
    try:
        # listings are cached by default, and another machine's attempts would stay unseen
        fs, root = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=False)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        hint = f"pip install {package}" if package else _line(error)
        raise SegbenchError(f"{protocol}:// needs a package that is not installed: {hint}") from None
    except ValueError as error:
        raise SegbenchError(f"{url} is no URL that fsspec knows: {_line(error)}") from None
    return fs, str(root).rstrip("/")


def _put_whole(fs: Any, source: Path, target: str) -> None:
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & _WHOLE:
        fs.put_file(str(source), target)
        return
    part = f"{target}.{socket.gethostname()}-{os.getpid()}.part"
    fs.put_file(str(source), part)
    fs.mv(part, target)


def _get_whole(fs: Any, source: str, target: Path) -> None:
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    fs.get_file(source, str(part))
    part.replace(target)


def _names(fs: Any, folder: str) -> list[str]:
    """Return the names in a folder there, sorted; none where it is missing."""
    try:
        found = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)


def _version(fs: Any, path: str) -> str | None:
    """Return what changes whenever a file there does; None where there is none."""
    try:
        return str(fs.ukey(path))
    except FileNotFoundError:
        return None


def _note_snapshot(folder: Path, url: str, version: str | None) -> None:
    _write_json(folder / MARK, {"url": url, "snapshot": version})


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Tell what a file system raises (permissions, no network, no such bucket) in one line."""
    try:
        yield
    except SegbenchError:
        raise
    except Exception as error:  # each file system has errors of its own, of its own classes
        raise SegbenchError(f"cannot reach {url}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    part.write_text(json.dumps(content))
    part.replace(path)
