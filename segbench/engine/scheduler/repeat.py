"""One run by its id: everything that is needed to repeat it, doing so, and comparing the two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import query
from segbench.errors import SegbenchError
from segbench.small_files import write_whole

if TYPE_CHECKING:
    from segbench.engine.grid import ResourceChange
    from segbench.engine.scheduler import LaunchOptions, Observer
    from segbench.engine.scheduler.request import GridRequest

METRICS = ("map", "ap50", "ap75", "ar", "ar50", "ar75")
TRAINED_TOLERANCE = 0.05
"""How far a score of a trained method may lie from the first run's: threads and GPUs add in another order each time."""
_SCORED = ("test_task", "test_tissue", "operation", "radius")
WHOLE = "whole"
"""What stands for the post-operation of scores of whole images."""
_COMPARED = (
    "host", "cpu_name", "gpu_names", "num_gpus", "num_cpus", "segbench_version", "git_commit", "lock_hash",
    "method_revision", "dataset_fingerprint", "settings", "batch_size", "epochs", "iterations", "steps_per_epoch",
)  # fmt: skip


@dataclass(frozen=True)
class RunFacts:
    """Everything that is known of one run."""

    run: Mapping[str, Any]
    """The row of its finished attempt, else of its latest, with ``settings`` and ``versions`` as dictionaries."""
    budget: Mapping[str, Any]
    """As it was asked for: from the job where its artifacts are there, else as it was done."""
    source: Mapping[str, Any] | None
    """Where the dataset's originals lie, as it is registered here; None where it is not."""
    attempts: tuple[Mapping[str, Any], ...]
    phases: Mapping[str, float]
    """Seconds, of the attempt that ``run`` is."""
    scores: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as one nested dictionary."""
        return {
            **self.run, "budget": self.budget, "dataset_source": self.source, "attempts": list(self.attempts),
            "phases": self.phases, "scores": list(self.scores),
        }  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One score of the first run and of its repetition."""

    test_task: str
    test_tissue: str
    operation: str
    radius: int
    metric: str
    first: float | None
    again: float | None
    counts: bool
    """It decides whether the runs agree; the others are shown only."""

    @property
    def apart(self) -> float:
        """Return how far the two lie apart; infinite where only one of them is there."""
        if self.first is None or self.again is None:
            return 0.0 if self.first is self.again else float("inf")
        return abs(self.again - self.first)


@dataclass(frozen=True)
class Repeated:
    """A run and its repetition."""

    first: RunFacts
    again: RunFacts
    tolerance: float
    differences: tuple[Difference, ...]
    """Every score of either, in order."""
    context: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """What else differs: versions of libraries, commit, machine, settings; first and again."""

    @property
    def agrees(self) -> bool:
        """Return whether the repetition is done and no score that counts lies further off than the tolerance."""
        done = self.again.run["status"] == Status.DONE
        return done and all(d.apart <= self.tolerance for d in self.differences if d.counts)


def find_run(out: ResultsFolder, prefix: str) -> str:
    """Return the id of the run that begins with ``prefix``; raises SegbenchError where none or several do."""
    ids = query(out, "select distinct run_id from attempts where starts_with(run_id, ?) order by all", [prefix.lower()])
    found = ids["run_id"].to_list()
    if len(found) == 1:
        return str(found[0])
    if not found:
        raise SegbenchError(f"no run in {out} begins with {prefix!r}: see 'segbench runs list --out {out}'")
    shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    raise SegbenchError(f"{len(found)} runs begin with {prefix!r}: {shown}; give more of the id")


def run_facts(out: ResultsFolder, prefix: str) -> RunFacts:
    """Return everything that is known of the run whose id begins with ``prefix``; errors are ``find_run``'s."""
    from segbench.engine.data import registered

    run_id = find_run(out, prefix)
    # not of runs_latest, which has no row of what predicts or scores again
    newest = "select * from attempts where run_id = ? order by status = 'done' desc, attempt desc limit 1"
    row = query(out, newest, [run_id]).to_dicts()[0]
    row["settings"], row["versions"] = json.loads(row["settings"]), json.loads(row["versions"])
    key = [run_id, row["attempt"]]
    attempts = query(
        out,
        "select attempt, status, error, host, started_at, ended_at, "
        "date_part('epoch', ended_at - started_at) as seconds, "
        "(select seconds from phases where (phases.run_id, phases.attempt) = (attempts.run_id, attempts.attempt) "
        "and phase = 'train') as train_s, folder from attempts where run_id = ? order by attempt",
        [run_id],
    )
    phases = query(out, "select phase, seconds from phases where run_id = ? and attempt = ? order by rowid", key)
    scores = query(
        out, f"select {', '.join((*_SCORED, *METRICS))}, n_images, n_truth, n_predictions "
        "from evaluations where run_id = ? and attempt = ? order by rowid", key,
    )  # fmt: skip
    spec = next((spec for spec in registered() if spec.name == row["dataset"]), None)
    return RunFacts(
        row, _budget(out, row), spec.to_dict() if spec else None, tuple(attempts.to_dicts()), dict(phases.rows()),
        (*scores.to_dicts(), *_whole_scores(out, key)),
    )  # fmt: skip


def _whole_scores(out: ResultsFolder, key: list[Any]) -> list[dict[str, Any]]:
    """Return the scores of whole images; none where an older segbench wrote the store."""
    if not query(out, "select count(*) from duckdb_tables() where table_name = 'whole_evaluations'").item():
        return []
    columns = f"test_task, test_tissue, '{WHOLE}' as operation, 0 as radius, {', '.join(METRICS)}"
    return query(
        out,
        f"select {columns}, n_images, n_truth, n_predictions from whole_evaluations "
        "where run_id = ? and attempt = ? order by rowid",
        key,
    ).to_dicts()


def repeat_run(
    facts: RunFacts, into: ResultsFolder, options: LaunchOptions, observe: Observer, tolerance: float | None = None,
    resources: ResourceChange | None = None,
) -> Repeated:  # fmt: skip
    """Run one run again, through a launch of its own into another results folder, and compare the two.

    Compared are all scores. What counts for the verdict: every score of a method without training, exactly; for a
    trained one the pooled scores without post-operation, within 0.05 (single tissues have few cells, and scatter more).

    Parameters
    ----------
    facts
        The run; it must be finished.
    into
        The results folder of the repetition; it must not hold the run yet.
    options
        Of the launch.
    observe
        Takes the launch's events.
    tolerance
        How far a score that counts may lie off; None for the above.
    resources
        Of the run; what is None are the first run's devices and the memory of the method's card.

    Raises
    ------
    SegbenchError
        The run has no result, its method or dataset is not here, or the folder holds it already.
    """
    from segbench.engine.scheduler.launching import launch

    if facts.run.get("of_run") is not None:
        raise SegbenchError(
            f"{facts.run['run_id']} is no run of a grid: it is a {facts.run['stage']} of {facts.run['of_run']}, "
            "which can be repeated"
        )
    if facts.run["status"] != Status.DONE:
        raise SegbenchError(
            f"run {facts.run['run_id']} has no result to compare with (its latest attempt: {facts.run['status']})"
        )
    runs, summary = launch(_request(facts, into, resources), into, options, observe)
    if summary is None:
        raise SegbenchError(f"{into} holds run {runs[0].id} already: name an empty folder with --out")
    if summary.cancelled and not summary.outcomes:
        raise SegbenchError("cancelled before the run began: there is nothing to compare")
    return compare(facts, run_facts(into, runs[0].id), tolerance)


def compare(first: RunFacts, again: RunFacts, tolerance: float | None = None) -> Repeated:
    """Return the scores of two runs side by side, and what else differs between them."""
    trained = bool(first.run["trained"])
    if tolerance is None:
        tolerance = TRAINED_TOLERANCE if trained else 0.0
    scores = [{tuple(row[name] for name in _SCORED): row for row in facts.scores} for facts in (first, again)]
    differences = tuple(
        Difference(
            test_task=key[0],
            test_tissue=key[1],
            operation=key[2],
            radius=key[3],
            metric=metric,
            first=scores[0].get(key, {}).get(metric),
            again=scores[1].get(key, {}).get(metric),
            counts=not trained or (key[1], key[2]) == ("all", "none"),
        )
        for key in dict.fromkeys([*scores[0], *scores[1]])
        for metric in METRICS
    )  # fmt: skip
    pairs = {name: (first.run[name], again.run[name]) for name in _COMPARED}
    versions = [facts.run["versions"] for facts in (first, again)]
    pairs |= {
        f"version of {name}": (versions[0].get(name), versions[1].get(name))
        for name in sorted({*versions[0], *versions[1]})
    }
    return Repeated(first, again, tolerance, differences, {n: pair for n, pair in pairs.items() if pair[0] != pair[1]})


def _budget(out: ResultsFolder, row: Mapping[str, Any]) -> dict[str, Any]:
    budget = out.attempt(row["run_id"], row["attempt"]).read_job().get("budget")
    if isinstance(budget, dict):
        return budget
    return {name: row[name] for name in ("batch_size", "epochs", "iterations", "steps_per_epoch")}


def _request(facts: RunFacts, out: ResultsFolder, changed: ResourceChange | None) -> GridRequest:
    """Return the grid of this one run, as a grid file beside its results."""
    from segbench.engine.grid import ResourceChange
    from segbench.engine.scheduler.request import GridRequest

    run = facts.run
    changes = ("batch_size", "epochs", "iterations", "steps_per_epoch")
    budget = {name: facts.budget[name] for name in changes if facts.budget.get(name)} if run["trained"] else {}
    content = {
        "methods": [run["method"]], "tasks": [run["task"]], "tissues": [run["train_tissue"]], "seeds": [run["seed"]],
        "train_images": [run["train_images"] or "all"], "train_images_keep": "epochs",
        "settings": {run["method"]: run["settings"]}, "budgets": {run["method"]: budget} if budget else {},
        "evaluation": "whole" if any(row["operation"] == WHOLE for row in facts.scores) else "windows",
    }  # fmt: skip
    path = out.make().repeated_grid(run["run_id"])
    write_whole(path, json.dumps(content, indent=1))
    first = {"num_gpus": run["num_gpus"] or None, "num_cpus": run["num_cpus"] or None}
    asked = {} if changed is None else changed.model_dump(exclude_none=True)
    return GridRequest(grid_file=path, resources=ResourceChange(**{**first, **asked}))
