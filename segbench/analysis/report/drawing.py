"""Draws a figure of the report with matplotlib, for papers: the same rows, colours and marks as in the page."""

from __future__ import annotations

import importlib
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from segbench.analysis.report.model import METRIC, METRICS, TRAINED_ON, Content, Figure, Missing, Source
from segbench.analysis.report.page import build_report, choose_sections, write_report
from segbench.engine.results.folder import ResultsFolder
from segbench.errors import SegbenchError, unknown_name

FORMATS = ("svg", "png", "pdf")
"""What can be drawn without a browser."""
# Okabe and Ito's colours: apart for every kind of colour vision
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A200", "#888888")
_MARKS = ("o", "s", "D", "^", "P", "X")
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 2)), (0, (6, 2, 1, 2)))
_PANEL_WIDTH, _ROW, _COLUMNS = 3.5, 0.24, 2
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.linewidth": 0.6,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "segbench",
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


def plots(source: Source, section: str | None = None) -> dict[str, Plot]:
    """Return the figures that a store has data for, by name; those of one section where it is named."""
    found: dict[str, Plot] = {}
    for part in choose_sections([section] if section else []):
        content = part.build(source)
        if isinstance(content, Missing):
            continue
        for n, figure in enumerate(content.figures, start=1):
            name = part.key if n == 1 else f"{part.key}-{n}"
            found[name] = Plot(name, figure, _rows(content, figure))
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


def draw(plot: Plot, path: Path, metric: str = "accuracy", train: str = "all") -> None:
    """Draw a figure into a file whose ending says its format.

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

    Raises
    ------
    SegbenchError
        The format or metric is unknown, matplotlib is not installed, or nothing is left to draw.
    """
    if path.suffix[1:].lower() not in FORMATS:
        raise SegbenchError(f"cannot draw {path.name}: name a file that ends in .svg, .png, .pdf or .html")
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    try:
        matplotlib = importlib.import_module("matplotlib")
        new_canvas = importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise SegbenchError("segbench plot needs matplotlib: pip install matplotlib, or name an .html file") from None
    view = _View(plot.figure, metric)
    rows = _where(plot, metric, train)
    if not rows.height:
        raise SegbenchError(f"figure {plot.name!r} has nothing to show for metric {metric} and training tissue {train}")
    with matplotlib.rc_context(_STYLE):
        canvas = new_canvas(layout="constrained")
        _draw_panels(canvas, view, rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        # No date: the same results give the same file
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
        canvas.savefig(path, dpi=300, metadata=metadata)


@dataclass(frozen=True)
class _View:
    """A figure with the metric put in."""

    figure: Figure
    metric: str
    look: Mapping[Any, tuple[str, str, Any]] = field(default_factory=dict)
    """Colour, mark and dash of each group."""
    limits: tuple[float, float] | None = None
    """Of the heat map's colours, or of the bars' axis; the same in all panels."""

    def column(self, name: str | None) -> str:
        return self.metric if name == METRIC else name or ""

    def title(self, *names: str | None) -> str:
        """Return the first title that is given, as words."""
        name = next((name for name in names if name), "")
        return METRICS[self.metric] if name == METRIC else name.replace("_", " ")


def _rows(content: Content, figure: Figure) -> pl.DataFrame:
    return next(frame.data for frame in content.frames if frame.name == figure.frame)


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


def _draw_panels(canvas: Any, view: _View, rows: pl.DataFrame) -> None:
    figure = view.figure
    facets: list[Any] = _distinct(rows, figure.facet) if figure.facet else [None]
    groups: list[Any] = _distinct(rows, figure.group) if figure.group else [None]
    looks = {group: (_COLOURS[n % 8], _MARKS[n % 6], _DASHES[n % 6]) for n, group in enumerate(groups)}
    view = replace(view, look=looks, limits=_limits(view, rows))
    draw = {"heatmap": _heatmap, "bars": _bars, "dots": _dots, "scatter": _scatter, "lines": _lines}[figure.kind]
    columns = min(_COLUMNS, len(facets))
    lines = math.ceil(len(facets) / columns)
    n_rows = rows[figure.y].n_unique() if figure.kind in ("heatmap", "bars", "dots") else 9
    legend_rows = 1 if figure.group and figure.label != figure.group else 0
    canvas.set_size_inches(
        _PANEL_WIDTH * columns * (1 if columns > 1 else 1.5),
        lines * (n_rows * _ROW + (1.3 if figure.kind == "heatmap" else 0.8)) + 0.3 * legend_rows,
    )
    panels = canvas.subplots(lines, columns, squeeze=False)
    for n, axes in enumerate(panels.flat):
        if n >= len(facets):
            axes.set_visible(False)
            continue
        own = rows.filter(pl.col(figure.facet).eq_missing(facets[n])) if figure.facet else rows
        draw(axes, view, own)
        if figure.facet:
            axes.set_title(textwrap.fill(str(facets[n]), 44), loc="left")
    if legend_rows:
        handles, labels = panels.flat[0].get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True))
        canvas.legend(known.values(), known.keys(), loc="outside upper left", ncols=6)


def _limits(view: _View, rows: pl.DataFrame) -> tuple[float, float] | None:
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
    return min(values), max(values)


def _heatmap(axes: Any, view: _View, rows: pl.DataFrame) -> None:
    import numpy as np

    figure, value = view.figure, view.column(view.figure.value)
    xs, ys = _order(rows, figure.x, value, figure.order), _order(rows, figure.y, value, figure.order)
    cells = {(y, x): v for y, x, v in rows.group_by(figure.y, figure.x).agg(pl.col(value).mean()).rows()}
    words = {(y, x): t for y, x, t in rows.select(figure.y, figure.x, figure.text).rows()[::-1]} if figure.text else {}
    matrix = np.array([[_number(cells.get((y, x))) for x in xs] for y in ys])
    low, high = view.limits or (0.0, 1.0)
    axes.imshow(matrix, cmap="BrBG" if figure.diverging else "cividis", vmin=low, vmax=high, aspect="auto")
    for (r, c), number in np.ndenumerate(matrix):
        if np.isfinite(number):
            shade = (number - low) / (high - low or 1)
            light = 0.25 < shade < 0.75 if figure.diverging else shade > 0.55
            text = words.get((ys[r], xs[c])) or (f"{number:.0f}" if figure.whole else f"{number:.2f}")
            axes.text(c, r, text, ha="center", va="center", fontsize=6, color="black" if light else "white")
    axes.set_xticks(
        range(len(xs)),
        [_cut(x) for x in xs],
        rotation=40 if len(xs) > 3 else 0,
        ha="right" if len(xs) > 3 else "center",
        rotation_mode="anchor" if len(xs) > 3 else None,
    )
    axes.set_yticks(range(len(ys)), [_cut(y) for y in ys])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(figure.x_title)
    axes.set_ylabel(figure.y_title)


def _bars(axes: Any, view: _View, rows: pl.DataFrame) -> None:
    figure, value = view.figure, view.column(view.figure.x)
    rows = rows.filter(pl.col(value).is_not_null())
    together = pl.col(value).sum() if value == "runs" else pl.col(value).mean()
    keys = [figure.y, figure.group] if figure.group else [figure.y]
    lengths = rows.group_by(keys).agg(together)
    ys = (
        lengths.group_by(figure.y)
        .agg(pl.col(value).sum())
        .sort(value, figure.y, descending=[True, False])[figure.y]
        .to_list()
    )
    start = dict.fromkeys(ys, 0.0)
    for group, (colour, _, _) in view.look.items():
        own = (
            dict(lengths.filter(pl.col(figure.group) == group).select(figure.y, value).rows())
            if figure.group
            else dict(lengths.rows())
        )
        widths = [own.get(y) or 0.0 for y in ys]
        bars = axes.barh(
            range(len(ys)),
            widths,
            left=[start[y] for y in ys],
            color=colour,
            label=group,
            height=0.75,
            edgecolor="white",
            linewidth=0.4,
        )
        if not figure.group:
            axes.bar_label(bars, fmt="%.0f" if figure.whole else "%.3f", padding=2, fontsize=6)
        for y, width in zip(ys, widths, strict=True):
            start[y] += width
    _categories(axes, ys)
    axes.set_xlabel(view.title(figure.x_title, figure.x))
    if view.limits:
        axes.set_xlim(*view.limits)


def _dots(axes: Any, view: _View, rows: pl.DataFrame) -> None:
    figure, value = view.figure, view.column(view.figure.x)
    rows = rows.filter(pl.col(value).is_not_null())
    means = (
        rows.group_by(figure.y).agg(pl.col(value).mean()).sort(value, figure.y, descending=[not figure.rising, False])
    )
    place = {name: n for n, name in enumerate(means[figure.y].to_list())}
    for n, (group, (colour, mark, _)) in enumerate(view.look.items()):
        own = rows.filter(pl.col(figure.group) == group) if figure.group else rows
        shift = (n - (len(view.look) - 1) / 2) * 0.22 if figure.low and len(view.look) > 1 else 0.0
        at = [place[name] + shift for name in own[figure.y].to_list()]
        x = own[value].to_list()
        if figure.low and figure.high:
            ends = zip(x, own[figure.low].to_list(), own[figure.high].to_list(), strict=True)
            spread = [(v - (v if low is None else low), (v if high is None else high) - v) for v, low, high in ends]
            axes.errorbar(
                x,
                at,
                xerr=list(zip(*spread, strict=True)) or None,
                fmt="none",
                ecolor=colour,
                elinewidth=0.8,
                capsize=2,
            )
        axes.plot(x, at, mark, color=colour, markersize=4.5, label=group)
    _categories(axes, list(place))
    axes.grid(axis="y", linewidth=0.3, color="#dddddd")
    axes.set_axisbelow(True)
    axes.set_xlabel(view.title(figure.x_title, figure.x))
    if figure.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")


def _scatter(axes: Any, view: _View, rows: pl.DataFrame) -> None:
    figure, x, y = view.figure, view.column(view.figure.x), view.column(view.figure.y)
    rows = rows.filter(pl.col(x).is_not_null() & pl.col(y).is_not_null())
    if figure.log_x:
        rows = rows.filter(pl.col(x) > 0)
    for group, (colour, mark, _) in view.look.items():
        own = rows.filter(pl.col(figure.group) == group) if figure.group else rows
        axes.plot(own[x].to_list(), own[y].to_list(), mark, color=colour, markersize=5, label=group)
    if figure.label and rows.height <= 20:
        for left, up, text in rows.select(x, y, figure.label).rows():
            axes.annotate(_cut(text), (left, up), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=6)
    if figure.front and rows.height:
        front: list[tuple[float, float]] = []
        for point in rows.select(x, y).sort(x, y, descending=[False, True]).rows():
            if not front or point[1] > front[-1][1]:
                front.append((point[0], point[1]))
        axes.plot(*zip(*front, strict=True), ":", color="#52606d", linewidth=0.8, zorder=0)
    axes.grid(linewidth=0.3, color="#dddddd")
    axes.set_axisbelow(True)
    axes.margins(0.12)
    axes.set_xlabel(view.title(figure.x_title, figure.x))
    axes.set_ylabel(view.title(figure.y_title, figure.y))
    if figure.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")


def _lines(axes: Any, view: _View, rows: pl.DataFrame) -> None:
    figure, x, y = view.figure, view.column(view.figure.x), view.column(view.figure.y)
    for group, (colour, mark, dash) in view.look.items():
        own = rows.filter(pl.col(figure.group) == group) if figure.group else rows
        points = own.group_by(x).agg(pl.col(y).mean()).drop_nulls().sort(x)
        if not points.height:
            continue
        values = points[y]
        if figure.relative:
            positive = [value for value in values.to_list() if value > 0]
            values = values / (positive[0] if positive else 1)
        axes.plot(points[x].to_list(), values.to_list(), color=colour, linestyle=dash, linewidth=1.1, label=group)
        if figure.best and (best := values.arg_max()) is not None:
            axes.plot(points[x][best], values[best], mark, markerfacecolor="none", markeredgecolor=colour, markersize=7)
    axes.grid(linewidth=0.3, color="#dddddd")
    axes.set_xlabel(view.title(figure.x_title, figure.x))
    axes.set_ylabel(view.title(figure.y_title, figure.y))


def _categories(axes: Any, names: Sequence[Any]) -> None:
    axes.set_yticks(range(len(names)), [_cut(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _order(rows: pl.DataFrame, column: str, value: str, order: str) -> list[Any]:
    if order == "given":
        return _distinct(rows, column)
    means = rows.group_by(column).agg(pl.col(value).mean())
    every = means.sort(pl.col(column) != "all", -pl.col(value), column, nulls_last=True)
    return every[column].to_list()


def _distinct(rows: pl.DataFrame, column: str) -> list[Any]:
    return rows[column].unique(maintain_order=True).to_list()


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _cut(text: Any, most: int = 32) -> str:
    words = str(text)
    return words if len(words) <= most else words[: most - 2] + "…"
