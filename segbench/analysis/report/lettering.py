"""Fits the words of a drawn figure into it: measures them, and wraps, cuts or moves them."""

from __future__ import annotations

import functools
import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_GAP = 1.0
"""Pixels that two texts keep from each other, at 72 dots an inch."""
_RADII, _ANGLES = (5, 9, 14, 20, 28, 38, 50, 64), 16
"""Where a point's label is tried: distances from the point in points, and how many directions."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, and what it holds."""

    left: float
    low: float
    right: float
    high: float
    text: str = ""

    def meets(self, other: Box, gap: float = 0.0) -> bool:
        """Whether the two overlap, or come nearer than ``gap``."""
        return (
            self.left < other.right + gap
            and other.left < self.right + gap
            and self.low < other.high + gap
            and other.low < self.high + gap
        )

    def within(self, other: Box, gap: float = 0.0) -> bool:
        """Whether this one lies in the other, up to ``gap`` pixels."""
        return (
            self.left >= other.left - gap
            and self.low >= other.low - gap
            and self.right <= other.right + gap
            and self.high <= other.high + gap
        )


def box_of(artist: Any, renderer: Any) -> Box:
    """Return the rectangle that something takes."""
    from matplotlib.text import Annotation, Text

    # Of a text with a line to its point, the text alone
    if isinstance(artist, Annotation):
        artist.update_positions(renderer)
    measure = Text.get_window_extent if isinstance(artist, Text) else type(artist).get_window_extent
    extent = measure(artist, renderer)
    text = artist.get_text() if hasattr(artist, "get_text") else ""
    return Box(extent.x0, extent.y0, extent.x1, extent.y1, text)


def text_boxes(canvas: Any) -> list[Box]:
    """Return the rectangles of all texts of a figure that are seen, as they were drawn last."""
    renderer = canvas.canvas.get_renderer()
    return [box_of(text, renderer) for text in _texts(canvas)]


def _texts(canvas: Any) -> Iterator[Any]:
    for text in _shown(canvas, "Text"):
        if text.get_text().strip():
            yield text


def _shown(artist: Any, kind: str) -> Iterator[Any]:
    """Go through what is visible, with what hides its parts left out."""
    if not artist.get_visible():
        return
    if type(artist).__name__ in (kind, "Annotation"):
        yield artist
    for child in artist.get_children():
        if type(child).__name__ in ("XTick", "YTick") and not _in_view(child):
            continue
        yield from _shown(child, kind)


def _in_view(tick: Any) -> bool:
    """Whether a tick is drawn: matplotlib keeps some beyond the axis's ends."""
    axes, across = tick.axes, type(tick).__name__ == "XTick"
    place = axes.transData.transform(
        (tick.get_loc(), axes.get_ylim()[0]) if across else (axes.get_xlim()[0], tick.get_loc())
    )
    low, high = (axes.bbox.x0, axes.bbox.x1) if across else (axes.bbox.y0, axes.bbox.y1)
    return bool(low - 0.5 <= place[0 if across else 1] <= high + 0.5)


def collisions(canvas: Any) -> list[tuple[str, str]]:
    """Return the texts of a figure that overlap, and those that are cut off (with an empty second text)."""
    boxes = text_boxes(canvas)
    page = Box(0, 0, *canvas.bbox.size)
    over = [(one.text, other.text) for one, other in itertools.combinations(boxes, 2) if one.meets(other, -0.5)]
    return over + [(box.text, "") for box in boxes if not box.within(page, 0.5)]


def cut(text: Any, size: float, width: float) -> str:
    """Return a text cut, with a dot-dot-dot, to what fits into a width in inches at a size in points."""
    words = str(text)
    if text_width(words, size) <= width:
        return words
    while len(words) > 2 and text_width(words + "…", size) > width:
        words = words[:-1]
    return words.rstrip() + "…"


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return the width of a line in inches at a size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(text, font, False)[0]) / 72


def wrapped(text: str, size: float, width: float, bold: bool = False) -> str:
    """Return a text broken into lines that fit into a width in inches at a size in points."""
    for most in range(len(text), 7, -1):
        lines = textwrap.wrap(text, most) or [""]
        if all(text_width(line, size, bold) <= width for line in lines):
            return "\n".join(lines)
    return textwrap.fill(text, 8)


def place_labels(axes: Any, points: Sequence[tuple[float, float, str]], size: float) -> list[str]:
    """Write labels beside points so that none covers another or a point; return those for which there is no room.

    Parameters
    ----------
    axes
        Drawn before: its limits and place are final.
    points
        x, y and label, in the axes' data.
    size
        Of the letters, in points.
    """
    figure = axes.figure
    dot = figure.dpi / 72
    frame = box_of(axes.patch, figure.canvas.get_renderer())
    at = [(*axes.transData.transform((x, y)), label) for x, y, label in points]
    taken = [Box(x - 3 * dot, y - 3 * dot, x + 3 * dot, y + 3 * dot) for x, y, _ in at]
    left_out = []
    for x, y, label in sorted(at, key=lambda point: -point[1]):
        width, height = text_width(label, size) * figure.dpi + dot, 1.15 * size * dot
        place = _free_place(x, y, width, height, dot, frame, taken)
        if place is None:
            left_out.append(label)
            continue
        box, (dx, dy), radius = place
        taken.append(box)
        line = {"arrowstyle": "-", "color": "#8895a3", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            label,
            axes.transData.inverted().transform((x, y)),
            xytext=(dx / dot, dy / dot),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            arrowprops=line if radius > _RADII[1] else None,
            annotation_clip=False,
        ).set_in_layout(False)
    return left_out


def _free_place(
    x: float, y: float, width: float, height: float, dot: float, frame: Box, taken: Sequence[Box]
) -> tuple[Box, tuple[float, float], int] | None:
    """Return a free rectangle near a point, its middle from the point, and how far it is, in points."""
    for radius in _RADII:
        for n in range(_ANGLES):
            # Above first, then to both sides in turn, below last
            turn = math.pi / 2 + (n + 1) // 2 * (1 if n % 2 else -1) * 2 * math.pi / _ANGLES
            away = radius * dot
            dx = math.cos(turn) * (away + width / 2)
            dy = math.sin(turn) * (away + height / 2)
            box = Box(x + dx - width / 2, y + dy - height / 2, x + dx + width / 2, y + dy + height / 2)
            if box.within(frame) and not any(box.meets(other, _GAP * dot) for other in taken):
                return box, (dx, dy), radius
    return None
