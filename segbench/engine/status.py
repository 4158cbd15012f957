"""Where a grid stands: the store's attempts, and the folders of those that run now."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.engine.record import RECORD_NAME
from segbench.engine.scheduler import CANCEL_FILE, is_driven, read_grid_file
from segbench.engine.store import query, store_path
from segbench.engine.store.recovery import attempt_number
from segbench.errors import SegbenchError

_KEYS = ("run_id", "method", "task", "train_tissue", "seed")


@dataclass(frozen=True)
class GridStatus:
    """Where a results folder stands."""

    driven: bool
    """A launch holds the folder now."""
    host: str | None
    pid: int | None
    rows: tuple[dict[str, Any], ...]
    """One a run of the store and of the last launch: id, method, task, train_tissue, seed, status, what it does, error."""

    def counts(self) -> Counter[str]:
        """Return how many runs have each status."""
        return Counter(row["status"] for row in self.rows)


def grid_status(out: Path) -> GridStatus:
    """Return where a results folder stands; works from any process, with or without a launch running.

    A run of the last launch that has no result is ``running`` or ``queued`` while its launch lives, ``interrupted`` after.

    Raises
    ------
    SegbenchError
        Nothing was ever launched there.
    """
    launched = read_grid_file(out)
    if not launched and not store_path(out).exists():
        raise SegbenchError(
            f"nothing was launched in {out}: run 'segbench grid launch --out {out}', or name another --out"
        )
    driven = is_driven(out)
    rows: dict[str, dict[str, Any]] = {}
    if store_path(out).exists():
        sql = (
            "select run_id, method, task, train_tissue, seed, status, null as doing, error, folder "
            "from runs_latest order by started_at"
        )
        rows = {row["run_id"]: row for row in query(out, sql).to_dicts()}
    for run in launched.get("runs", []):
        known = rows.get(run["run_id"])
        live = _live(out / "runs" / run["run_id"])
        if known is None or (known["status"] != "done" and live is not None and driven):
            status = "interrupted" if not driven else "queued" if live is None else "running"
            if known is not None and live is None:
                continue
            rows[run["run_id"]] = {
                **{key: run[key] for key in _KEYS},
                "status": status,
                "doing": live,
                "error": None,
                "folder": None,
            }
    return GridStatus(driven, launched.get("host"), launched.get("pid"), tuple(rows.values()))


def request_cancel(out: Path) -> GridStatus:
    """Ask the launch that holds a results folder to stop; returns where it stood. It looks for this several times a second.

    Raises
    ------
    SegbenchError
        No launch is running there.
    """
    status = grid_status(out)
    if not status.driven:
        raise SegbenchError(f"no launch is running in {out}: there is nothing to cancel")
    (out / CANCEL_FILE).touch()
    return status


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
    return words


def _live(folder: Path) -> str | None:
    attempts = sorted(folder.glob("attempt-*"), key=attempt_number)
    if not attempts or (attempts[-1] / RECORD_NAME).exists() or not (attempts[-1] / "job.json").exists():
        return None
    try:
        lines = (attempts[-1] / "progress.jsonl").read_text().strip().splitlines()
    except FileNotFoundError:
        return "starting"
    for text in reversed(lines):
        try:
            return describe_progress(json.loads(text))
        except json.JSONDecodeError:
            continue
    return "starting"
