"""Time and cost: how long each method trains, what else its runs spend time on, and what accuracy that buys."""

from __future__ import annotations

from segbench.analysis.report.model import METRIC, TRAINED_ON, Content, Figure, Frame, Missing, Section, Source, Table
from segbench.analysis.report.sections._filling import filled_by, more_runs

_FILTERS = {"method": ("method",), "task": ("task",), "train": ("train_tissue",)}
_PHASES_SQL = """\
select t.method, t.method_title, t.task, t.train_tissue, p.phase, avg(p.seconds) as seconds,
    list_position(['environment', 'data', 'import', 'load', 'train', 'calibrate', 'save', 'predict', 'evaluate'], \
p.phase) as place
from timings as t
join runs_latest as r using (run_id)
join phases as p on p.run_id = r.run_id and p.attempt = r.attempt
where p.phase <> 'wait' and t.train_images is null and not coalesce(t.control, false)
group by all
order by place, t.method_title, t.task, t.train_tissue"""
_TIMES_SQL = """\
unpivot (
    select method, method_title, task, train_tissue,
        avg(train_s) as "T, as run", avg(standardised_s) as "standardised"
    from timings
    where train_s > 0 and train_images is null
    group by all
) on "T, as run", "standardised" into name measure value seconds
order by task, method_title, measure"""
_COST_SQL = """\
select
    l.task, l.train_tissue, l.method, l.method_title, l.accuracy, l.map, l.ap50, l.ap75, l.ar, l.ar50, l.ar75,
    avg(coalesce(t.train_s, 0) + coalesce(t.predict_s, 0)) as seconds, sum(t.gpu_hours) as gpu_hours
from leaderboard as l
join timings as t using (task, train_tissue, method)
where t.train_images is null
group by all
order by l.task, l.train_tissue, seconds"""


def _build(source: Source) -> Content | Missing:
    timings = source.timings
    if not timings.data.height:
        return Missing()
    phases = Frame("phases", source.marked(_PHASES_SQL), _PHASES_SQL, _FILTERS)
    times = Frame("times", source.marked(_TIMES_SQL), _TIMES_SQL, _FILTERS)
    cost = Frame("cost", source.marked(_COST_SQL), _COST_SQL, _FILTERS)
    figures = [
        Figure(
            kind="bars",
            frame="phases",
            title="Where the time of a run goes",
            alt="A bar is a method; its parts are the phases of a run, on average.",
            x="seconds",
            y="method_title",
            group="phase",
            facet="task",
            where={"train_tissue": TRAINED_ON},
            x_title="time of a run",
            unit="seconds",
        )
    ]
    if times.data.height:
        figures.append(
            Figure(
                kind="dots",
                frame="times",
                title="Training time T, and standardised to batch 8 and 50 epochs",
                alt="Each method with a mark for its training time as run, and one for the standardised time.",
                x="seconds",
                y="method_title",
                group="measure",
                facet="task",
                where={"train_tissue": TRAINED_ON},
                x_title="time, logarithmic",
                unit="seconds",
                log_x=True,
            )
        )
    if cost.data.height:
        figures.append(
            Figure(
                kind="scatter",
                frame="cost",
                title="Score against time to train and predict; the line is the Pareto front",
                alt=(
                    "Each method as a point: to the left is faster, above is better; "
                    "the line joins the methods that no other beats in both."
                ),
                x="seconds",
                y=METRIC,
                group="method_title",
                facet="task",
                where={"train_tissue": TRAINED_ON},
                x_title="time, logarithmic",
                unit="seconds",
                log_x=True,
                label="method_title",
                front=True,
            )
        )
    return Content(
        frames=(timings, phases, times, cost),
        figures=tuple(figures),
        tables=(Table("timings", title="Seconds of each phase of every finished run"), Table("cost", title="Cost")),
    )


SECTION = Section(
    key="time",
    title="Time and cost",
    about="T is the time to train after all packages are loaded; standardised time is T at batch 8 and 50 epochs.",
    fill=filled_by(more_runs),
    build=_build,
)
