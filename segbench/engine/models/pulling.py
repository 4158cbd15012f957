"""Fetches a package from a gallery, by its index: from a folder or an address, taken up where it broke off, checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from segbench.engine.files.archives import file_sha256
from segbench.engine.models.facts import NAME
from segbench.engine.results.folder import is_url
from segbench.errors import SegbenchError, unknown_name

INDEX = "index.json"
_MOST_INDEX = 256 * 2**20
_PIECE = 2**20


@dataclass(frozen=True)
class Listed:
    """A model in a gallery's index."""

    name: str
    source: str
    """Of its package: relative to the index, or an address."""
    sha256: str
    size: int | None
    told: Mapping[str, Any]
    """The whole item."""


class Gallery:
    """A gallery's index, at an address or in a folder.

    Parameters
    ----------
    where
        The folder of the site, its address, or either with ``index.json``.

    Raises
    ------
    SegbenchError
        There is no index, or it is none.
    """

    def __init__(self, where: str) -> None:
        self.base = where.removesuffix(INDEX).rstrip("/") or "/"
        raw = self.read_json(INDEX)
        items = raw.get("items")
        if not isinstance(items, list):
            raise SegbenchError(f"{self._place(INDEX)} is no index of a gallery: it has no list of items")
        models = [_listed(item) for item in items]
        self.models = {model.name: model for model in models if model is not None}
        self.title = str(raw.get("title") or "")

    def read_json(self, name: str) -> dict[str, Any]:
        """Return a JSON object of the gallery; raises SegbenchError where there is none."""
        place = self._place(name)
        try:
            with _open(place) as file:
                content = file.read(_MOST_INDEX + 1)
            found = json.loads(content) if len(content) <= _MOST_INDEX else None
        except (ValueError, RecursionError):
            found = None
        except Exception as error:  # each kind of address has errors of its own
            raise SegbenchError(f"cannot read {place}: {_reason(error)}") from None
        if not isinstance(found, dict):
            raise SegbenchError(f"{place} is no index of a gallery: it is no JSON object")
        return found

    def find(self, name: str) -> Listed:
        """Return a model by its name; SegbenchError, with the nearest names, where there is none."""
        if name not in self.models:
            raise unknown_name("model of the gallery", name, self.models)
        return self.models[name]

    def pull(self, name: str, to: Path, progress: Callable[[str], None] | None = None) -> Path:
        """Fetch a package and check it against the index; return its file.

        A fetch that broke off left ``NAME.zip.part`` and goes on from there; a file that is there and right is kept.

        Parameters
        ----------
        name
            Of the model.
        to
            The file, or a folder for it.
        progress
            Is told how much has come.

        Raises
        ------
        SegbenchError
            There is no such model, the file cannot be fetched, or it is not the one of the index: nothing is left then.
        """
        model = self.find(name)
        target = to if to.suffix == ".zip" and not to.is_dir() else to / f"{name}.zip"
        if target.exists():
            if file_sha256(target) == model.sha256:
                return target
            raise SegbenchError(f"{target} is there and is not the gallery's {name}: move it, or name another --to")
        place = self._place(model.source)
        part = target.with_name(f"{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch(place, part, model.size, progress)
        except OSError as error:
            raise SegbenchError(f"{place} broke off: {_reason(error)}; the same command goes on from there") from None
        found = file_sha256(part)
        if found != model.sha256:
            part.unlink()
            raise SegbenchError(f"{place} has SHA-256 {found}, the index says {model.sha256}: it is not kept")
        part.replace(target)
        return target

    def _place(self, name: str) -> str:
        """Return where a file of the gallery lies; one that an index names outside of it is refused."""
        if is_url(name):
            if not is_url(self.base) or name.startswith("file:"):
                raise SegbenchError(f"the index names {name[:100]!r}, which a gallery in a folder must not")
            return name
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\\" in name or "" in parts:
            raise SegbenchError(f"the index names {name[:100]!r}, which is not a file of the gallery")
        return f"{self.base.rstrip('/')}/{name}"


def _listed(item: Any) -> Listed | None:
    """Return a model of an index; None for what is none, or has a name that is no file's."""
    try:
        version = item["versions"][-1]
        name, source, sha256 = str(item["id"]), str(version["source"]), str(version["sha256"]).lower()
        size = version.get("size_bytes")
    except (KeyError, TypeError, IndexError, AttributeError):
        return None
    if item.get("type") != "model" or not NAME.fullmatch(name):
        return None
    return Listed(name, source, sha256, int(size) if isinstance(size, int) and size >= 0 else None, item)


def _open(place: str, start: int = 0) -> IO[bytes]:
    if not is_url(place):
        file = Path(place).open("rb")  # noqa: SIM115 - whoever asks closes it
        file.seek(start)
        return file
    if place.startswith(("http://", "https://")):
        import urllib.request

        asked = {"Range": f"bytes={start}-"} if start else {}
        answer: IO[bytes] = urllib.request.urlopen(urllib.request.Request(place, headers=asked), timeout=60)
        if start and answer.status != 206:  # type: ignore[attr-defined]
            answer.close()
            raise _NoRangeError
        return answer
    import fsspec  # type: ignore[import-not-found, import-untyped, unused-ignore]

    opened: IO[bytes] = fsspec.open(place, "rb").open()
    opened.seek(start)
    return opened


class _NoRangeError(Exception):
    """The server gives files from their beginning alone."""


def _fetch(place: str, part: Path, size: int | None, progress: Callable[[str], None] | None) -> None:
    """Write a file, after what is there of it already."""
    start = part.stat().st_size if part.exists() else 0
    if size is not None and start >= size:
        if start > size:
            part.unlink()
            start = 0
        else:
            return
    try:
        source = _opened(place, start)
    except _NoRangeError:
        start, source = 0, _opened(place, 0)
    told = -1
    with source, part.open("ab" if start else "wb") as file:
        while piece := source.read(_PIECE):
            file.write(piece)
            done = file.tell()
            if size is not None and done > size:
                part.unlink()
                raise SegbenchError(f"{place} is larger than the {size:,} bytes that the index says: it is not kept")
            if progress is not None and size and done * 20 // size > told:
                told = done * 20 // size
                progress(f"{done / 1e6:.1f} of {size / 1e6:.1f} MB")
    if size is not None and part.stat().st_size < size:
        raise OSError(f"{part.stat().st_size:,} of {size:,} bytes came")


def _opened(place: str, start: int) -> IO[bytes]:
    try:
        return _open(place, start)
    except _NoRangeError:
        raise
    except Exception as error:
        raise SegbenchError(f"cannot read {place}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__
