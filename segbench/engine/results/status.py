"""Where a grid stands: the store's attempts, what its launch writes of itself, and the folders of running ones."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segbench.engine.results.attempts import AttemptFolder, progress_line
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import query
from segbench.errors import SegbenchError, unknown_name

if TYPE_CHECKING:
    import polars as pl

_KEYS = ("run_id", "method", "task", "train_tissue", "seed")
_COLUMNS = (*_KEYS, "status", "doing", "error", "log")
_PIECE_BYTES = 64 * 1024
_FOLLOW_S = 0.5


@dataclass(frozen=True)
class GridStatus:
    """Where a results folder stands."""

    driven: bool
    """A launch holds the folder now."""
    host: str | None
    pid: int | None
    rows: tuple[dict[str, Any], ...]
    """One a run of the store and of the last launch: run_id, method, task, train_tissue, seed, status, doing (what it
    does now), error, log."""
    launch: Mapping[str, Any]
    """What the launch last wrote of itself: see ``LaunchState``."""

    def frame(self) -> pl.DataFrame:
        """Return ``rows`` as a Polars frame."""
        import polars as pl

        types = {**dict.fromkeys(_COLUMNS, pl.String), "seed": pl.Int64}
        return pl.DataFrame([{name: row[name] for name in _COLUMNS} for row in self.rows], schema=types)

    def counts(self) -> Counter[str]:
        """Return how many runs have each status."""
        return Counter(row["status"] for row in self.rows)

    def totals(self) -> dict[str, pl.Expr]:
        """Return the totals as columns of ``frame``: the runs, those of the row's status, whether a launch runs."""
        import polars as pl

        return {
            "runs": pl.len(),
            "runs_of_status": pl.len().over("status"),
            "launch_runs": pl.lit(self.driven),
        }


@dataclass(frozen=True)
class LaunchState:
    """Where a launch stood a few seconds ago, by small files alone, so that it can be asked for often."""

    driven: bool
    host: str
    pid: int
    age_s: float
    """Seconds since it was written."""
    ended: Mapping[str, int]
    """Runs of this launch by how they ended."""
    waiting: int
    running: tuple[dict[str, Any], ...]
    """One an attempt: run_id, attempt, method, task, train_tissue, seed, doing, log."""
    gpus_in_use: float
    gpus: int
    dashboard: str | None

    def line(self) -> str:
        """Return it in one line."""
        ended = ", ".join(f"{n} {status}" for status, n in sorted(self.ended.items())) or "none ended"
        gpus = f" on {self.gpus_in_use:g} of {self.gpus} GPUs" if self.gpus else ""
        link = f"; dashboard {self.dashboard}" if self.dashboard else ""
        if not self.driven:
            return f"{ended}; no launch runs (the last was process {self.pid} on {self.host})"
        now = f"{len(self.running)} running{gpus}, {self.waiting} waiting"
        return f"{ended}; {now}; process {self.pid} on {self.host}{link}"


def grid_status(out: ResultsFolder) -> GridStatus:
    """Return where a results folder stands; works from any process and machine, with or without a launch running.

    A run of the last launch that has no result is ``running`` or ``queued`` while
    its launch lives, ``interrupted`` after.

    Raises
    ------
    SegbenchError
        Nothing was ever launched there.
    """
    launched, state = out.launch.read_grid(), out.launch.read_state()
    if not launched and not out.has_store():
        raise SegbenchError(
            f"nothing was launched in {out}: run 'segbench grid launch --out {out}', or name another --out"
        )
    driven = out.launch.is_held()
    rows: dict[str, dict[str, Any]] = {}
    if out.has_store():
        sql = (
            "select run_id, method, task, train_tissue, seed, status, null as doing, error, attempt as log "
            "from runs_latest order by started_at, run_id"
        )
        for row in query(out, sql).to_dicts():
            rows[row["run_id"]] = row | {"log": out.attempt(row["run_id"], row["log"]).relative_log}
    running = state.get("running", {}) if driven else {}
    for run in launched.get("runs", []):
        name, known = run["run_id"], rows.get(run["run_id"])
        if known is not None and (known["status"] == Status.DONE or name not in running):
            continue
        rows[name] = {key: run[key] for key in _KEYS} | _without_row(out, name, driven, running.get(name))
    pid, host = state.get("pid", launched.get("pid")), state.get("host", launched.get("host"))
    return GridStatus(driven, host, pid, tuple(rows.values()), state)


def launch_state(out: ResultsFolder) -> LaunchState:
    """Return where the launch of a results folder stood when it last said so; the store is not opened.

    Raises
    ------
    SegbenchError
        Nothing was launched there by this version of segbench.
    """
    state = out.launch.read_state()
    if not state:
        raise SegbenchError(f"no launch has told where it stands in {out}: see 'segbench grid status --out {out}'")
    driven = out.launch.is_held() and not state.get("ended")
    wanted = state.get("running", {}) if driven else {}
    runs = {run["run_id"]: run for run in out.launch.read_grid().get("runs", []) if run["run_id"] in wanted}
    running = []
    for name, number in wanted.items():
        attempt = out.attempt(name, number)
        told = {key: runs.get(name, {}).get(key) for key in _KEYS[1:]}
        running.append(
            {"run_id": name, "attempt": number, **told, "doing": _doing(attempt), "log": str(attempt.job.log)}
        )
    return LaunchState(
        driven=driven,
        host=str(state.get("host")),
        pid=int(state.get("pid", 0)),
        age_s=time.time() - state.get("at", 0.0),
        ended=state.get("counts", {}),
        waiting=int(state.get("waiting", 0)),
        running=tuple(running),
        gpus_in_use=float(state.get("gpus_in_use", 0)),
        gpus=int(state.get("gpus", 0)),
        dashboard=state.get("dashboard"),
    )


def request_cancel(out: ResultsFolder) -> GridStatus:
    """Ask the launch that holds a results folder to stop, for which it looks often; returns where it stood.

    Raises
    ------
    SegbenchError
        No launch is running there.
    """
    status = grid_status(out)
    if not status.driven:
        raise SegbenchError(f"no launch is running in {out}: there is nothing to cancel")
    out.launch.ask_to_end()
    return status


def find_log(out: ResultsFolder, prefix: str, number: int | None = None) -> AttemptFolder:
    """Return the folder of a run's newest attempt, or of the one with this number, for its log.

    Parameters
    ----------
    out
        The results folder.
    prefix
        The run's id or the beginning of it.
    number
        None for the newest.

    Raises
    ------
    SegbenchError
        No run's id begins so, several do, it has no such attempt, or it waits to be run: what it waits for is told.
    """
    ran = out.run_ids()
    if not any(name.startswith(prefix) for name in ran):
        listed = [run["run_id"] for run in out.launch.read_grid().get("runs", [])]
        waiting = [name for name in listed if name.startswith(prefix)]
        if len(waiting) > 1:
            raise SegbenchError(
                f"{len(waiting)} runs begin with {prefix!r}: give more of the id, {' or '.join(waiting[:5])}"
            )
        if waiting:
            raise SegbenchError(_why_no_log(out, waiting[0]))
        if not ran and listed:
            raise unknown_name("run", prefix, listed if len(listed) <= 20 else [])
    return out.find_attempt(prefix, number)


def _why_no_log(out: ResultsFolder, run_id: str) -> str:
    if out.launch.is_held():
        return (
            f"run {run_id} is queued: it has no log before it begins; "
            f"'segbench grid status --watch --out {out}' shows when"
        )
    return f"run {run_id} was never begun: its launch has ended; launching the grid again takes it up"


def log_text(attempt: AttemptFolder, follow: bool = False, goes_on: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """Yield the log of an attempt, piece by piece.

    Parameters
    ----------
    attempt
        Which.
    follow
        Go on until the attempt has its record, and what came before is in.
    goes_on
        Is asked now and then while it follows: False ends it (the launch has died).
    """
    position = 0
    while True:
        ended = not follow or attempt.has_record() or not goes_on()
        try:
            with attempt.job.log.open("rb") as file:
                file.seek(position)
                while piece := file.read(_PIECE_BYTES):
                    position += len(piece)
                    yield piece.decode(errors="replace")
        except FileNotFoundError:
            pass
        if ended:
            return
        time.sleep(_FOLLOW_S)


def describe_progress(line: dict[str, Any]) -> str:
    """Return one progress line of a method in a few words.

    Examples
    --------
    >>> describe_progress({"phase": "train", "epoch": 3, "epochs": 8, "loss": 0.41234})
    'train epoch 3/8, loss 0.412'
    """
    words = str(line.get("phase", ""))
    for unit, total in (("epoch", "epochs"), ("step", "steps")):
        if line.get(unit) is not None:
            words += f" {unit} {line[unit]}" + (f"/{line[total]}" if line.get(total) else "")
            break
    if line.get("done") is not None:
        words += f" {line['done']}/{line.get('total')}"
    loss = line.get("loss")
    if loss is not None:
        words += f", loss {loss:.3g}" if isinstance(loss, float) else f", loss {loss}"
    # a terminal would obey what a method may have written there
    return "".join(letter if letter.isprintable() else " " for letter in words)[:200]


def _without_row(out: ResultsFolder, run_id: str, driven: bool, number: int | None) -> dict[str, Any]:
    """Return what is known of a run that the store has no result of: from its folder."""
    attempt = None
    if number is not None:
        attempt = out.attempt(run_id, number)
    elif not driven:
        attempt = next(reversed(out.attempts(run_id)), None)
    log = attempt.relative_log if attempt is not None else None
    status = Status.QUEUED if driven else Status.INTERRUPTED
    told: dict[str, Any] = {"status": status.value, "doing": None, "error": None, "log": log}
    if attempt is None:
        return told
    if attempt.has_record():  # the store has not taken it in yet
        row = attempt.recorded_attempt()
        return told | {"status": row.get("status", told["status"]), "error": row.get("error")}
    return told | ({"status": Status.RUNNING.value, "doing": _doing(attempt)} if driven else {})


def _doing(attempt: AttemptFolder) -> str:
    """Return what an attempt that runs does, from the end of its progress."""
    if not attempt.has_job():
        return "preparing"
    for text in reversed(attempt.progress_end()):
        line = progress_line(text)
        if line is not None:
            return describe_progress(line)
    return "starting"
