"""How long the finished runs of a results folder took."""

from __future__ import annotations

from collections.abc import Mapping

from segbench.engine.order import CPU, History, Measured, Sizes
from segbench.engine.order.measured import Point, Profiles
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.measurements import read_measurements
from segbench.engine.results.store import query
from segbench.methods.card import Budget

_SQL = """
select
    a.method, a.task, a.dataset_fingerprint, a.train_tissue, a.batch_size, a.epochs, a.iterations, a.steps_per_epoch,
    a.n_train_images, a.train_images is null as whole, a.num_gpus, a.gpu_names, coalesce(p.train_s, 0) as train_s,
    p.other_s
from runs_latest a
join (
    select run_id, attempt, sum(seconds) filter (phase = 'train') as train_s,
        coalesce(sum(seconds) filter (phase not in ('train', 'wait')), 0) as other_s
    from phases group by run_id, attempt
) p using (run_id, attempt)
where a.status = 'done'
order by a.ended_at
"""


def read_history(
    out: ResultsFolder, sizes: Sizes | None = None, test_windows: Mapping[str, int] | None = None
) -> History:
    """Read the finished runs of a results folder; an empty history where there is no store.

    Raises
    ------
    SegbenchError
        The store cannot be read.
    """
    if not out.has_store():
        return History(sizes=sizes or {}, test_windows=test_windows or {})
    found = []
    for row in query(out, _SQL).iter_rows(named=True):
        budget = Budget(row["batch_size"], row["epochs"], row["iterations"], row["steps_per_epoch"])
        measured = Measured(
            task=row["task"],
            dataset_fingerprint=row["dataset_fingerprint"],
            train_tissue=row["train_tissue"],
            budget=budget,
            n_train_images=row["n_train_images"],
            num_gpus=row["num_gpus"],
            device=(row["gpu_names"] or [CPU])[0] if row["num_gpus"] else CPU,
            train_s=row["train_s"],
            other_s=row["other_s"],
            whole=row["whole"],
        )
        found.append((row["method"], measured))
    return History.of(found, sizes, read_profiles(out), test_windows)


def read_profiles(out: ResultsFolder) -> Profiles:
    """Read what ``methods measure`` has left in a store."""
    return Profiles(
        [
            Point(
                one.method, one.settings, one.stage, one.batch, one.device, one.device_bytes, one.side,
                one.windows_per_s, one.bytes, one.measurement,
            )
            for one in read_measurements(out)
        ]
    )  # fmt: skip
