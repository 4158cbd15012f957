"""Draws the marks of a figure's panels with matplotlib: heat maps, bars, dots, scatters and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from segbench.analysis.report.lettering import cut, text_width
from segbench.analysis.report.model import METRIC, METRICS, ORDERED, Figure
from segbench.analysis.undertrained import MARK

SMALL = 6.0
"""Size of the letters at ticks and points, in points."""
NUMBER = 5.5
"""Size of the numbers in heat maps, in points."""
_LACKING = "\N{EN DASH}"
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
    order: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The report's methods and tissues as they stand in every figure."""

    def column(self, name: str | None) -> str:
        """Return a column's name, the chosen metric's where the figure leaves that open."""
        return self.metric if name == METRIC else name or ""

    def title(self, *names: str | None) -> str:
        """Return the first title that is given, as words."""
        name = next((name for name in names if name), "")
        return METRICS[self.metric] if name == METRIC else name.replace("_", " ")

    @property
    def across(self) -> str:
        """The x axis's title."""
        return self.title(self.figure.x_title, self.figure.x)

    def names(self, rows: pl.DataFrame, column: str) -> list[Any]:
        """Return a column's values in the report's order, those of all tissues first; others as they come."""
        return in_order(self.order, column, distinct(rows, column))

    @property
    def names_width(self) -> float:
        """The most that the names of rows take, in inches."""
        return 0.42 * self.width


def heatmap(axes: Any, view: View, rows: pl.DataFrame) -> None:
    """Draw cells with their values; ``axes.cells`` are the numbers in them, which may be too wide."""
    figure, value = view.figure, view.column(view.figure.value)
    xs, ys = view.names(rows, figure.x), view.names(rows, figure.y)
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
        if not np.isfinite(number):
            axes.text(c, r, _LACKING, ha="center", va="center", fontsize=NUMBER, color="#52606d", clip_on=True)
        else:
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
    ys = view.names(rows, figure.y)
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
    _measure(axes, view, list(start.values()))
    if view.limits:
        axes.set_xlim(*view.limits)
    elif not figure.group:
        axes.margins(x=0.05)


def dots(axes: Any, view: View, rows: pl.DataFrame) -> None:
    """Draw values on lines of their names, with intervals where there are any."""
    figure, value = view.figure, view.column(view.figure.x)
    rows = rows.filter(pl.col(value).is_not_null())
    place = {name: n for n, name in enumerate(view.names(rows, figure.y))}
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
    low, high = axes.get_xlim()
    if figure.signed or (low < 0 < high and not figure.log_x):
        axes.axvline(0, color="#52606d", linewidth=0.6, zorder=0)
    _measure(axes, view, rows[value].to_list())


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
    axes.set_ylabel(view.title(figure.y_title, figure.y))
    _measure(axes, view, rows[x].to_list())


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


def _measure(axes: Any, view: View, values: Sequence[float | None]) -> None:
    """Say what lies along the x axis, in whole runs and ranks, in seconds to days, or in plain numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(view.across)
    if view.figure.log_x:
        _log(axes, values)
    if view.figure.unit == "seconds":
        _time(axes, [value for value in values if value], view)
    elif view.figure.whole or view.figure.x == "runs":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.xaxis.set_major_formatter("{x:,.0f}")


_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_SPANS = (
    *(0.001, 0.01, 0.1, 1, 10, _MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR),
    *(days * _DAY for days in (1, 7, 30, 365, 3650)),
)
_STEPS = (
    *(0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200),
    *(hours * _HOUR for hours in (3, 6, 12)),
    *(days * _DAY for days in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 20_000)),
)


def _time(axes: Any, values: Sequence[float], view: View) -> None:
    """Put ticks at round times of an axis of seconds, as many as there is room for, as the page does."""
    from matplotlib.ticker import FixedLocator, NullLocator

    positive = [value for value in values if value > 0]
    if not positive:
        return
    room = (view.width - view.names_width * (view.figure.kind != "scatter")) / 0.5
    if view.figure.log_x:
        low, high = (math.log10(end) for end in axes.get_xlim())
        ticks = [span for span in _SPANS if low <= math.log10(span) <= high]
        if len(ticks) < 3:
            ticks = [span for span in _STEPS if low <= math.log10(span) <= high]
        apart = (high - low) / max(room, 1)
        kept: list[float] = []
        for tick in ticks:
            if not kept or math.log10(tick / kept[-1]) >= apart:
                kept.append(tick)
    else:
        most = max(positive)
        # halves of a unit can be read, thirds cannot
        unit = next((size for size in (_DAY, _HOUR, _MINUTE) if most >= size), 0)
        step = next((step for step in _STEPS if most / step <= max(2, room) and step >= unit / 2), _STEPS[-1])
        kept = [n * step for n in range(int(1.05 * most / step) + 1)]
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: span(value))


def span(seconds: float) -> str:
    """Return a time in its largest unit, as ticks have it.

    Examples
    --------
    >>> span(0), span(0.01), span(90), span(7200), span(864_000)
    ('0', '10 ms', '1.5 min', '2 h', '10 d')
    """
    if not seconds:
        return "0"
    units = ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s"))
    size, unit = next(((size, unit) for size, unit in units if seconds >= size), (0.001, "ms"))
    return f"{seconds / size:,.3g} {unit}"


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


def in_order(order: Mapping[str, Sequence[str]], column: str, names: Sequence[Any]) -> list[Any]:
    """Return a column's names as they stand in every figure of the report; those it has no order for as they are.

    Examples
    --------
    >>> in_order({"tissue": ["skin", "lung"]}, "test_tissue", ["lung", "new", "all", "skin"])
    ['all', 'skin', 'lung', 'new']
    """
    known = order.get(ORDERED.get(column, ""))
    if not known:
        return list(names)
    places = {"all": -1, **{name: n for n, name in enumerate(known)}}
    return sorted(names, key=lambda name: (places.get(unmarked(name), len(known)), str(name)))


def unmarked(title: Any) -> Any:
    """Return a method's title without what stands behind it where its runs were not trained to the end."""
    return title.removesuffix(MARK) if isinstance(title, str) else title


def distinct(rows: pl.DataFrame, column: str) -> list[Any]:
    """Return a column's values, each once, as they come."""
    return rows[column].unique(maintain_order=True).to_list()


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
