"""The cache of prepared datasets: found by content, made once under a lock, complete or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock

from segbench.engine.data.checksums import note_checksums, what_is_wrong
from segbench.engine.data.opening import open_source
from segbench.engine.data.prepared import META, PreparedDataset
from segbench.engine.data.source import ProgressCallback, Source
from segbench.engine.data.spec import DatasetSpec
from segbench.errors import SegbenchError
from segbench.paths import cache_folder

PREPARATION_REVISION = 1
"""Raised whenever a change to the preparation's code changes its results; part of every fingerprint."""

_log = logging.getLogger(__name__)


def ensure_prepared(
    spec: DatasetSpec, progress: ProgressCallback | None = None, workers: int | None = None
) -> PreparedDataset:
    """Return a dataset prepared, preparing it where that is not done yet.

    Any number of processes may ask at the same time: one prepares, the others wait. A preparation that dies leaves
    nothing that looks finished. Data that did not change (by size and time of its files) are not read again.

    Parameters
    ----------
    spec
        The dataset; it need not be registered.
    progress
        Called with the split, the images done and the images of the split.
    workers
        Threads; by default one a core that this process may use, at most 16.

    Raises
    ------
    SegbenchError
        Where the data are missing or cannot be used; the cache is then as it was.
    """
    pointer = _pointer(spec)
    known = _read_pointer(pointer)
    wrong = None if known is None else _wrong(_folder(known["fingerprint"]), spec)
    if known is not None and spec.source is not None and not Path(spec.source).exists():
        if wrong is not None:
            raise SegbenchError(
                f"what was prepared of dataset {spec.name!r} is damaged ({wrong}), and {spec.source} is not on this "
                "machine: bring it back, and it is prepared anew"
            )
        _log.info("%s is not on this machine; using what was prepared from it", spec.source)
        return PreparedDataset.read(_folder(known["fingerprint"]), spec)
    source = open_source(spec)
    stamp = _stamp(source)
    if known is not None and wrong is None and known["stamp"] == stamp:
        return PreparedDataset.read(_folder(known["fingerprint"]), spec)

    fingerprint = _fingerprint(spec, source)
    folder = _folder(fingerprint)
    if not (folder / META).is_file() or _wrong(folder, spec) is not None:
        _prepare_once(spec, source, fingerprint, folder, progress, workers)
    pointer.parent.mkdir(parents=True, exist_ok=True)
    _write(pointer, {"fingerprint": fingerprint, "stamp": stamp})
    return PreparedDataset.read(folder, spec)


def find_prepared(spec: DatasetSpec) -> PreparedDataset | None:
    """Return what was last prepared of a dataset, without looking at its data; None where nothing was."""
    known = _read_pointer(_pointer(spec))
    if known is None or _unreadable(_folder(known["fingerprint"]), spec) is not None:
        return None
    return PreparedDataset.read(_folder(known["fingerprint"]), spec)


def _wrong(folder: Path, spec: DatasetSpec) -> str | None:
    """Return what is wrong with a prepared dataset; None where it may be used."""
    return _unreadable(folder, spec) or what_is_wrong(folder)


def _unreadable(folder: Path, spec: DatasetSpec) -> str | None:
    try:
        PreparedDataset.read(folder, spec)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{META} cannot be read ({type(error).__name__})"
    return None


def default_workers() -> int:
    """Return how many cores this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _prepare_once(
    spec: DatasetSpec,
    source: Source,
    fingerprint: str,
    folder: Path,
    progress: ProgressCallback | None,
    workers: int | None,
) -> None:
    # loads the compiled code, which opening a prepared dataset does not need
    from segbench.engine.data.prepare import prepare

    with _locked(fingerprint):
        if (folder / META).is_file():
            wrong = _wrong(folder, spec)
            if wrong is None:
                return
            _log.warning("what was prepared of dataset %r is damaged: %s; it is prepared anew", spec.name, wrong)
        _clean(folder.parent, fingerprint)
        part = Path(tempfile.mkdtemp(prefix=f"{fingerprint}.part-", dir=folder.parent))
        try:
            size = spec.pixel_size_um
            prepare(source, spec.preparation, part, fingerprint, progress, workers or default_workers(), size)
            # mkdtemp's folder is private to its owner; a cache may be shared
            part.chmod(0o755)
            note_checksums(part)
            if folder.exists():  # damaged: who has its arrays open keeps them
                folder.rename(folder.with_name(f"{fingerprint}.part-{secrets.token_hex(6)}"))
            part.rename(folder)
            _clean(folder.parent, fingerprint)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise SegbenchError(f"no space left in {folder.parent} for dataset {spec.name!r}") from None
            raise
        except SegbenchError as error:
            raise SegbenchError(f"dataset {spec.name!r}: {error}") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _locked(fingerprint: str) -> Iterator[None]:
    """Hold one preparation's lock; bad data take the lock file away again, and folders that only it needed."""
    path = _lock_path(fingerprint)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path):
            yield
    except SegbenchError:
        path.unlink(missing_ok=True)
        for empty in (path.parent, path.parent.parent, cache_folder()):
            with contextlib.suppress(OSError):
                empty.rmdir()
        raise


def _clean(prepared: Path, fingerprint: str) -> None:
    """Remove what preparations that died have left; those that are running hold their lock."""
    for part in prepared.glob("*.part-*"):
        owner = part.name.partition(".part-")[0]
        if owner == fingerprint:
            shutil.rmtree(part, ignore_errors=True)
            continue
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(_lock_path(owner), timeout=0):
            shutil.rmtree(part, ignore_errors=True)


def _fingerprint(spec: DatasetSpec, source: Source) -> str:
    files = source.files()
    with ThreadPoolExecutor(default_workers()) as pool:
        digests = dict(zip(files, pool.map(_digest, files), strict=True))
    # the pixel size that the user tells describes only, but where images are brought to another
    size = {} if spec.preparation.rescale_to_pixel_size is None else {"pixel_size_um": spec.pixel_size_um}
    return _hash(
        size
        | {
            "revision": PREPARATION_REVISION,
            "kind": spec.kind,
            "channels": source.channels,
            "targets": source.targets,
            "preparation": spec.preparation.to_dict(),
            "content": source.content(digests.__getitem__),
        }
    )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SegbenchError(f"{path} cannot be read: {error.strerror or error}") from None


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=list).encode()).hexdigest()[:24]


def _stamp(source: Source) -> str:
    """Hash the places, sizes and times of the files: a shortcut on one machine, never part of a fingerprint.

    The time of the last change of any kind is among them, which nobody can set back.
    """
    stats = [(path, path.stat()) for path in source.files()]
    touched = [(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in stats]
    return _hash([PREPARATION_REVISION, touched])


def _folder(fingerprint: str) -> Path:
    return cache_folder() / "prepared" / fingerprint


def _lock_path(fingerprint: str) -> Path:
    return cache_folder() / "prepared" / "locks" / f"{fingerprint}.lock"


def _pointer(spec: DatasetSpec) -> Path:
    raw = {key: value for key, value in spec.to_dict().items() if key != "name"}
    return cache_folder() / "prepared" / "known" / f"{_hash(raw)}.json"


def _read_pointer(pointer: Path) -> dict[str, str] | None:
    try:
        known = json.loads(pointer.read_bytes())
        sound = all(isinstance(known[name], str) for name in ("fingerprint", "stamp"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not sound or not re.fullmatch("[0-9a-f]+", known["fingerprint"]):
        return None
    return known if (_folder(known["fingerprint"]) / META).is_file() else None


def _write(path: Path, values: Any) -> None:
    part = Path(tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)[1])
    part.write_text(json.dumps(values, indent=1))
    part.chmod(0o644)
    part.replace(path)
