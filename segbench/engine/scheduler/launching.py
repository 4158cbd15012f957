"""From what a user asked to what is run: a launch of what is not done, and a retry of what ended badly."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Sequence

from segbench.engine.data import ensure_prepared
from segbench.engine.data.degrading import SWAP
from segbench.engine.grid import ResourceChange, Run, run_from_dict
from segbench.engine.grid.cards import method_object
from segbench.engine.grid.controls import is_control
from segbench.engine.grid.starts import missing_weights
from segbench.engine.order import CPU, History, expected_seconds
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.mirrored_launch import launching
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.results.store.opening import StoreBusyError
from segbench.engine.results.store.recovery import finished_on_disk, take_in
from segbench.engine.run.attempt import run_attempt
from segbench.engine.scheduler.catalogue import Datasets, known_datasets
from segbench.engine.scheduler.driver import execute
from segbench.engine.scheduler.events import Note, Observer, Summary, ignore
from segbench.engine.scheduler.fitting import fitted, memory_notes
from segbench.engine.scheduler.history import read_history
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.planning import latest_statuses
from segbench.engine.scheduler.request import GridRequest, runs_of
from segbench.engine.scheduler.uploads import pushing
from segbench.errors import SegbenchError

_PATIENCE_S = 5.0
"""For another process that holds the store, before a launch goes on without it."""


def launch(
    request: GridRequest,
    out: ResultsFolder,
    options: LaunchOptions | None = None,
    observe: Observer = ignore,
    prepare_progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Run], Summary | None]:
    """Run what is not done yet of a request.

    Parameters
    ----------
    request
        What is asked for.
    out
        The results folder; made if missing.
    options
        How it is run; None for all defaults.
    observe
        Is told what happens.
    prepare_progress
        Is told what of a dataset is prepared, how much of it, and of how much.

    Returns
    -------
    list of Run, Summary or None
        Every run of the request, and how the launch ended; None where everything was done already.

    Raises
    ------
    SegbenchError
        For unknown names, datasets that cannot be prepared, environments that cannot be built, a results folder that
        another launch holds, and machines that cannot hold a run. Nothing is run then.
    """
    runs = runs_of(request, known_datasets())
    out.require_writable()
    for method in sorted({run.method for run in runs if not is_control(run.method)}):
        method_object(method)
    missing = missing_weights(runs)
    if missing:
        raise SegbenchError("; ".join(missing))
    datasets = known_datasets()
    for name in sorted({run.task.dataset for run in runs}):
        if name not in datasets.specs:
            raise SegbenchError(
                f"dataset {name!r} is not here: register it with 'segbench data prepare {name} PATH', "
                "or run 'segbench grid launch' with no option for the synthetic demo"
            )
        ensure_prepared(datasets.specs[name], progress=prepare_progress)
    datasets = known_datasets()
    runs = runs_of(request, datasets)
    return runs, _run_left(runs, out, datasets, options or LaunchOptions(), observe)


def last_options(out: ResultsFolder, observe: Observer = ignore) -> LaunchOptions:
    """Return how the last launch of a results folder was run; the defaults where there was none.

    What this release does not know, of a launch by a newer one, is told and left out.

    Raises
    ------
    SegbenchError
        A value is not one of this release.
    """
    last = out.launch.read_grid()
    saved = last.get("options")
    if saved is None:  # release 0.1 and before saved these alone, beside the runs
        saved = {name: last[name] for name in ("address", "cpu", "timeout_s", "accelerator", "labels") if name in last}
    options, unknown = LaunchOptions.from_saved(saved)
    if unknown:
        observe(Note(f"the last launch's options {', '.join(unknown)} are not known to this release: left out"))
    return options


def retry(
    out: ResultsFolder,
    statuses: Collection[Status] = (Status.FAILED,),
    options: LaunchOptions | None = None,
    observe: Observer = ignore,
    resources: ResourceChange | None = None,
) -> tuple[list[Run], Summary | None]:
    """Run those of the last launch's runs again that ended so; nothing of the grid is asked for again.

    Parameters
    ----------
    out
        The results folder of that launch.
    statuses
        How their last attempt ended.
    options
        How they are run; None for all of the last launch's (``last_options`` gives them, to change some).
    observe
        Is told what happens.
    resources
        What they ask for now where that differs.

    Returns
    -------
    list of Run, Summary or None
        The runs, and how the launch ended; None where there is none of these.

    Raises
    ------
    SegbenchError
        Nothing was launched there, and as ``launch`` does.
    """
    listed = [run_from_dict(raw) for raw in out.launch.read_grid().get("runs", [])]
    if not listed:
        raise SegbenchError(f"nothing was launched in {out}: run 'segbench grid launch', or name another --out")
    datasets = known_datasets()
    for run in listed:
        known = datasets.specs.get(run.task.dataset)
        if known is None:
            raise SegbenchError(
                f"dataset {run.task.dataset!r} is not here any more: run 'segbench data prepare' for it"
            )
    ended = latest_statuses(out)
    runs = [run for run in listed if ended.get(run.id) in statuses]
    if resources is not None:
        runs = [dataclasses.replace(run, resources=resources.apply(run.resources)) for run in runs]
    if options is None:
        options = last_options(out, observe)
    return runs, _run_left(runs, out, datasets, options, observe, listed)


def _known(
    out: ResultsFolder, writer: StoreWriter, datasets: Datasets, observe: Observer
) -> tuple[Collection[str], History]:
    """Return which runs are finished and how long they took: by the records where another process holds the store."""
    try:
        recovered = take_in(out, writer)
        if recovered:
            observe(Note(f"took in {recovered} records that an interrupted launch had left"))
        return writer.finished_runs(), read_history(out, datasets.sizes, datasets.test_windows)
    except StoreBusyError as error:
        observe(
            Note(
                f"another process{error.held_by} holds {out.store}: the launch goes on, records wait on disk until "
                "that DuckDB client is closed"
            )
        )
        return finished_on_disk(out), History(sizes=datasets.sizes, test_windows=datasets.test_windows)


def _not_tried(out: ResultsFolder, finished: Sequence[Run]) -> list[str]:
    """Return a line where finished runs were not tried with the degraded images that the grid asks for."""
    asked = [run for run in finished if run.robustness]
    if not asked:
        return []
    sql = (
        "select distinct coalesce(again.of_run, again.run_id) as run_id, kind "
        "from degraded_evaluations join attempts as again using (run_id, attempt)"
    )
    try:
        tried = set(query(out, sql).rows())
    except SegbenchError:  # another process holds the store, or an older segbench made it
        return []
    several = {run.id: len(run.task.channels) > 1 for run in asked}
    lacking = {
        run.id: kinds
        for run in asked
        if (kinds := [k for k in run.robustness if (run.id, k) not in tried and (k != SWAP or several[run.id])])
    }
    if not lacking:
        return []
    options = "".join(f" --kind {kind}" for kind in dict.fromkeys(itertools.chain.from_iterable(lacking.values())))
    return [
        f"{len(lacking)} finished runs were not tried with degraded test images; nothing is trained for it: "
        f"segbench runs robustness {' '.join(lacking)}{options} --out {out}"
    ]


def _run_left(
    runs: Sequence[Run],
    out: ResultsFolder,
    datasets: Datasets,
    options: LaunchOptions,
    observe: Observer,
    listed: Sequence[Run] | None = None,
) -> Summary | None:
    """Run what is not done of these; ``listed`` are the runs that a status shows, where they are more."""
    with out.launch.hold(), launching(out, lambda text: observe(Note(text))) as remote:
        # opened after it was fetched, if it was: it may be of an older schema
        writer = StoreWriter(out, patience_s=_PATIENCE_S, later=True)
        remote.keep(writer)
        finished, history = _known(out, writer, datasets, observe)
        left = [run for run in runs if run.id not in finished]
        for note in _not_tried(out, [run for run in runs if run.id in finished]):
            observe(Note(note))
        if not left:
            return None

        device = CPU if options.cpu else options.accelerator
        if options.fit:
            raised = [fitted(run, history.profiles, device) for run in left]
            left, told = [run for run, _ in raised], [note for _, notes in raised for note in notes]
        else:
            told = [note for run in left for note in memory_notes(run, history.profiles, device)]
        told = [*(note for run in runs for note in run.notes), *told]
        for note in dict.fromkeys(told):
            observe(Note(note))

        def expect(run: Run, device: str) -> float:
            return expected_seconds(run, history, device=device).seconds

        return execute(
            left,
            datasets.specs,
            options,
            writer,
            observe,
            expect=expect,
            listed=listed,
            attempt=pushing(run_attempt),
        )
