"""Runs: every attempt with all its context."""

from __future__ import annotations

from segbench.analysis.report.model import Content, Frame, Section, Source, Table
from segbench.analysis.report.wording import count

_SQL = """\
select
    method, method_title, task, train_tissue, seed, status, attempt, error, epochs, iterations, batch_size,
    n_train_images, n_train_cells, n_parameters, settings, versions, lock_hash, segbench_version, git_commit,
    host, cpu_name, num_cpus, gpu_names, num_gpus, round(peak_memory_bytes / 1e9, 2) as peak_memory_gb,
    started_at, ended_at, log_tail, folder, run_id
from attempts
order by method_title, task, train_tissue, seed, attempt"""


def _build(source: Source) -> Content | None:
    frame = Frame(
        "runs", source.query(_SQL), _SQL, {"method": ("method",), "task": ("task",), "train": ("train_tissue",)}
    )
    if not frame.data.height:
        return None
    hosts = frame.data["host"].n_unique()
    sentence = (
        f"{count(frame.data.height, 'attempt')} at {count(frame.data['run_id'].n_unique(), 'run')} on "
        f"{count(hosts, 'machine')}; a row holds all that is needed to repeat its run."
    )
    return Content(sentence=sentence, frames=(frame,), tables=(Table("runs", title="Every attempt"),))


SECTION = Section(
    key="runs",
    title="Runs",
    about="Every attempt with its settings, versions, machine and, where it failed, the end of its log.",
    fill="segbench grid launch",
    build=_build,
)
