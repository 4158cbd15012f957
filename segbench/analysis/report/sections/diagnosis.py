"""Diagnosis: which kinds of error a method's lost points are made of."""

from __future__ import annotations

from segbench.analysis.diagnosis import diagnose_runs
from segbench.analysis.report.model import Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import answer_frame, unsure, why_missing
from segbench.analysis.report.sections._filling import always
from segbench.engine.metrics.diagnosis import GAP_METRICS
from segbench.engine.metrics.faults import KINDS
from segbench.engine.study.tissues import ALL_TISSUES


def _build(source: Source) -> Content | Missing:
    # Recall and the mean of metrics have no gap that errors add up to: AP50's is shown whatever the reader chooses
    result = diagnose_runs(source.answers, metric=GAP_METRICS[1])
    known = source.answers.mark(result.table).drop_nulls("gap")
    if not known.height:
        return Missing(why_missing(result))
    kinds = known.filter(test_tissue=ALL_TISSUES).unpivot(
        on=list(KINDS), index=["task", "method", "title", "score"], variable_name="kind", value_name="share"
    )
    return Content(
        warnings=unsure(result),
        frames=(
            answer_frame("gap-kinds", kinds, result, {"method": ("method",), "task": ("task",)}),
            answer_frame("gaps", known, result),
        ),
        figures=(
            Figure(
                kind="bars",
                frame="gap-kinds",
                title="What AP50 lacks to 1, by kind of error",
                alt="A bar is a method; its parts are the shares of its gap that each kind of error has.",
                x="share",
                y="title",
                group="kind",
                facet="task",
                x_title="AP50 that is lost",
            ),
            Figure(
                kind="heatmap",
                frame="gaps",
                title="The kind of error that costs most, by test tissue; colour is the whole gap",
                alt="A row is a method, a column a test tissue; the word is the kind with the greatest share.",
                x="test_tissue",
                y="title",
                value="gap",
                value_title="1 - AP50",
                text="largest",
                facet="task",
            ),
        ),
        tables=(Table("gaps", title="The gap and its shares, by method and test tissue"),),
    )


SECTION = Section(
    key="diagnosis",
    title="Diagnosis",
    about=(
        "What the methods' errors cost: missed, split, merged and spurious cells and loose outlines share the gap "
        "between a run's AP50 and 1 (Shapley values); models trained on all tissues."
    ),
    fill=always("Scoring finished runs again tells it.", "segbench runs evaluate --all"),
    build=_build,
)
