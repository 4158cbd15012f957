"""Drawn figures, measured: no word is cut off or covers another, at any number of methods, tissues and tasks."""

from __future__ import annotations

import base64
import io
import random
import re
from typing import Any

import polars as pl
import pytest

from segbench.analysis.report import fonts
from segbench.analysis.report.drawing import WIDTHS, compose, encoded
from segbench.analysis.report.lettering import Box, collisions, text_boxes, text_width, wrapped
from segbench.analysis.report.model import METRIC, Figure
from segbench.analysis.report.panels import SMALL

pytest.importorskip("matplotlib", reason="matplotlib is not installed: figures cannot be drawn as files")
METHODS = [
    *("Cascade Mask R-CNN Seesaw", "CenterMask2", "Cellpose", "FeatureNet", "HRNet", "MS R-CNN", "Mask R-CNN"),
    *("Mask2Former", "Mesmer", "RF-Next", "Res2Net", "ResNeSt", "RetinaMask", "SOLOv2", "Segment Anything"),
    *("StarDist", "Swin-S", "Swin-T", "Watershed"),
]
TISSUES = [
    f"Lymph node metastasis {letter}" if n % 3 else f"Skin {letter}" for n, letter in enumerate("ABCDEFGHIJKLMNOPQR")
]
KINDS = {
    "heatmap": {
        "x": "tissue",
        "y": "method",
        "value": METRIC,
        "x_title": "tested on",
        "y_title": "methods, best first",
    },
    "bars": {"x": METRIC, "y": "method"},
    "stacked": {"x": "seconds", "y": "method", "group": "tissue", "x_title": "seconds"},
    "dots": {
        "x": METRIC,
        "y": "method",
        "group": "part",
        "low": "low",
        "high": "high",
        "x_title": "change of the score",
    },
    "scatter": {"x": "seconds", "y": METRIC, "group": "method", "label": "method", "log_x": True, "front": True},
    "points": {"x": "seconds", "y": METRIC, "group": "method", "label": "tissue", "log_x": True},
    "lines": {
        "x": "radius",
        "y": METRIC,
        "group": "method",
        "best": True,
        "x_title": "radius of the dilation, in pixels",
    },
}


def rows_of(kind: str, n_methods: int, n_tissues: int, n_tasks: int) -> pl.DataFrame:
    """Return made-up rows for a figure of a kind, with some cells missing."""
    draw = random.Random(f"{kind}{n_methods}{n_tissues}{n_tasks}")
    tissues = TISSUES[: 1 if kind in ("scatter", "bars") else n_tissues]
    return pl.DataFrame(
        [
            {
                "method": method,
                "tissue": tissue,
                "task": f"tissuenet-wholecell-{task}ch, trained on one tissue and tested on all the others",
                "part": part,
                "radius": radius,
                "seconds": 10 ** draw.uniform(0, 6),
                "accuracy": (score := draw.uniform(-0.5 if kind == "dots" else 0, 1)),
                "low": score - 0.1,
                "high": score + 0.1,
            }
            for task in range(1, n_tasks + 1)
            for method in METHODS[:n_methods]
            for tissue in tissues
            for part in (("images", "cell size", "elongation") if kind == "dots" else ("",))
            for radius in (range(4) if kind == "lines" else (0,))
            if draw.random() > 0.1 or (method, tissue) == (METHODS[0], TISSUES[0])
        ]
    )


def composed(kind: str, n_methods: int, n_tissues: int, n_tasks: int, width: str) -> Any:
    rows = rows_of(kind, n_methods, n_tissues, n_tasks)
    drawn = {"stacked": "bars", "points": "scatter"}.get(kind, kind)
    facet = "task" if n_tasks > 1 else None
    figure = Figure(kind=drawn, frame="f", title="A figure", alt="", facet=facet, **KINDS[kind])  # type: ignore[arg-type]
    return compose(figure, rows, "accuracy", WIDTHS[width])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_methods", "n_tissues", "n_tasks"), [(1, 1, 1), (3, 6, 3), (19, 18, 1)])
def test_no_word_is_cut_off_or_covers_another(
    kind: str, n_methods: int, n_tissues: int, n_tasks: int, width: str
) -> None:
    if kind == "points":
        n_methods = min(n_methods, 3)
    canvas = composed(kind, n_methods, n_tissues, n_tasks, width)
    assert collisions(canvas) == []
    assert canvas.get_figwidth() == WIDTHS[width]
    assert (
        {METHODS[0]} <= {" ".join(box.text.split()) for box in text_boxes(canvas)}
        or kind == "points"
        or width == "single"
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["heatmap", "scatter", "dots"])
def test_nor_in_five_panels_of_a_full_grid(kind: str) -> None:
    canvas = composed(kind, 19, 18, 5, "double")
    assert collisions(canvas) == []


def test_numbers_stand_in_cells_only_where_they_fit() -> None:
    def numbers(width: str) -> int:
        boxes = text_boxes(composed("heatmap", 19, 18, 1, width))
        return sum(bool(re.fullmatch(r"0\.\d\d", box.text)) for box in boxes)

    assert numbers("double") > 250
    assert numbers("single") <= 6, "the colour bar's own"


def test_a_heat_map_has_a_colour_bar_and_hatches_what_is_missing() -> None:
    canvas = composed("heatmap", 3, 6, 1, "double")
    panel, bar = canvas.axes
    assert bar.get_title(loc="left") == "Accuracy"
    assert panel.patch.get_hatch()


def test_a_transfer_figures_words_do_not_meet_either() -> None:
    rows = pl.DataFrame(
        [
            {"panel": f"synthetic-wholecell-2ch, {method}", "train_tissue": train, "test_tissue": test, "value": 0.5}
            for method in METHODS[:2]
            for train in ["all", *TISSUES]
            for test in ["all", *TISSUES]
        ]
    )
    for width in WIDTHS.values():
        assert collisions(compose(_transfer_figure(), rows, "accuracy", width)) == []


def _transfer_figure() -> Figure:
    """Return the transfer section's figure, without its metric."""
    return Figure(
        kind="heatmap", frame="transfer", title="Score by training tissue (rows) and test tissue (columns)", alt="",
        x="test_tissue", y="train_tissue", value="value", value_title=METRIC, facet="panel", x_title="tested on",
        y_title="trained on",
    )  # fmt: skip


def test_rows_and_columns_stand_in_the_reports_order_with_a_dash_where_there_is_nothing() -> None:
    figure = Figure(kind="heatmap", frame="f", title="", alt="", x="test_tissue", y="title", value="value")
    rows = pl.DataFrame({"title": ["A", "B (undertrained)"], "test_tissue": ["lung", "skin"], "value": [0.1, 0.9]})
    order = {"method": ["B", "A"], "tissue": ["skin", "lung"]}
    axes = compose(figure, rows, "accuracy", WIDTHS["double"], order).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["B (undertrained)", "A"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["skin", "lung"]
    assert sorted(text.get_text() for text in axes.texts) == ["0.10", "0.90", "\N{EN DASH}", "\N{EN DASH}"]


@pytest.mark.parametrize(
    ("kind", "given", "ticks"),
    [
        ("bars", {"x": "seconds", "unit": "seconds"}, {"0", "1 d", "2 d"}),
        ("dots", {"x": "seconds", "unit": "seconds", "log_x": True}, {"1 h", "1 d"}),
        ("dots", {"x": "rank", "whole": True}, {"1", "2", "3"}),
    ],
)
def test_axes_have_whole_ranks_and_times_up_to_days(kind: str, given: dict[str, Any], ticks: set[str]) -> None:
    rows = pl.DataFrame({"title": ["A", "B", "C"], "seconds": [600.0, 90_000.0, 200_000.0], "rank": [1, 2, 3]})
    figure = Figure(kind=kind, frame="f", title="", alt="", y="title", **given)  # type: ignore[arg-type]
    canvas = compose(figure, rows, "accuracy", WIDTHS["double"])
    shown = {label.get_text() for label in canvas.axes[0].get_xticklabels()}
    assert ticks <= shown
    assert not any(re.search(r"\.(?!5 )", text) for text in shown), "halves of a unit, but no thirds"
    assert collisions(canvas) == []


def test_collisions_are_found() -> None:
    canvas = composed("bars", 3, 1, 1, "double")
    axes = canvas.axes[0]
    axes.text(0.5, 0.5, "one", transform=axes.transAxes)
    axes.text(0.5, 0.52, "two", transform=axes.transAxes)
    canvas.text(0.99, 0.5, "beyond the edge")
    assert {("one", "two"), ("beyond the edge", "")} <= set(collisions(canvas))


def test_every_point_has_its_label_and_no_label_covers_a_point() -> None:
    canvas = composed("scatter", 19, 1, 1, "double")
    axes = canvas.axes[0]
    labels = {text.get_text() for text in axes.texts}
    rows = rows_of("scatter", 19, 1, 1)
    assert labels == set(rows["method"])
    boxes = [box for box in text_boxes(canvas) if box.text in labels]
    for x, y in axes.transData.transform(rows.select("seconds", "accuracy").rows()):
        point = Box(x - 2, y - 2, x + 2, y + 2)
        assert not any(point.meets(box) for box in boxes)


def test_words_are_wrapped_to_a_width() -> None:
    text = wrapped("synthetic: trained on nuclear, tested on wholecell", 7, 1.2, bold=True)
    assert len(text.splitlines()) > 1
    assert all(text_width(line, 7, bold=True) <= 1.2 for line in text.splitlines())
    assert wrapped("short", SMALL, 3) == "short"


def test_an_svgs_letters_are_in_the_file() -> None:
    from fontTools.ttLib import TTFont

    svg = "<svg><defs></defs><text style=\"font: 700 8px 'DejaVu Sans'\">Aé&amp;</text></svg>"
    faces = re.findall(r"font-weight:(\d+);src:url\(data:font/woff;base64,([^)]+)\)", fonts.with_fonts(svg))
    assert [weight for weight, _ in faces] == ["400", "700"]
    for _, data in faces:
        letters = TTFont(io.BytesIO(base64.b64decode(data))).getBestCmap()
        assert set(map(chr, letters)) == set("Aé&")


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_vector_files_hold_their_fonts(suffix: str) -> None:
    content = encoded(composed("bars", 3, 1, 1, "single"), suffix)
    assert (b"/FontFile2" if suffix == "pdf" else b"@font-face") in content
