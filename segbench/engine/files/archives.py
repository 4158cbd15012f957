"""Opens zip archives that may come from anyone, and writes archives of which the same files give the same bytes."""

from __future__ import annotations

import hashlib
import lzma
import re
import secrets
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segbench.errors import SegbenchError

SUMS = "SHA256SUMS"
"""The list of checksums in an archive, a line ``HEX  NAME`` for every other file: ``sha256sum -c`` reads it."""
_PIECE = 2**20
_ALLOWED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LINE = re.compile(r"([0-9a-f]{64})  ([^\r\n]+)")
_MOST_SUMS = 2**22


@dataclass(frozen=True)
class Limits:
    """What an archive may hold."""

    files: int = 2_000
    total_bytes: int = 16 * 10**9
    """Of all files together, unpacked."""
    ratio: int = 1_100
    """Unpacked bytes for each packed one; deflate reaches 1,032."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_archive(path: Path, files: Mapping[str, Path | bytes]) -> str:
    """Write a zip archive with a list of checksums; the same files give the same bytes. Return its SHA-256.

    Parameters
    ----------
    path
        Of the archive, written whole or not at all; its folder is made.
    files
        Contents, or the files that hold them, by name in the archive.

    Raises
    ------
    SegbenchError
        It cannot be written.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sums: list[str] = []
        with zipfile.ZipFile(part, "w") as archive:
            for name in sorted(files):
                sums.append(f"{_add(archive, name, files[name])}  {name}\n")
            _add(archive, SUMS, "".join(sums).encode())
        part.replace(path)
    except OSError as error:
        raise SegbenchError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return file_sha256(path)


def _add(archive: zipfile.ZipFile, name: str, content: Path | bytes) -> str:
    # a time, a mode and a system of its own would make two archives of the same files differ
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr, entry.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
    entry.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
    digest = hashlib.sha256()
    with archive.open(entry, "w") as target:
        for piece in (content,) if isinstance(content, bytes) else _pieces(content):
            digest.update(piece)
            target.write(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def unpack(path: Path, folder: Path, limits: Limits | None = None) -> dict[str, str]:
    """Unpack a zip archive into a new folder, if all of it is what it says; return each file's SHA-256 by its name.

    Nothing in it is believed: names that lead out of the folder, links, two files of one name, encrypted entries, more
    than the limits allow (as claimed, and as it comes), and files that differ from its list of checksums, or are not on
    it, are refused. The folder is there whole or not at all.

    Parameters
    ----------
    path
        The archive.
    folder
        The new folder.
    limits
        What the archive may hold.

    Raises
    ------
    SegbenchError
        It is no such archive, or the folder is there already; one line.
    """
    if folder.exists():
        raise SegbenchError(f"{folder} is there already: nothing is unpacked over it")
    limits = limits or Limits()
    part = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
    try:
        with _opened(path) as archive:
            entries = _checked_entries(path, archive, limits)
            part.mkdir(parents=True)
            left = limits.total_bytes
            found: dict[str, str] = {}
            for entry in entries:
                found[entry.filename], size = _extract(path, archive, entry, part, left)
                left -= size
        _compare(path, part, found)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {name: digest for name, digest in found.items() if name != SUMS}


def read_member(path: Path, name: str, most_bytes: int = 2**24) -> bytes:
    """Return one file of a zip archive, read into memory; raises SegbenchError as ``unpack`` does."""
    with _opened(path) as archive:
        entries = {entry.filename: entry for entry in _checked_entries(path, archive, Limits())}
        if name not in entries:
            raise SegbenchError(f"{path} holds no {name}")
        if entries[name].file_size > most_bytes:
            raise SegbenchError(f"{path}: {name} is larger than the {most_bytes:,} bytes that are read of it")
        with archive.open(entries[name]) as file:
            return file.read(most_bytes + 1)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        raise SegbenchError(f"{path} is not a whole zip archive (damaged or cut off): {error}") from None
    except OSError as error:
        raise SegbenchError(f"cannot read {path}: {error.strerror or error}") from None


def _checked_entries(path: Path, archive: zipfile.ZipFile, limits: Limits) -> list[zipfile.ZipInfo]:
    """Return the files of an archive; raises SegbenchError for the first entry that is not allowed."""
    entries = archive.infolist()
    if len(entries) > limits.files:
        raise SegbenchError(f"{path} is refused: it holds {len(entries):,} files, {limits.files:,} are allowed")
    total = sum(entry.file_size for entry in entries)
    if total > limits.total_bytes:
        raise SegbenchError(
            f"{path} is refused: it claims to unpack to {total / 1e9:.3g} GB, {limits.total_bytes / 1e9:.3g} GB are "
            "allowed"
        )
    files, seen = [], set[str]()
    for entry in entries:
        problem = _problem(entry, limits)
        key = entry.filename.rstrip("/").casefold()
        if problem is None and key in seen:
            problem = "two entries have this name"
        if problem is not None:
            raise SegbenchError(f"{path} is refused: {entry.filename[:80]!r}: {problem}")
        seen.add(key)
        if not entry.is_dir():
            files.append(entry)
    folders = {str(parent).casefold() for entry in files for parent in PurePosixPath(entry.filename).parents}
    for entry in files:
        if entry.filename.casefold() in folders:
            raise SegbenchError(f"{path} is refused: {entry.filename[:80]!r}: it is a file and a folder")
    return files


def _problem(entry: zipfile.ZipInfo, limits: Limits) -> str | None:
    """Return why an entry is not allowed; None where it is."""
    name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
    parts = name.rstrip("/").split("/")
    checks = {
        "its name leads out of the archive": name.startswith(("/", "~")) or ".." in parts,
        "its name is not that of a file": not name.strip("/") or "" in parts or "." in parts or len(name) > 400,
        "its name has characters that no file's name should have": bool(re.search(r'[\x00-\x1f\x7f\\:*?"<>|]', name)),
        "it is a link or a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "it is encrypted": bool(entry.flag_bits & 0x1),
        "it is packed in a way that is not read": entry.compress_type not in _ALLOWED,
        "it unpacks to a thousand times its size": entry.file_size > limits.ratio * max(entry.compress_size, 1),
    }
    return next((problem for problem, holds in checks.items() if holds), None)


def _extract(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path, left: int) -> tuple[str, int]:
    """Write one file; return its SHA-256 and size. What comes is counted, whatever was claimed."""
    target = to / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with archive.open(entry) as source, target.open("xb") as file:
        while piece := source.read(_PIECE):
            size += len(piece)
            if size > min(left, entry.file_size):
                raise SegbenchError(f"{path} is refused: {entry.filename[:80]!r} unpacks to more than it claims")
            digest.update(piece)
            file.write(piece)
    if size != entry.file_size:
        raise SegbenchError(f"{path} is refused: {entry.filename[:80]!r} is cut off")
    return digest.hexdigest(), size


def _compare(path: Path, folder: Path, found: Mapping[str, str]) -> None:
    """Raise SegbenchError where the files are not those of the list of checksums."""
    listed = folder / SUMS
    if not listed.is_file():
        raise SegbenchError(f"{path} is refused: it has no {SUMS}, so that its files cannot be checked")
    if listed.stat().st_size > _MOST_SUMS:
        raise SegbenchError(f"{path} is refused: its {SUMS} is too long")
    sums: dict[str, str] = {}
    for line in listed.read_text(errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise SegbenchError(f"{path} is refused: its {SUMS} has a line that is no checksum: {line[:60]!r}")
        sums[match[2]] = match[1]
    for name in sorted(found.keys() - {SUMS} | sums.keys()):
        if name not in found:
            raise SegbenchError(f"{path} is refused: {name[:80]!r} is on its list of checksums and not in it")
        if name not in sums:
            raise SegbenchError(f"{path} is refused: {name[:80]!r} is not on its list of checksums")
        if sums[name] != found[name]:
            raise SegbenchError(f"{path} is refused: the checksum of {name[:80]!r} is wrong: it was changed or damaged")
