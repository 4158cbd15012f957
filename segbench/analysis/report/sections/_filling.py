"""What would fill an empty section for the data of this folder, with the exact command."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from segbench.analysis.report.model import Missing, Source
from segbench.analysis.report.wording import listed
from segbench.engine.grid.cards import all_cards
from segbench.engine.grid.catalogue import STUDY_DATASETS
from segbench.engine.study.tissues import ALL_TISSUES, TISSUENET_CHANNELS, TISSUENET_TARGETS
from segbench.methods.job import Task

DEFAULT_FOLDER = "segbench-results"
_MOST_METHODS = 3
_WHOLE = 0.95
_TRAINED = ("stardist",)
"""What is trained where nothing was yet: the quickest."""

_DATASETS_SQL = """\
select
    dataset,
    any_value(dataset_kind) as kind,
    list(distinct task order by task) as tasks,
    list(distinct method order by method) filter (trained) as trained,
    list(distinct method order by method) as methods,
    list(distinct train_tissue order by train_tissue) as train_tissues,
    max(seed) as seed,
    count(*) filter (status = 'done') as done,
    count(*) as runs
from runs_latest
group by dataset
order by done desc, runs desc, dataset"""
_TASKS_SQL = "select distinct task, channels, target from runs_latest where dataset = $1 order by task"
_BUDGETS_SQL = "select distinct method, epochs, iterations from runs_latest where dataset = $1 and trained"
_TISSUES_SQL = """\
select distinct tissue from tissues where dataset = $1 and tissue <> 'all'
union
select distinct test_tissue from evaluations join runs_latest using (run_id)
where dataset = $1 and test_tissue <> 'all' and test_task = task
order by 1"""


@dataclass(frozen=True)
class Data:
    """The dataset of a folder's runs: the one with the most finished."""

    out: str
    name: str
    kind: str
    tasks: tuple[Task, ...]
    """Every task that it is known to give."""
    ran: tuple[str, ...]
    """Tasks with a run."""
    methods: tuple[str, ...]
    trained: tuple[str, ...]
    """Methods with something to train."""
    tissues: tuple[str, ...]
    train_tissues: tuple[str, ...]
    seed: int
    """The greatest."""
    scale: float
    """The least share of its card's budget that a method was trained for."""
    done: int

    def launch(
        self,
        methods: tuple[str, ...] = (),
        tasks: tuple[str, ...] = (),
        tissues: tuple[str, ...] = (),
        seed: int | None = None,
    ) -> str:
        """Return the command that runs these on this dataset, with about the budget of those that are here."""
        chosen = methods or self.methods
        return command(
            self.out,
            "segbench grid launch",
            ("--dataset", self.name),
            *(("--method", name) for name in chosen),
            *(("--task", name) for name in tasks),
            *(("--tissue", name) for name in tissues),
            *([] if seed is None else [("--seed", str(seed))]),
            *([] if self.scale > _WHOLE else [("--budget-scale", f"{self.scale:.2g}")]),
        )


def command(out: str, words: str, *options: tuple[str, str]) -> str:
    """Return a command line with the folder it works on, quoted for a shell.

    Examples
    --------
    >>> command("my results", "segbench grid launch", ("--tissue", "Lung"))
    "segbench grid launch --tissue Lung --out 'my results'"
    """
    every = [*options, *([] if out == DEFAULT_FOLDER else [("--out", out)])]
    return " ".join([words, *(f"{name} {shlex.quote(value)}" for name, value in every)])


def data_of(source: Source) -> Data | None:
    """Return the dataset that a folder is about; None where it has no run."""
    rows = source.query(_DATASETS_SQL)
    if not rows.height:
        return None
    row: dict[str, Any] = rows.row(0, named=True)
    return Data(
        out=str(source.out),
        name=row["dataset"],
        kind=row["kind"],
        tasks=_tasks(row["dataset"], row["kind"], source.query(_TASKS_SQL, [row["dataset"]]).rows()),
        ran=tuple(row["tasks"]),
        methods=tuple(row["methods"]),
        trained=tuple(row["trained"] or ()),
        tissues=tuple(source.query(_TISSUES_SQL, [row["dataset"]]).to_series().to_list()),
        train_tissues=tuple(row["train_tissues"]),
        seed=row["seed"],
        scale=_scale(source.query(_BUDGETS_SQL, [row["dataset"]]).rows()),
        done=row["done"],
    )


def _tasks(dataset: str, kind: str, ran: list[tuple[str, list[str], str]]) -> tuple[Task, ...]:
    """Return the tasks that a dataset gives: those with a run and, in TissueNet's layout, what it gives besides."""
    known = {name: Task(name, dataset, tuple(channels), target) for name, channels, target in ran}
    of_both = kind in ("synthetic", "tissuenet")
    targets = {task.target for task in known.values()}
    if of_both or any(task.channels == TISSUENET_CHANNELS for task in known.values()):
        for task in STUDY_DATASETS["tissuenet"][0]:
            if of_both or task.target in targets:
                name = task.name.replace("tissuenet", dataset, 1)
                known.setdefault(name, Task(name, dataset, task.channels, task.target))
    return tuple(known[name] for name in sorted(known))


def _other_target(task: Task, tasks: tuple[Task, ...]) -> Task | None:
    """Return the task of the same number of channels for TissueNet's other target."""
    return next(
        (
            other
            for other in tasks
            if {task.target, other.target} == set(TISSUENET_TARGETS) and len(other.channels) == len(task.channels)
        ),
        None,
    )


def _scale(rows: list[tuple[str, int | None, int | None]]) -> float:
    cards = all_cards()
    shares = [
        given / published
        for method, *budget in rows
        if method in cards
        for given, published in zip(budget, (cards[method].budget.epochs, cards[method].budget.iterations), strict=True)
        if given and published
    ]
    return min([1.0, *shares])


def filled_by(tell: Callable[[Data], Missing]) -> Callable[[Source], Missing]:
    """Return a section's ``fill``: without a finished run any is what is missing, else what the section says."""

    def fill(source: Source) -> Missing:
        data = data_of(source)
        if data is None:
            return Missing("The folder holds no run.", (command(str(source.out), "segbench grid launch"),))
        if not data.done:
            return Missing(f"No run on {data.name} has finished: launching goes on with them.", (data.launch(),))
        return tell(data)

    return fill


def more_runs(data: Data) -> Missing:
    """Any finished run with scores fills it."""
    return Missing(f"No finished run on {data.name} has a score.", (data.launch(),))


def missing_channels(data: Data) -> Missing:
    """The same target from its own channel and from both."""
    pairs = [
        (one, two)
        for one in data.tasks
        for two in data.tasks
        if one.target == two.target and len(one.channels) == 1 and len(two.channels) == 2
    ]
    if not pairs:
        return Missing(
            f"The images of {data.name} have {_channels(data)}: there are no two tasks of one target, from one channel "
            "and from two, to compare."
        )
    one, two = next((pair for pair in pairs if {pair[0].name, pair[1].name} & set(data.ran)), pairs[0])
    methods = _few(data.methods)
    return Missing(
        f"It compares {one.name} with {two.name} of the same method; this folder has runs on {listed(data.ran)}.",
        (data.launch(methods, (one.name, two.name), (ALL_TISSUES,)),),
    )


def missing_crossed(data: Data) -> Missing:
    """Single-channel models applied to the images of the other target."""
    pairs = [
        (task, other) for task in data.tasks if len(task.channels) == 1 and (other := _other_target(task, data.tasks))
    ]
    if not pairs:
        return Missing(
            f"The images of {data.name} have {_channels(data)} and masks of {listed([t.target for t in data.tasks])}: "
            "there is no other target's channel to apply a model to."
        )
    if not data.trained:
        return Missing(
            f"Only methods without training were run on {data.name}, and these have no target of their own.",
            (data.launch(_TRAINED, (pairs[0][0].name, pairs[0][1].name), (ALL_TISSUES,)),),
        )
    one, two = next((pair for pair in pairs if pair[0].name in data.ran), pairs[0])
    return Missing(
        f"It applies models of {one.name} to the images of {two.name}, and back; models of all tissues are needed.",
        (data.launch(_few(data.trained), (one.name, two.name), (ALL_TISSUES,)),),
    )


def missing_transfer(data: Data) -> Missing:
    """Models of two or more training tissues."""
    if len(data.tissues) < 2:
        known = f"one tissue, {data.tissues[0]}," if data.tissues else "no tissue"
        return Missing(
            f"The images of {data.name} name {known} so there is nothing to transfer between; the column 'tissue' of a "
            "folder's index.csv names them."
        )
    methods = data.trained or _TRAINED
    task = data.ran[0]
    return Missing(
        f"Every model here was trained on {listed(_names(data.train_tissues))}: models of single tissues are needed.",
        (data.launch(methods[:1], (task,), (ALL_TISSUES, *data.tissues)),),
    )


def missing_regression(data: Data) -> Missing:
    """Scores on enough tissues, whose cells are measured."""
    if len(data.tissues) < 5:
        return Missing(
            f"A fit of three predictors needs five or more test tissues with cells in training and test, and "
            f"{data.name} has {len(data.tissues)}: the column 'tissue' of a folder's index.csv names them."
        )
    return Missing(
        f"It fits the scores of models of all tissues over the {len(data.tissues)} tissues of {data.name}.",
        (data.launch(tissues=(ALL_TISSUES,)),),
    )


def missing_tissues(data: Data) -> Missing:
    """Tissues whose cells were measured."""
    return Missing(
        f"No run on {data.name} recorded tissues of its images; the column 'tissue' of a folder's index.csv names "
        "them, and the next run measures their cells.",
        (data.launch(seed=data.seed + 1),) if data.tissues else (),
    )


def missing_recommendation(data: Data) -> Missing:
    """Scores of the layouts that recommendations are made for."""
    return Missing(
        f"It recommends for nuclei or whole cells in nuclear and membrane channels, or in phase contrast; {data.name} "
        f"has {_channels(data)}. The ranking says which method does best here.",
    )


def missing_examples(data: Data) -> Missing:
    """Pictures that runs leave in their folders."""
    return Missing(
        "The folders of the finished runs are not beside the store, or hold no example windows: copy 'runs' here, or "
        "run with another seed.",
        (data.launch(seed=data.seed + 1),),
    )


def always(reason: str, words: str) -> Callable[[Source], Missing]:
    """Return the ``fill`` of a section that needs a command of its own rather than a launch."""
    return lambda source: Missing(reason, (command(str(source.out), words),))


def _few(methods: tuple[str, ...]) -> tuple[str, ...]:
    return methods[:_MOST_METHODS]


def _names(tissues: tuple[str, ...]) -> list[str]:
    return ["all tissues together" if tissue == ALL_TISSUES else tissue for tissue in tissues]


def _channels(data: Data) -> str:
    names = list(dict.fromkeys(name for task in data.tasks for name in task.channels))
    return f"the channel {names[0]}" if len(names) == 1 else f"the channels {listed(names)}"
