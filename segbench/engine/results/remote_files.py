"""Files on a URL, through fsspec: put and fetched whole, with errors of one line."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError

_WHOLE = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"))
"""File systems whose uploads appear whole or not at all."""
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "hdfs": "pyarrow",
}


def filesystem(url: str) -> tuple[Any, str]:
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


@contextlib.contextmanager
def told(url: str) -> Iterator[None]:
    """Tell what a file system raises (permissions, no network, no such bucket) in one line."""
    try:
        yield
    except SegbenchError:
        raise
    except Exception as error:  # each file system has errors of its own, of its own classes
        raise SegbenchError(f"cannot reach {url}: {_line(error)}") from None


def put_whole(fs: Any, source: Path, target: str) -> None:
    """Upload a file so that it is there whole or not at all."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & _WHOLE:
        fs.put_file(str(source), target)
        return
    part = f"{target}.{socket.gethostname()}-{os.getpid()}.part"
    fs.put_file(str(source), part)
    fs.mv(part, target)


def get_whole(fs: Any, source: str, target: Path) -> None:
    """Fetch a file so that it is here whole or not at all."""
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    fs.get_file(source, str(part))
    part.replace(target)


def names(fs: Any, folder: str) -> list[str]:
    """Return the names in a folder there, sorted; none where it is missing."""
    try:
        found = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)


def version(fs: Any, path: str) -> str | None:
    """Return what changes whenever a file there does; None where there is none."""
    try:
        return str(fs.ukey(path))
    except FileNotFoundError:
        return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
