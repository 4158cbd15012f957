"""Draws the marks of a figure's panels with matplotlib: heat maps, bars, dots, scatters and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from segbench.analysis.report.lettering import cut, text_width
from segbench.analysis.report.model import METRIC, METRICS, Figure

SMALL = 6.0
"""Size of the letters at ticks and points, in points."""
NUMBER = 5.5
"""Size of the numbers in heat maps, in points."""
_GRID = {"linewidth": 0.3, "color": "#dddddd"}


@dataclass(frozen=True)
class View:
    """A figure with the metric put in."""

    figure: Figure
    metric: str
    width: float
    """Of a panel, in inches."""
    look: Mapping[Any, tuple[str, str, Any]] = field(default_factory=dict)
    """Colour, mark and dash of each group."""
    limits: tuple[float, float] | None = None
    """Of the heat map's colours, or of the bars' axis; the same in all panels."""

    def column(self, name: str | None) -> str:
        """Return a column's name, the chosen metric's where the figure leaves that open."""
        return self.metric if name == METRIC else name or ""

    def title(self, *names: str | None) -> str:
        """Return the first title that is given, as words."""
        name = next((name for name in names if name), "")
        return METRICS[self.metric] if name == METRIC else name.replace("_", " ")

    @property
    def across(self) -> str:
        """The x axis's title; its unit where the axis has numbers of it."""
        name = self.title(self.figure.x_title, self.figure.x)
        return f"{name}, {self.figure.unit}" if self.figure.unit else name

    @property
    def names_width(self) -> float:
        """The most that the names of rows take, in inches."""
        return 0.42 * self.width


def heatmap(axes: Any, view: View, rows: pl.DataFrame) -> None:
    """Draw cells with their values; ``axes.cells`` are the numbers in them, which may be too wide."""
    figure, value = view.figure, view.column(view.figure.value)
    xs, ys = _order(rows, figure.x, value, figure.order), _order(rows, figure.y, value, figure.order)
    cells = {(y, x): v for y, x, v in rows.group_by(figure.y, figure.x).agg(pl.col(value).mean()).rows()}
    words = {(y, x): t for y, x, t in rows.select(figure.y, figure.x, figure.text).rows()[::-1]} if figure.text else {}
    matrix = np.array([[_number(cells.get((y, x))) for x in xs] for y in ys])
    low, high = view.limits or (0.0, 1.0)
    # What is missing is hatched: it is neither the least nor the middle of the colours
    axes.patch.set(facecolor="#f2f2f2", hatch="//////", edgecolor="#cccccc", linewidth=0)
    shown = axes.imshow(
        matrix, cmap=colours(figure), vmin=low, vmax=high, aspect="auto", interpolation="none", rasterized=False
    )
    for (r, c), number in np.ndenumerate(matrix):
        if np.isfinite(number):
            red, green, blue, _ = shown.cmap(shown.norm(number))
            text = words.get((ys[r], xs[c])) or _written(number, figure)
            ink = _ink(red, green, blue)
            axes.text(c, r, text, ha="center", va="center", fontsize=NUMBER, color=ink, clip_on=True)
    axes.set_xticks(range(len(xs)), [cut(x, SMALL, 1.4) for x in xs])
    _rows(axes, view, ys)
    axes.set_ylim(len(ys) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(figure.x_title)
    axes.set_ylabel(figure.y_title)


def colours(figure: Figure) -> str:
    """Return the name of a heat map's colours."""
    return "BrBG" if figure.diverging else "cividis"


def _written(number: float, figure: Figure) -> str:
    if figure.whole:
        return f"{number:.0f}"
    size = f"{abs(number):.2f}"
    if float(size) == 0:
        return size
    return ("\N{MINUS SIGN}" if number < 0 else "+" if figure.diverging else "") + size


def _ink(red: float, green: float, blue: float) -> str:
    """Return black or white, whichever stands out more (WCAG 2.2, relative luminance)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue)]
    return "black" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 else "white"


def bars(axes: Any, view: View, rows: pl.DataFrame) -> None:
    """Draw lengths, stacked by group."""
    figure, value = view.figure, view.column(view.figure.x)
    rows = rows.filter(pl.col(value).is_not_null())
    together = pl.col(value).sum() if value == "runs" else pl.col(value).mean()
    keys = [figure.y, figure.group] if figure.group else [figure.y]
    lengths = rows.group_by(keys).agg(together)
    sums = lengths.group_by(figure.y).agg(pl.col(value).sum())
    ys = sums.sort(value, figure.y, descending=[True, False])[figure.y].to_list()
    start = dict.fromkeys(ys, 0.0)
    for group, (colour, _, _) in view.look.items():
        own = lengths.filter(pl.col(figure.group) == group) if figure.group else lengths
        known = dict(own.select(figure.y, value).rows())
        widths = [known.get(y) or 0.0 for y in ys]
        left = [start[y] for y in ys]
        place = range(len(ys))
        drawn = axes.barh(
            place, widths, left=left, color=colour, label=group, height=0.75, edgecolor="white", linewidth=0.4
        )
        if not figure.group:
            axes.bar_label(drawn, fmt="{:,.0f}" if figure.whole else "{:.3f}", padding=2, fontsize=SMALL)
        for y, width in zip(ys, widths, strict=True):
            start[y] += width
    _categories(axes, view, ys)
    axes.set_xlabel(view.across)
    if view.limits:
        axes.set_xlim(*view.limits)
    elif not figure.group:
        axes.margins(x=0.05)


def dots(axes: Any, view: View, rows: pl.DataFrame) -> None:
    """Draw values on lines of their names, with intervals where there are any."""
    figure, value = view.figure, view.column(view.figure.x)
    rows = rows.filter(pl.col(value).is_not_null())
    means = rows.group_by(figure.y).agg(pl.col(value).mean())
    means = means.sort(value, figure.y, descending=[not figure.rising, False])
    place = {name: n for n, name in enumerate(means[figure.y].to_list())}
    for n, (group, (colour, mark, _)) in enumerate(view.look.items()):
        own = rows.filter(pl.col(figure.group) == group) if figure.group else rows
        shift = (n - (len(view.look) - 1) / 2) * 0.22 if figure.low and len(view.look) > 1 else 0.0
        at = [place[name] + shift for name in own[figure.y].to_list()]
        x = own[value].to_list()
        if figure.low and figure.high:
            ends = zip(x, own[figure.low].to_list(), own[figure.high].to_list(), strict=True)
            spread = [(v - (v if low is None else low), (v if high is None else high) - v) for v, low, high in ends]
            reach = [[max(0.0, side) for side in sides] for sides in zip(*spread, strict=True)]
            axes.errorbar(x, at, xerr=reach or None, fmt="none", ecolor=colour, elinewidth=0.8, capsize=1.5)
        axes.plot(x, at, mark, color=colour, markersize=3.6, label=group)
    _categories(axes, view, list(place))
    axes.grid(axis="y", **_GRID)
    axes.set_axisbelow(True)
    axes.set_xlabel(view.across)
    low, high = axes.get_xlim()
    if figure.low and low < 0 < high:
        axes.axvline(0, color="#52606d", linewidth=0.6, zorder=0)
    if figure.log_x:
        _log(axes, rows[value].to_list())


def scatter(axes: Any, view: View, rows: pl.DataFrame) -> None:
    """Draw a mark a row; the labels are written when the axes have their final size."""
    figure, x, y = view.figure, view.column(view.figure.x), view.column(view.figure.y)
    rows = _points(view, rows)
    for group, (colour, mark, _) in view.look.items():
        own = rows.filter(pl.col(figure.group) == group) if figure.group else rows
        axes.plot(own[x].to_list(), own[y].to_list(), mark, color=colour, markersize=4, label=group)
    if figure.front and rows.height:
        front: list[tuple[float, float]] = []
        for point in rows.select(x, y).sort(x, y, descending=[False, True]).rows():
            if not front or point[1] > front[-1][1]:
                front.append((point[0], point[1]))
        axes.plot(*zip(*front, strict=True), ":", color="#52606d", linewidth=0.8, zorder=0)
    axes.grid(**_GRID)
    axes.set_axisbelow(True)
    axes.margins(0.14)
    axes.set_xlabel(view.across)
    axes.set_ylabel(view.title(figure.y_title, figure.y))
    if figure.log_x:
        _log(axes, rows[x].to_list())


def _points(view: View, rows: pl.DataFrame) -> pl.DataFrame:
    x, y = view.column(view.figure.x), view.column(view.figure.y)
    rows = rows.filter(pl.col(x).is_not_null() & pl.col(y).is_not_null())
    return rows.filter(pl.col(x) > 0) if view.figure.log_x else rows


def labels(view: View, rows: pl.DataFrame) -> list[tuple[float, float, str]]:
    """Return the points of a scatter with their labels."""
    figure = view.figure
    if figure.kind != "scatter" or not figure.label:
        return []
    chosen = _points(view, rows).select(view.column(figure.x), view.column(figure.y), figure.label)
    return [(x, y, cut(text, SMALL, 1.5)) for x, y, text in chosen.rows()]


def lines(axes: Any, view: View, rows: pl.DataFrame) -> None:
    """Draw a line a group."""
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
        axes.plot(points[x].to_list(), values.to_list(), color=colour, linestyle=dash, linewidth=0.9, label=group)
        if figure.best and (best := values.arg_max()) is not None:
            axes.plot(points[x][best], values[best], mark, markerfacecolor="none", markeredgecolor=colour, markersize=5)
    axes.grid(**_GRID)
    axes.set_xlabel(view.across)
    axes.set_ylabel(view.title(figure.y_title, figure.y))


DRAW = {"heatmap": heatmap, "bars": bars, "dots": dots, "scatter": scatter, "lines": lines}
"""What draws each kind of figure into the axes of a panel."""


def _log(axes: Any, values: Sequence[float | None]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    positive = [value for value in values if value and value > 0]
    axes.set_xscale("log")
    if positive:
        low, high = math.log10(min(positive)), math.log10(max(positive))
        room = max(0.08 * (high - low), 0.15)
        axes.set_xlim(10 ** (low - room), 10 ** (high + room))
        # Less than two powers of ten: 1, 2 and 5 of each are named
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low < 1.6 else (1,), numticks=8))
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _categories(axes: Any, view: View, names: Sequence[Any]) -> None:
    _rows(axes, view, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _rows(axes: Any, view: View, names: Sequence[Any]) -> None:
    axes.set_yticks(range(len(names)), [cut(name, SMALL, view.names_width) for name in names])


def widest_number(axes: Any) -> float:
    """Return the width of the widest text in a heat map's cells, in inches."""
    return max((text_width(text.get_text(), NUMBER) for text in axes.texts), default=0.0)


def _order(rows: pl.DataFrame, column: str, value: str, order: str) -> list[Any]:
    if order == "given":
        return distinct(rows, column)
    means = rows.group_by(column).agg(pl.col(value).mean())
    every = means.sort(pl.col(column) != "all", -pl.col(value), column, nulls_last=True)
    return every[column].to_list()


def distinct(rows: pl.DataFrame, column: str) -> list[Any]:
    """Return a column's values, each once, as they come."""
    return rows[column].unique(maintain_order=True).to_list()


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
