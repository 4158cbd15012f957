"""Writes a gallery as a static site: an index page, a page a model, pictures, packages, and indexes for programs."""

from __future__ import annotations

import importlib.resources
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench import __version__
from segbench.analysis.gallery.entries import Entry, read_entries
from segbench.analysis.gallery.index import INDEX, LIKENESS, PACKAGES, as_json, index_of, likeness_of
from segbench.analysis.gallery.pictures import Pictures
from segbench.errors import SegbenchError
from segbench.small_files import read_json, write_whole

_MARK = "gallery.json"
"""In a site's folder: that it is one, so that nothing else is overwritten."""


@dataclass(frozen=True)
class Built:
    """A gallery that was written."""

    page: Path
    models: int
    site_bytes: int
    """Of everything but the packages."""
    problems: tuple[str, ...]
    """Packages that were left out, a line each."""


def build_gallery(
    packages: Sequence[Path], site: Path, title: str = "Models", progress: Callable[[str], None] | None = None
) -> Built:
    """Write the site of some packages into a folder; what an earlier gallery left there and is not in this one goes.

    Parameters
    ----------
    packages
        Their files; those outside of the site are copied (hard-linked where the file system can) into it.
    site
        The folder: new, empty, or one that holds a gallery.
    title
        Stands above it.
    progress
        Is told what is done.

    Raises
    ------
    SegbenchError
        The folder holds something else, or no package can be read.
    """
    claim(site)
    entries, problems = read_entries(packages)
    if not entries:
        raise SegbenchError(problems[0] if problems else "no package to show: name packages, or results folders")
    pictures, environment = Pictures(), _environment()
    page = environment.get_template("model.html.j2")
    written: dict[str, str | bytes] = {}
    places = _places(entries)
    for number, entry in enumerate(entries, 1):
        if progress is not None and (number % 20 == 0 or number == len(entries)):
            progress(f"page {number} of {len(entries)}")
        panels = pictures.panels(entry, len(entries))
        written[f"model/{entry.facts.name}.html"] = page.render(
            entry=entry,
            facts=entry.facts,
            panels=panels,
            title=title,
            version=__version__,
            place=places[entry.facts.name],
        )
    written |= {f"pictures/{name}": content for name, content in pictures.files.items()}
    written["index.html"] = environment.get_template("index.html.j2").render(
        entries=entries, title=title, version=__version__, choices=_choices(entries)
    )
    written |= {name: _asset(name) for name in ("gallery.css", "gallery.js")}
    written[INDEX] = as_json(index_of(entries, title), indent=1)
    written[LIKENESS] = as_json(likeness_of(entries))
    for entry in entries:
        _bring(entry.path, site / PACKAGES / f"{entry.facts.name}.zip")
    size = sum(_write(site / name, content) for name, content in written.items())
    _clean(site, {*written, *(f"{PACKAGES}/{entry.facts.name}.zip" for entry in entries)})
    return Built(site / "index.html", len(entries), size, tuple(problems))


def claim(site: Path) -> None:
    """Make a site's folder, or take an earlier gallery's; raises SegbenchError where something else lies in it."""
    try:
        site.mkdir(parents=True, exist_ok=True)
        if any(site.iterdir()) and read_json(site / _MARK).get("made_by") != "segbench gallery":
            raise SegbenchError(f"{site} holds something that is no gallery: name another folder")
        write_whole(site / _MARK, as_json({"made_by": "segbench gallery", "version": __version__}))
    except OSError as error:
        raise SegbenchError(f"cannot write {site}: {error.strerror}") from None


def _places(entries: Sequence[Entry]) -> dict[str, tuple[int, int]]:
    """Return each model's place among those of its task, and how many these are."""
    tasks: dict[str, list[str]] = {}
    for entry in entries:
        tasks.setdefault(entry.facts.task, []).append(entry.facts.name)
    return {name: (n, len(names)) for names in tasks.values() for n, name in enumerate(names, 1)}


def _choices(entries: Sequence[Entry]) -> list[tuple[str, str, list[str]]]:
    """Return the filters: key, title, and what can be chosen."""
    facts = [entry.facts for entry in entries]
    values: list[tuple[str, str, set[str]]] = [
        ("task", "Task", {one.task for one in facts}),
        ("tissue", "Trained on", {one.train_tissue for one in facts}),
        ("method", "Method", {one.method_title for one in facts}),
        ("channel", "Channel", {channel for one in facts for channel in one.channels}),
        ("licence", "Licence", {one.licence or "not told" for one in facts}),
    ]
    return [(key, name, sorted(found, key=lambda v: (v != "all", v.lower()))) for key, name, found in values]


def _bring(source: Path, target: Path) -> None:
    if target.exists() and (source.samefile(target) or _same(source, target)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    part.replace(target)


def _same(source: Path, target: Path) -> bool:
    from segbench.engine.files.archives import file_sha256

    return source.stat().st_size == target.stat().st_size and file_sha256(source) == file_sha256(target)


def _write(path: Path, content: str | bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = content.encode("utf-8", "replace") if isinstance(content, str) else content
    write_whole(path, whole)
    return len(whole)


def _clean(site: Path, kept: set[str]) -> None:
    """Remove what an earlier gallery wrote and this one has not."""
    for folder, suffix in (("model", ".html"), ("pictures", ".webp"), (PACKAGES, ".zip")):
        for path in (site / folder).glob(f"*{suffix}"):
            if f"{folder}/{path.name}" not in kept:
                path.unlink()


def _environment() -> Any:
    import jinja2

    from segbench.analysis.report.wording import duration

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("segbench.analysis.gallery", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "size": size_text, "link": safe_link}
    return environment


def size_text(size: float) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> size_text(48_200), size_text(2_400_000_000)
    ('0.05 MB', '2.4 GB')
    """
    return f"{size / 1e9:.2g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e6:.1g} MB"


def safe_link(url: str) -> str:
    """Return an address that a page may lead to; empty for anything but http and https.

    Examples
    --------
    >>> safe_link("https://example.org"), safe_link("javascript:alert(1)")
    ('https://example.org', '')
    """
    return url if re.match(r"https?://", url) else ""


def _asset(name: str) -> str:
    return (importlib.resources.files("segbench.analysis.gallery") / "static" / name).read_text(encoding="utf-8")
