"""The runs of a store, a row each: how it ended, its score and its training time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segbench.analysis.source import Source
from segbench.engine.results.statuses import ENDED
from segbench.errors import unknown_name

if TYPE_CHECKING:
    import polars as pl

_SQL = """\
select
    runs.run_id, runs.method, runs.task, runs.train_tissue, runs.train_images, runs.seed, runs.status,
    runs.attempt as attempts,
    scored.ap50, timings.train_s, runs.host, runs.started_at
from runs_latest as runs
left join timings using (run_id)
left join accuracy as scored
    on scored.run_id = runs.run_id and scored.test_task = runs.task
    and scored.test_tissue = 'all' and scored.operation = 'none'
where coalesce(runs.method = $1, true) and coalesce(runs.task = $2, true) and coalesce(runs.status = $3, true)
order by runs.started_at desc, runs.run_id"""


def list_runs(
    source: Source, *, method: str | None = None, task: str | None = None, status: str | None = None
) -> pl.DataFrame:
    """Return the runs, latest first; those of a method, of a task, or that ended so, where these are named.

    The column ``undertrained`` says why a run was not trained to the end.

    Raises
    ------
    SegbenchError
        There is no such status.
    """
    if status is not None and status not in ENDED:
        raise unknown_name("status", status, ENDED)
    return source.with_reasons(source.frame(_SQL, [method, task, status]), "run_id")
