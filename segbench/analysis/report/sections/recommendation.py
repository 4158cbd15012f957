"""Recommendation: which method to take for a tissue, and what to train it on."""

from __future__ import annotations

import polars as pl

from segbench.analysis.recommend import recommend_methods
from segbench.analysis.report.model import Content, Figure, Frame, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import answer_frame
from segbench.analysis.report.sections._filling import filled_by, missing_recommendation
from segbench.analysis.result import Result
from segbench.analysis.transfer import measure_transfer

# What can be asked for: the purposes that the store's own scores answer, and the tissues of each
_PURPOSES_SQL = """\
select
    case when target = 'cell' then 'wholecell' else target end as target,
    dataset_kind = 'livecell' or (
        n_channels = 1 and regexp_matches(lower(channels[1]), '^(phase|bright.?field|dic|transmitted)')
    ) as phase,
    n_channels,
    list(distinct test_tissue order by test_tissue = 'all' desc, test_tissue) as tissues
from runs_latest
join evaluations using (run_id)
where status = 'done' and category <> 'control' and train_images is null
    and test_task = task and operation = 'none' and evaluations.map is not null
group by all
order by target, phase, n_channels"""
_MOST = 3
_TRAINING = Figure(
    kind="heatmap",
    frame="training-data",
    title="The tissue to train on, by task and tissue to be segmented; colour is the mean accuracy over all methods",
    alt="For each task and tissue, the training tissue whose models scored best on it.",
    x="task",
    y="test_tissue",
    value="expected",
    value_title="accuracy",
    text="train_on",
    pick=True,
)


def _build(source: Source) -> Content | Missing:
    results: list[Result] = []
    rows: list[pl.DataFrame] = []
    for purpose in source.query(_PURPOSES_SQL).iter_rows(named=True):
        for tissue in purpose["tissues"]:
            result = recommend_methods(
                source.answers,
                tissue=tissue,
                target=purpose["target"],
                channels=purpose["n_channels"],
                images="phase" if purpose["phase"] else "fluorescence",
            )
            wanted = f"{purpose['target']}, {purpose['n_channels']} channel{'s' * (purpose['n_channels'] > 1)}"
            if purpose["phase"]:
                wanted += " (phase contrast)"
            results.append(result)
            rows.append(result.table.select(pl.lit(wanted).alias("to_segment"), pl.lit(tissue).alias("of"), pl.all()))
    if not any(row.height for row in rows):
        return Missing()
    methods = answer_frame(
        "recommendation",
        pl.concat(row for row in rows if row.height),
        results[0],
        {"method": ("method",), "task": ("task",), "tissue": ("of",)},
    )
    training = _training_data(source)
    return Content(
        warnings=tuple(dict.fromkeys(warning for result in results for warning in result.warnings)),
        frames=(methods, *([training] if training else [])),
        figures=(
            Figure(
                kind="heatmap",
                frame="recommendation",
                title="The method to take, by tissue and by what is to be segmented; colour is its accuracy",
                alt="For each tissue and purpose, the method with the highest score.",
                x="to_segment",
                y="of",
                value="score",
                value_title="accuracy",
                text="title",
                pick=True,
            ),
            *([_TRAINING] if training else []),
        ),
        tables=(
            Table("recommendation", title="The methods for each purpose, with the reason"),
            *([Table("training-data", title="The three best training tissues for each tissue")] if training else []),
        ),
    )


def _training_data(source: Source) -> Frame | None:
    """Return the best training tissues for every test tissue of the tasks with several training tissues."""
    result = measure_transfer(source.answers)
    table = (
        result.table.filter(pl.col("test_tissue") != "all")
        .group_by("task", "test_tissue", pl.col("train_tissue").alias("train_on"))
        .agg(pl.col("value").mean().alias("expected"), pl.col("method").n_unique().alias("methods"))
        .drop_nulls("expected")
        .sort("task", "test_tissue", "expected", "train_on", descending=[False, False, True, False])
        .with_columns(pl.int_range(1, pl.len() + 1).over("task", "test_tissue").alias("place"))
        .filter(pl.col("place") <= _MOST)
    )
    if not table.height:
        return None
    return answer_frame("training-data", table, result, {"task": ("task",), "tissue": ("test_tissue",)})


SECTION = Section(
    key="recommendation",
    title="Recommendation",
    about="Which method to take for a tissue, a target and the channels at hand, and what to train it on.",
    fill=filled_by(missing_recommendation),
    build=_build,
)
