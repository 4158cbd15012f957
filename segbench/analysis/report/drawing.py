"""Draws a figure of the report with matplotlib, for papers: the same rows, colours and marks as in the page."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from segbench.analysis.report.fonts import with_fonts
from segbench.analysis.report.lettering import cut, place_labels, text_width, wrapped
from segbench.analysis.report.model import METRIC, METRICS, ORDERED, TRAINED_ON, Content, Figure, Missing, Source
from segbench.analysis.report.page import build_report, choose_sections, write_report
from segbench.analysis.report.panels import DRAW, SMALL, View, distinct, in_order, labels, unmarked, widest_number
from segbench.engine.results.folder import ResultsFolder
from segbench.errors import SegbenchError, unknown_name
from segbench.small_files import write_whole

FORMATS = ("svg", "png", "pdf")
"""What can be drawn without a browser."""
# Okabe and Ito's colours: apart for every kind of colour vision
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A200", "#888888")
_MARKS = ("o", "s", "D", "^", "P", "X")
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 2)), (0, (6, 2, 1, 2)))
WIDTHS = {"single": 3.5, "double": 7.2}
"""Inches of a figure that is as wide as one column of a journal's page, and as both (89 and 183 mm)."""
_ROW, _MOST_CELLS = 0.16, 12
_TITLE = 7.0
_MOST_LABELS = 24
"""Points of a panel whose labels can be read; of more, none is written."""
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": _TITLE,
    "axes.titleweight": "bold",
    "axes.labelsize": _TITLE,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.4,
    "axes.linewidth": 0.6,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "segbench",
    # Letters as wide at any resolution: what is measured is what is drawn
    "text.hinting": "none",
    "text.usetex": False,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Plot:
    """A figure that can be drawn."""

    name: str
    """``SECTION`` for the first figure of a section, ``SECTION-2`` for its second."""
    figure: Figure
    data: pl.DataFrame
    order: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Methods and tissues as they stand in every figure of the report."""


def plots(source: Source, section: str | None = None) -> dict[str, Plot]:
    """Return the figures that a store has data for, by name; those of one section where it is named."""
    found: dict[str, Plot] = {}
    for part in choose_sections([section] if section else []):
        content = part.build(source)
        if isinstance(content, Missing):
            continue
        for n, figure in enumerate(content.figures, start=1):
            name = part.key if n == 1 else f"{part.key}-{n}"
            found[name] = Plot(name, figure, _rows(content, figure), source.order)
    return found


def find_plot(source: Source, name: str) -> Plot:
    """Return a figure by its name; raises SegbenchError where there is no such section or it has no such figure."""
    section, _, number = name.rpartition("-")
    key = section if number.isdigit() else name
    choose_sections([key])
    found = plots(source, key)
    if not found:
        raise SegbenchError(f"the store has no data for {key!r}; 'segbench report' says which command brings them")
    if name not in found:
        raise unknown_name("figure", name, found)
    return found[name]


def write_section(out: ResultsFolder, name: str, path: Path) -> None:
    """Write the section of a figure as a page of its own; raises SegbenchError where there is no such section."""
    section, _, number = name.rpartition("-")
    write_report(build_report(out, sections=[section if number.isdigit() else name]), path)


def draw(plot: Plot, path: Path, metric: str = "accuracy", train: str = "all", width: str = "double") -> None:
    """Draw a figure into a file whose ending says its format, whole or not at all.

    Parameters
    ----------
    plot
        What to draw.
    path
        Ends in .svg, .png (300 dots an inch) or .pdf.
    metric
        The metric of figures that can show several.
    train
        The training tissue of figures that show one.
    width
        ``single`` or ``double``: as wide as one column of a journal's page, or as both.

    Raises
    ------
    SegbenchError
        The format, metric or width is unknown, matplotlib is not installed, nothing is left to draw, or the file cannot
        be written.
    """
    check_format(path, FORMATS)
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if width not in WIDTHS:
        raise unknown_name("width", width, WIDTHS)
    rows = _where(plot, metric, train)
    if not rows.height:
        raise SegbenchError(f"figure {plot.name!r} has nothing to show for metric {metric} and training tissue {train}")
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        raise SegbenchError("segbench plot needs matplotlib: pip install matplotlib, or name an .html file") from None
    content = encoded(compose(plot.figure, rows, metric, WIDTHS[width], plot.order), path.suffix[1:].lower())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise SegbenchError(f"cannot write {path}: {error.strerror}") from None


def check_format(path: Path, formats: Sequence[str] = (*FORMATS, "html")) -> None:
    """Raise SegbenchError where a file's ending is none of these, or where it is a folder."""
    if path.suffix[1:].lower() not in formats:
        raise SegbenchError(f"cannot draw {path.name}: name a file that ends in .svg, .png, .pdf or .html")
    if path.is_dir():
        raise SegbenchError(f"cannot write {path}: it is a folder")


def encoded(canvas: Any, suffix: str) -> bytes:
    """Return a composed figure as a file of a format, with the letters that it uses."""
    buffer = io.BytesIO()
    # No date: the same results give the same file
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix)
    with importlib.import_module("matplotlib").rc_context(_STYLE):
        canvas.savefig(buffer, format=suffix, dpi=300, metadata=metadata)
    return with_fonts(buffer.getvalue().decode()).encode() if suffix == "svg" else buffer.getvalue()


def compose(
    figure: Figure,
    rows: pl.DataFrame,
    metric: str,
    width: float,
    order: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Any:
    """Return a figure, drawn, so many inches wide, with its words fitted into it."""
    with importlib.import_module("matplotlib").rc_context(_STYLE):
        return _composed(figure, rows, metric, width, order)


def _composed(figure: Figure, rows: pl.DataFrame, metric: str, width: float, order: Mapping[str, Sequence[str]]) -> Any:
    facets: list[Any] = distinct(rows, figure.facet) if figure.facet else [None]
    groups: list[Any] = in_order(order, figure.group, distinct(rows, figure.group)) if figure.group else [None]
    # A method looks the same in every figure
    known = order.get("method", ()) if ORDERED.get(figure.group or "") == "method" else ()
    places = [known.index(unmarked(group)) if unmarked(group) in known else n for n, group in enumerate(groups)]
    looks = {group: (_COLOURS[n % 8], _MARKS[n % 6], _DASHES[n % 6]) for group, n in zip(groups, places, strict=True)}
    columns = _columns(figure, rows, len(facets), width)
    view = View(figure, metric, width / columns, looks, order=order)
    view = replace(view, limits=_limits(view, rows))
    lines = math.ceil(len(facets) / columns)
    canvas = importlib.import_module("matplotlib.figure").Figure(layout="constrained", figsize=(width, 4), dpi=144)
    canvas.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    # So that texts can be measured
    importlib.import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(canvas)
    scale = [0.09] if figure.kind == "heatmap" and view.limits else []
    heights = [*scale, *[_height(figure, rows)] * lines]
    grid = canvas.add_gridspec(len(heights), columns, height_ratios=heights)
    panels = []
    for n, facet in enumerate(facets):
        axes = canvas.add_subplot(grid[n // columns + len(scale), n % columns])
        own = rows.filter(pl.col(figure.facet).eq_missing(facet)) if figure.facet else rows
        DRAW[figure.kind](axes, view, own)
        panels.append((axes, own))
    if scale:
        _colour_bar(canvas, canvas.add_subplot(grid[0, 0]), panels[0][0], view)
    if figure.group and figure.label != figure.group:
        _legend(canvas, [axes for axes, _ in panels], width)
    # Rows keep their height whatever stands around them: there is too much room at first
    canvas.set_size_inches(width, sum(heights) + (2.4 if scale else 1.2) * lines + 1)
    titles = ["" if facet is None else " ".join(str(facet).split()) for facet in facets]
    _fit(canvas, [axes for axes, _ in panels], titles, sum(heights), lines)
    _label(canvas, view, panels, width)
    return canvas


def _columns(figure: Figure, rows: pl.DataFrame, n_facets: int, width: float) -> int:
    """Return how many panels stand beside each other: one where a heat map's cells would have no room."""
    if width < WIDTHS["double"] or (figure.kind == "heatmap" and rows[figure.x].n_unique() > _MOST_CELLS):
        return 1
    return min(2, n_facets)


def _height(figure: Figure, rows: pl.DataFrame) -> float:
    """Return the height of a panel's axes in inches."""
    if figure.kind not in ("heatmap", "bars", "dots"):
        return 2.0
    most = rows.group_by(figure.facet).agg(pl.col(figure.y).n_unique())[figure.y].max() if figure.facet else None
    n_rows = int(most) if isinstance(most, int) else rows[figure.y].n_unique()
    groups = rows[figure.group].n_unique() if figure.kind == "dots" and figure.low and figure.group else 1
    return max(0.4, n_rows * _ROW * max(1.0, 0.55 * groups))


def _colour_bar(canvas: Any, place: Any, axes: Any, view: View) -> None:
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(3, integer=view.figure.whole)
    bar = canvas.colorbar(axes.images[0], cax=place, orientation="horizontal", ticks=ticks)
    bar.outline.set_linewidth(0.4)
    place.tick_params(length=2, width=0.4)
    place.set_title(view.title(view.figure.value_title, view.figure.value), loc="left", fontweight="normal")


def _legend(canvas: Any, panels: Sequence[Any], width: float) -> None:
    """Put the groups above the panels, in as many columns as fit."""
    known: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    names = [cut(name, SMALL, width - 0.6) for name in known]
    for columns in range(min(len(names), 8), 0, -1):
        legend = canvas.legend(
            known.values(), names, loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.2,
            borderaxespad=0.2,
        )  # fmt: skip
        if columns == 1 or legend.get_window_extent(canvas.canvas.get_renderer()).width <= (width - 0.1) * canvas.dpi:
            return
        legend.remove()


def _fit(canvas: Any, panels: Sequence[Any], titles: Sequence[str], height: float, lines: int) -> None:
    """Turn, wrap and leave out words until they fit, and make the figure as high as its panels and words need."""
    for axes in panels:
        if axes.images:
            axes.tick_params(axis="x", rotation=90)
    # A wrapped word leaves less room or more to others
    for _ in range(3):
        canvas.draw_without_rendering()
        for axes, title in zip(panels, titles, strict=True):
            _fit_words(axes, title)
        canvas.draw_without_rendering()
        drawn = sum(axes.get_position().height for axes in panels[:: max(1, len(panels) // lines)][:lines])
        around = canvas.get_figheight() * (1 - drawn)
        canvas.set_figheight(height + around)
    # Constrained layout nears its end in steps
    for _ in range(2):
        canvas.draw_without_rendering()


def _fit_words(axes: Any, title: str) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    share, inches = axes.get_position().size, axes.figure.get_size_inches()
    width, height = share[0] * inches[0], share[1] * inches[1]
    # Titles come when the panels have their width: a long one would take it from them
    axes.set_title(wrapped(title, _TITLE, width, bold=True), loc="left")
    axes.set_xlabel(wrapped(" ".join(axes.get_xlabel().split()), _TITLE, width))
    axes.set_ylabel(wrapped(" ".join(axes.get_ylabel().split()), _TITLE, height))
    ticks, room = axes.xaxis.get_major_locator(), max(2, int(width / 0.6))
    if isinstance(ticks, LogLocator):
        ticks.set_params(numticks=room)
    elif isinstance(ticks, MaxNLocator):
        ticks.set_params(nbins=min(room, 8))
    if axes.images:
        _fit_cells(axes, width / max(1, len(axes.get_xticks())))


def _fit_cells(axes: Any, cell: float) -> None:
    """Turn a heat map's columns' names, and leave its numbers out, where its cells (in inches) are too narrow."""
    names = [label.get_text() for label in axes.get_xticklabels()]
    level = max((text_width(name, SMALL) for name in names), default=0) < 0.92 * cell
    axes.tick_params(axis="x", rotation=0 if level else 90)
    if widest_number(axes) > 0.95 * cell:
        for text in list(axes.texts):
            text.remove()


def _label(canvas: Any, view: View, panels: Sequence[tuple[Any, pl.DataFrame]], width: float) -> None:
    """Write the labels of points; where there is no room for all, a legend tells them."""
    # Labels are placed by where the axes are: from here on nothing moves
    canvas.set_layout_engine("none")
    named = [(axes, labels(view, own)) for axes, own in panels]
    crowded = any(len(points) > _MOST_LABELS for _, points in named)
    if not crowded:
        left_out = [name for axes, points in named for name in place_labels(axes, points, SMALL)]
        crowded = bool(left_out)
    # A legend can take their place where each group is one label
    if crowded and view.figure.group == view.figure.label:
        for axes, _ in named:
            for text in list(axes.texts):
                text.remove()
        canvas.set_layout_engine("constrained")
        _legend(canvas, [axes for axes, _ in panels], width)
        canvas.draw_without_rendering()


def _rows(content: Content, figure: Figure) -> pl.DataFrame:
    rows = next(frame.data for frame in content.frames if frame.name == figure.frame)
    if not figure.pick or figure.value is None:
        return rows
    cell = [column for column in (figure.facet, figure.y, figure.x) if column]
    best = rows.filter(pl.col(figure.value) == pl.col(figure.value).max().over(cell))
    return best.unique(cell, keep="first", maintain_order=True)


def _where(plot: Plot, metric: str, train: str) -> pl.DataFrame:
    rows = plot.data
    for column, wanted in plot.figure.where.items():
        stands_for = {METRIC: metric, TRAINED_ON: train}
        values = [
            stands_for.get(value, value) if isinstance(value, str) else value
            for value in (wanted if isinstance(wanted, tuple) else (wanted,))
        ]
        rows = rows.filter(pl.col(column).is_in(values))
    return rows


def _limits(view: View, rows: pl.DataFrame) -> tuple[float, float] | None:
    figure = view.figure
    if figure.kind != "heatmap":
        return figure.range
    means = rows.group_by([c for c in (figure.facet, figure.y, figure.x) if c]).agg(
        pl.col(view.column(figure.value)).mean()
    )
    values = [value for value in means[view.column(figure.value)].to_list() if value is not None]
    if not values:
        return None
    if figure.diverging:
        most = max(map(abs, values)) or 1.0
        return -most, most
    low, high = min(values), max(values)
    return (low, high) if low < high else (low, high + (1 if figure.whole else 0.05))
