"""Runs: every attempt with all its context."""

from __future__ import annotations

from segbench.analysis.report.model import TRAINED_ON, Content, Figure, Frame, Missing, Section, Source, Table
from segbench.analysis.report.sections._filling import filled_by, more_runs

_SQL = """\
select
    method, method_title, task, train_tissue, seed, status, attempt, error, epochs, iterations, batch_size,
    n_train_images, n_train_cells, n_parameters, settings, versions, lock_hash, segbench_version, git_commit,
    host, cpu_name, num_cpus, gpu_names, num_gpus, round(peak_memory_bytes / 1e9, 2) as peak_memory_gb,
    started_at, ended_at, log_tail, folder, run_id
from attempts
where of_run is null
order by method_title, task, train_tissue, seed, attempt"""

# About 50 points a curve are enough to see its course; seeds are averaged
_HISTORY_SQL = """\
with points as (
    select
        method, method_title, task, train_tissue, epoch, step, loss, val_loss,
        percent_rank() over (partition by run_id order by point) as share
    from history
    join runs_latest using (run_id, attempt)
    where loss is not null
)
select
    method, method_title, task, train_tissue, round(100 * share / 2) * 2 as percent,
    avg(loss) as loss, avg(val_loss) as val_loss, max(epoch) as epoch, max(step) as step
from points
group by all
order by method_title, task, train_tissue, percent"""
_FILTERS = {"method": ("method",), "task": ("task",), "train": ("train_tissue",)}


def _build(source: Source) -> Content | Missing:
    frame = Frame("runs", source.answers.with_reasons(source.marked(_SQL), "run_id"), _SQL, _FILTERS)
    if not frame.data.height:
        return Missing()
    history = Frame("history", source.marked(_HISTORY_SQL), _HISTORY_SQL, _FILTERS)
    losses = Figure(
        kind="lines",
        frame="history",
        title="Training loss, relative to where it began",
        alt="Each method's training loss from its start to its end, as a share of the first value.",
        x="percent",
        y="loss",
        group="method_title",
        facet="task",
        where={"train_tissue": TRAINED_ON},
        x_title="percent of the training",
        y_title="loss / first loss",
        relative=True,
    )
    drawn = bool(history.data.height)
    return Content(
        frames=(frame, *([history] if drawn else [])),
        figures=(losses,) if drawn else (),
        tables=(Table("runs", title="Every attempt"), *([Table("history", title="Training losses")] if drawn else [])),
    )


SECTION = Section(
    key="runs",
    title="Runs",
    about="Every attempt with its settings, versions, machine and, where it failed, the end of its log.",
    fill=filled_by(more_runs),
    build=_build,
)
