"""Published: these results beside the scores that the study published."""

from __future__ import annotations

import polars as pl

from segbench.analysis.report.model import Content, Figure, Frame, Missing, Section, Source, Table
from segbench.analysis.report.sections._filling import always
from segbench.analysis.source import Source as AnalysisSource

_SQL = """\
select task, train_tissue, method, method_title, accuracy
from leaderboard
where train_tissue = 'all'
order by task, accuracy desc, method"""
_FILTERS = {"method": ("method",)}
_HERE, _THERE = "these results", "published"


def _build(source: Source) -> Content | Missing:
    if not source.published:
        return Missing("The published scores were not asked for.")
    published = AnalysisSource.of_published().frame(_SQL).with_columns(pl.lit(_THERE).alias("source"))
    here = source.query(_SQL).with_columns(pl.lit(_HERE).alias("source"))
    # The synthetic tasks carry the study's names behind their own: nuclei are shown beside nuclei
    layout = pl.col("task").str.replace("^[^-]*-", "").alias("layout")
    both = pl.concat([published, here], how="vertical_relaxed").with_columns(layout)
    how = "-- published scores: segbench analyze ranking --store published; these results:\n" + _SQL
    return Content(
        frames=(Frame("published", both, how, _FILTERS),),
        figures=(
            Figure(
                kind="dots",
                frame="published",
                title="Accuracy here and as published; other images and budgets, so not the same measurement",
                alt="Each method on each task, with a mark for the score here and one for the published.",
                x="accuracy",
                y="method_title",
                group="source",
                facet="layout",
                x_title="accuracy",
            ),
        ),
        tables=(Table("published", title="Published scores beside these"),),
    )


SECTION = Section(
    key="published",
    title="Published",
    about="The scores of the published study beside these results.",
    fill=always("It sets the published scores beside these.", "segbench report --with-published"),
    build=_build,
    optional=True,
)
