"""Overview: what ran, on what, how it ended, and why what failed did."""

from __future__ import annotations

from typing import Any

from segbench.analysis.report.model import Content, Figure, Frame, Missing, Section, Source, Table
from segbench.analysis.report.sections._filling import filled_by, more_runs
from segbench.analysis.report.wording import duration, listed

_STATUS_SQL = """\
select *
from (select method, method_title, task, train_tissue, status, count(*) as runs from runs_latest group by all)
order by status <> 'done', status, method_title, task, train_tissue"""

_SUMMARY_SQL = """\
select
    count(*) as runs,
    count(*) filter (status = 'done') as done,
    count(*) filter (status <> 'done') as unfinished,
    count(distinct method) as methods,
    count(distinct task) as tasks,
    count(distinct train_tissue) as train_tissues,
    min(started_at) as first,
    max(ended_at) as last,
    coalesce(sum(epoch(ended_at - started_at)), 0) as wall_s,
    list(distinct host order by host) as hosts,
    list(distinct cpu_name order by cpu_name) filter (cpu_name is not null) as cpus,
    list_distinct(flatten(list(gpu_names))) as gpus,
    list(distinct dataset || ' (' || dataset_kind || ')' order by dataset || ' (' || dataset_kind || ')') as datasets,
    list(distinct segbench_version order by segbench_version) as versions
from runs_latest"""

_FAILURES_SQL = """\
select run_id, attempt, status, method, method_title, task, train_tissue, seed, error, log_tail, host, folder, ended_at
from runs_latest
where status <> 'done'
order by ended_at desc"""

_DATA_SQL = """\
select distinct dataset, split, target, tissue, n_images, n_cells, area, elongation, convexity, pixel_size_um
from tissues
order by dataset, target, split, tissue"""

_SHOWN_FAILURES = 50


def _build(source: Source) -> Content | Missing:
    summary = source.query(_SUMMARY_SQL).row(0, named=True)
    if not summary["runs"]:
        return Missing()
    statuses = Frame("statuses", source.marked(_STATUS_SQL), _STATUS_SQL, {"method": ("method",), "task": ("task",)})
    failures = source.query(_FAILURES_SQL)
    data = Frame("data", source.query(_DATA_SQL), _DATA_SQL, {"tissue": ("tissue",)})
    gpu_hours = source.query("select coalesce(sum(gpu_hours), 0) as hours from timings")["hours"][0]
    figures = (
        Figure(
            kind="bars",
            frame="statuses",
            title="Runs by method and status",
            alt="A bar is a method; its parts are its runs by how they ended.",
            x="runs",
            y="method_title",
            group="status",
            x_title="runs",
        ),
    )
    tables = [Table("statuses", title="Runs by method, task and status")]
    if data.data.height:
        tables.append(Table("data", title="The data: windows, cells and their mean shape"))
    return Content(
        frames=(statuses, data),
        figures=figures,
        tables=tuple(tables),
        template="overview.html.j2",
        context={
            "summary": summary,
            "facts": _facts(summary, gpu_hours),
            "failures": failures.head(_SHOWN_FAILURES).to_dicts(),
            "more_failures": max(0, failures.height - _SHOWN_FAILURES),
        },
    )


def _facts(summary: dict[str, Any], gpu_hours: float) -> list[tuple[str, str]]:
    hardware = [*(summary["cpus"] or []), *(summary["gpus"] or [])]
    return [
        ("runs", f"{summary['runs']:,}"),
        ("finished", f"{summary['done']:,}"),
        ("failed or stopped", f"{summary['unfinished']:,}"),
        ("methods", f"{summary['methods']:,}"),
        ("tasks", f"{summary['tasks']:,}"),
        ("training tissues", f"{summary['train_tissues']:,}"),
        ("time of all runs", duration(summary["wall_s"])),
        ("GPU hours of training", f"{gpu_hours:,.1f}"),
        ("data", listed(summary["datasets"], 3)),
        ("first start", f"{summary['first']:%Y-%m-%d %H:%M}"),
        ("last end", f"{summary['last']:%Y-%m-%d %H:%M}"),
        ("hosts", listed(summary["hosts"], 3)),
        ("hardware", listed(hardware, 3) or "not recorded"),
    ]


SECTION = Section(
    key="overview",
    title="Overview",
    about="What ran, on what data and machines, how it ended, and why what failed did.",
    fill=filled_by(more_runs),
    build=_build,
)
