"""Puts sections, data, template and scripts together into one page."""

from __future__ import annotations

import importlib.resources
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segbench import __version__
from segbench.analysis.report.embed import frame_data, packed_json, safe_json
from segbench.analysis.report.model import METRICS, ORDERED, Content, Frame, Missing, Section, Source
from segbench.analysis.report.wording import duration
from segbench.analysis.undertrained import MARK
from segbench.engine.results.folder import ResultsFolder
from segbench.errors import SegbenchError, unknown_name
from segbench.small_files import write_whole
from segbench.words import WORDS

_log = logging.getLogger(__name__)

_SCRIPTS = (
    "data.js", "filters.js", "marks.js", "axes.js", "across.js", "labels.js", "figures.js", "shapes.js",
    "sentences.js", "tables.js", "examples.js", "words.js", "page.js",
)  # fmt: skip
_STYLES = ("report.css", "examples.css", "phone.css", "print.css")


@dataclass(frozen=True)
class Report:
    """A report, built."""

    html: str
    """The whole page: it needs no other file and no network (but for a linked page, the files beside it)."""
    filled: tuple[str, ...]
    """Keys of the sections with data."""
    empty: tuple[str, ...]
    """Keys of the sections for which the store has no data."""


@dataclass(frozen=True)
class _Part:
    """A section with what it holds, as the template reads it."""

    section: Section
    content: Content | None
    missing: Missing = field(default_factory=Missing)
    """Why there is none, and what would bring it."""

    @property
    def body(self) -> Content:
        assert self.content is not None
        return self.content


def build_report(
    out: ResultsFolder,
    title: str | None = None,
    sections: Sequence[str] = (),
    compare: Path | None = None,
    published: bool = False,
    linked: bool = False,
) -> Report:
    """Build the report of a results folder.

    Parameters
    ----------
    out
        The results folder.
    title
        Stands above the report; the folder's name where None.
    sections
        Keys of the sections to show, in this order; all where empty.
    compare
        Another results folder, or its store's file, to show beside this one.
    published
        Show the published scores beside the folder's own.
    linked
        Name Plotly, style and script as files beside the page (``site_files``) instead of holding them.

    Raises
    ------
    SegbenchError
        There is no store in the folder, or a section's name is unknown.
    """
    chosen = choose_sections(sections)
    source = Source(out, compare, published)
    parts = [
        part
        for part in (_part(section, source) for section in chosen)
        if part.content or sections or not part.section.optional
    ]
    frames: dict[str, Frame] = {}
    for part in parts:
        for frame in part.content.frames if part.content else ():
            frames.setdefault(frame.name, frame)
    data = {
        "metrics": dict(METRICS),
        "frames": {name: frame_data(frame) for name, frame in frames.items()},
        "sections": {
            part.section.key: {
                "figures": [asdict(figure) for figure in part.body.figures],
                "tables": [asdict(table) for table in part.body.tables],
            }
            for part in parts
            if part.content
        },
        "choices": _choices(source),
        "order": source.order,
        "ordered": dict(ORDERED),
        "words": dict(WORDS),
        "mark": MARK,
    }
    own = {part.section.key: part.body.data for part in parts if part.content and part.content.data}
    html = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title or f"segbench: {out.name}",
            parts=parts,
            data=packed_json(data),
            own=[(key, safe_json(value)) for key, value in own.items()],
            linked=linked,
            files={} if linked else site_files(),
            metrics=METRICS,
            made=datetime.now(UTC),
            version=__version__,
        )
    )
    return Report(
        html=html,
        filled=tuple(part.section.key for part in parts if part.content),
        empty=tuple(part.section.key for part in parts if not part.content),
    )


def _part(section: Section, source: Source) -> _Part:
    content = section.build(source)
    if not isinstance(content, Missing):
        return _Part(section, content)
    filled = section.fill(source)
    reason = " ".join(filter(None, (content.reason, filled.reason)))
    return _Part(section, None, Missing(reason, filled.commands))


def write_report(report: Report, path: Path) -> None:
    """Write a report's file, whole or not at all; raises SegbenchError where the folder cannot be written."""
    _write(path, report.html)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A hostile store can hold text that is no Unicode: it must not keep the report from being written
        write_whole(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise SegbenchError(f"cannot write {path}: {error.strerror}") from None


def site_files() -> dict[str, str]:
    """Return what a linked page needs beside it: file names and contents."""
    return {
        "plotly.min.js": plotly_bundle(),
        "tabulator.min.js": tabulator_bundle(),
        "report.css": _vendored("tabulator_simple.min.css") + "".join(_asset(name) for name in _STYLES),
        "report.js": "\n".join(_asset(name) for name in _SCRIPTS),
    }


def write_site(report: Report, folder: Path) -> None:
    """Write a linked report as a static site; raises SegbenchError where the folder cannot be written."""
    for name, text in site_files().items():
        _write(folder / name, text)
    _write(folder / "index.html", report.html)


def choose_sections(keys: Sequence[str]) -> tuple[Section, ...]:
    """Return the sections with these keys; raises SegbenchError with the nearest names where one is unknown."""
    from segbench.analysis.report.sections import SECTIONS

    known = {section.key: section for section in SECTIONS}
    for key in keys:
        if key not in known:
            raise unknown_name("section", key, known)
    return tuple(known[key] for key in dict.fromkeys(keys)) or SECTIONS


def plotly_bundle() -> str:
    """Return Plotly's own script, as its package ships it."""
    import plotly.offline

    return str(plotly.offline.get_plotlyjs())


def tabulator_bundle() -> str:
    """Return the script of Tabulator, the tables' library, under its licence; ``vendor`` holds it as npm has it."""
    licence = _file("vendor", "tabulator.LICENSE").strip()
    return f"/*!\nTabulator\n\n{licence}\n*/\n{_vendored('tabulator.min.js')}"


def _choices(source: Source) -> dict[str, list[Any]]:
    """Return what the global filters offer: [value, title] in order."""
    methods = source.query("select distinct method, method_title from runs_latest order by lower(method_title), method")
    tasks = source.query("select distinct task from runs_latest order by task")["task"].to_list()
    trains = source.query("select distinct train_tissue from runs_latest order by train_tissue <> 'all', train_tissue")[
        "train_tissue"
    ].to_list()
    tissues = source.query(
        "select distinct test_tissue from evaluations where test_tissue <> 'all' order by test_tissue"
    )["test_tissue"].to_list()
    return {
        "method": [list(row) for row in methods.rows()],
        "task": [[name, name] for name in tasks],
        "tissue": [[name, name] for name in tissues],
        "train": [[name, "all tissues" if name == "all" else name] for name in trains],
    }


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("segbench.analysis.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    return environment


def _asset(name: str) -> str:
    return _file("static", name)


def _vendored(name: str) -> str:
    # Without the name of a source map, which is not here: a browser's tools would ask for it
    return re.sub(r"(?://|/\*)# sourceMappingURL=\S+(?: \*/)?\s*$", "", _file("vendor", name)) + "\n"


def _file(folder: str, name: str) -> str:
    return (importlib.resources.files("segbench.analysis.report") / folder / name).read_text(encoding="utf-8")
