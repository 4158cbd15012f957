"""Morphology: what the cells of each tissue look like, and how many there are to learn from."""

from __future__ import annotations

import polars as pl

from segbench.analysis.morphology import describe_tissues
from segbench.analysis.report.model import Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import answer_frame, panel, unsure
from segbench.analysis.report.sections._filling import filled_by, missing_tissues


def _build(source: Source) -> Content | Missing:
    result = describe_tissues(source.answers)
    table = result.table.filter(pl.col("tissue") != "all").with_columns(panel("dataset", "target"))
    if not table.height:
        return Missing()
    return Content(
        warnings=unsure(result),
        frames=(answer_frame("morphology", table, result, {"tissue": ("tissue",)}),),
        figures=(
            Figure(
                kind="scatter",
                frame="morphology",
                title="Size and shape of the test cells, by tissue",
                alt="A point is a tissue: to the right larger cells, above rounder ones.",
                x="area",
                y="elongation",
                group="tissue",
                facet="panel",
                x_title="mean area, pixels",
                y_title="mean elongation (1 is round)",
                label="tissue",
            ),
            Figure(
                kind="bars",
                frame="morphology",
                title="Training windows, by tissue",
                alt="A bar is a tissue; its length is the number of its training windows.",
                x="n_train_images",
                y="tissue",
                facet="panel",
                x_title="windows",
                whole=True,
            ),
        ),
        tables=(Table("morphology", title="Cells and windows of each tissue"),),
    )


SECTION = Section(
    key="morphology",
    title="Morphology",
    about=(
        "Size, elongation (smaller over larger eigenvalue of the boundary's covariance) and convexity "
        "of the cells of each tissue."
    ),
    fill=filled_by(missing_tissues),
    build=_build,
)
