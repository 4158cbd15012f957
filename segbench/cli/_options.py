"""The options that several commands share, each declared once: what is run, what a run asks for, how it is run."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from segbench.engine.grid import ResourceChange
    from segbench.engine.scheduler import GridRequest, LaunchOptions

_P = ParamSpec("_P")
_R = TypeVar("_R")
_RUNS, _BUDGET, _NEEDS, _HOW = "Which runs", "How long they are trained", "What a run asks for", "How they are run"


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which runs, and how long they are trained."""

    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            "-p",
            help="demo (the default), paper (138 runs), full (954), or controls.",
            rich_help_panel=_RUNS,
        ),
    ] = None
    grid: Annotated[Path | None, typer.Option("--grid", "-g", help="A grid file (YAML).", rich_help_panel=_RUNS)] = None
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Every task of this dataset.", rich_help_panel=_RUNS)
    ] = None
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="Only this method; can be repeated.", rich_help_panel=_RUNS),
    ] = None
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="Only this task; can be repeated.", rich_help_panel=_RUNS)
    ] = None
    tissue: Annotated[
        list[str] | None,
        typer.Option(
            "--tissue",
            help="Only this training tissue ('all' for all together); can be repeated.",
            rich_help_panel=_RUNS,
        ),
    ] = None
    seed: Annotated[
        list[int] | None, typer.Option("--seed", help="Only this seed; can be repeated.", rich_help_panel=_RUNS)
    ] = None
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            help="Seeds to run a preset or dataset with: 0:3 (both included) or 0,1,5.",
            rich_help_panel=_RUNS,
        ),
    ] = None
    budget_scale: Annotated[
        float | None,
        typer.Option("--budget-scale", min=1e-6, help="Epochs or iterations times this.", rich_help_panel=_BUDGET),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=0,
            help="Epochs, for methods that count epochs; 0 applies a released model as it is (--start generalist).",
            rich_help_panel=_BUDGET,
        ),
    ] = None
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations", min=1, help="Iterations, for methods that count iterations.", rich_help_panel=_BUDGET
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Images a step, over all devices.", rich_help_panel=_BUDGET),
    ] = None
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            help="Where training starts: random, published-backbone, generalist (the method's released model of cells) "
            "or a file of weights; see `segbench methods weights list`.",
            rich_help_panel=_BUDGET,
        ),
    ] = None

    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="cells (the default): what finds cells best, every choice made on validation data; study: the paper "
            "and its scripts to the letter (the preset paper's own); cards: the methods' cards as they are.",
            rich_help_panel=_BUDGET,
        ),
    ] = None

    def request(self, resources: ResourceChange) -> GridRequest:
        """Return what is asked for, each run with these resources."""
        from segbench.engine.scheduler import GridRequest

        given = {"scale": self.budget_scale, "epochs": self.epochs, "iterations": self.iterations}
        return GridRequest.of(
            preset=self.preset,
            grid=self.grid,
            dataset=self.dataset,
            methods=self.method,
            tasks=self.task,
            tissues=self.tissue,
            seeds=[*(self.seed or []), *_seeds_of(self.seeds)],
            budget={**given, "batch_size": self.batch_size},
            resources=resources.model_dump(),
            start=self.start,
            recipe=self.recipe,
        )


def _seeds_of(text: str | None) -> list[int]:
    """Return the seeds that ``0:3`` or ``0,1,5`` stand for; anything else raises SegbenchError.

    Examples
    --------
    >>> _seeds_of("0:3"), _seeds_of("4,1"), _seeds_of(None)
    ([0, 1, 2, 3], [4, 1], [])
    """
    from segbench.errors import SegbenchError

    if text is None:
        return []
    try:
        first, colon, last = text.partition(":")
        seeds = list(range(int(first), int(last) + 1)) if colon else [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise SegbenchError(f"--seeds {text!r} is not understood; write 0:3 or 0,1,5")
    return seeds


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a run asks of its node."""

    num_gpus: Annotated[
        float | None,
        typer.Option("--num-gpus", min=0, help="GPUs a run; below 1, a share of one.", rich_help_panel=_NEEDS),
    ] = None
    num_cpus: Annotated[
        float | None, typer.Option("--num-cpus", min=0.1, help="CPU cores a run.", rich_help_panel=_NEEDS)
    ] = None
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", min=0.1, help="Memory a run, in GB.", rich_help_panel=_NEEDS)
    ] = None
    gpu_memory_gb: Annotated[
        float | None,
        typer.Option(
            "--gpu-memory-gb", min=0.1, help="Memory that each GPU of a run must have, in GB.", rich_help_panel=_NEEDS
        ),
    ] = None

    def asks_for_gpus(self) -> bool:
        """Return whether one of these is about GPUs, and not that there are none."""
        return bool(self.num_gpus) or self.gpu_memory_gb is not None

    def change(self) -> ResourceChange:
        """Return how this differs from what the methods ask for; raises SegbenchError where a figure is wrong."""
        from pydantic import ValidationError

        from segbench.engine.grid import ResourceChange
        from segbench.errors import SegbenchError
        from segbench.wrong_values import first_wrong

        try:
            return ResourceChange(**dataclasses.asdict(self))
        except ValidationError as error:
            wrong = first_wrong(error)
            raise SegbenchError(f"--{wrong.keys[0].replace('_', '-')} {wrong.problem}") from None


@dataclasses.dataclass(frozen=True)
class How:
    """How runs are run; what is None is as it would be without the option."""

    address: Annotated[
        str | None,
        typer.Option("--address", help="A running Ray cluster ('auto' for this machine's).", rich_help_panel=_HOW),
    ] = None
    inline: Annotated[
        bool | None,
        typer.Option(
            "--inline/--ray",
            help="One run after the other in this process, for a debugger, or on Ray (the default).",
            rich_help_panel=_HOW,
        ),
    ] = None
    cpu: Annotated[
        bool | None,
        typer.Option("--cpu/--gpu", help="Run without GPUs, or with those that are there.", rich_help_panel=_HOW),
    ] = None
    local_cpus: Annotated[
        int | None,
        typer.Option(
            "--local-cpus", min=1, help="Cores of this machine for all runs; default all.", rich_help_panel=_HOW
        ),
    ] = None
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=1, help="Stop a run after so many seconds; default never.", rich_help_panel=_HOW),
    ] = None
    fit: Annotated[
        bool | None,
        typer.Option(
            "--fit/--no-fit",
            help="Raise a run's share of a GPU, or memory, to what its method was measured to hold, or only tell.",
            rich_help_panel=_HOW,
        ),
    ] = None
    accelerator: Annotated[
        str | None,
        typer.Option(
            "--accelerator", help="Kind of GPU that a run must have, as Ray names it (A100).", rich_help_panel=_HOW
        ),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="KEY=VALUE that a run's node must have; can be repeated.", rich_help_panel=_HOW),
    ] = None
    retries: Annotated[
        int | None,
        typer.Option(
            "--retries",
            min=0,
            help="Try a run that failed so often again; default never. Lost ones are tried again anyway.",
            rich_help_panel=_HOW,
        ),
    ] = None
    checkpoint_every: Annotated[
        float | None,
        typer.Option(
            "--checkpoint-every",
            min=1,
            help="Seconds of training between checkpoints, where a method keeps them; default 600.",
            rich_help_panel=_HOW,
        ),
    ] = None
    cluster_file: Annotated[
        Path | None,
        typer.Option(
            "--cluster-file",
            help="Of an autoscaling cluster ('ray up' or RayCluster): runs may wait for its nodes.",
            rich_help_panel=_HOW,
        ),
    ] = None

    def options(self, last: LaunchOptions | None = None, without: Collection[str] = ()) -> LaunchOptions:
        """Return the options of a launch.

        Parameters
        ----------
        last
            What holds where nothing is given; None for the defaults.
        without
            Names of options whose default holds again, as they are typed (``cluster-file``).

        Raises
        ------
        SegbenchError
            A label is no KEY=VALUE, or a name is not an option's.
        """
        from segbench.engine.scheduler import LaunchOptions
        from segbench.errors import unknown_name

        known = {name.replace("_", "-"): field for name, field in OPTION_OF.items()}
        for name in without:
            if name.removeprefix("--") not in known:
                raise unknown_name("option to go without", name, known)
        kept = (last or LaunchOptions()).model_dump(exclude={known[name.removeprefix("--")] for name in without})
        given = {OPTION_OF[name]: value for name, value in vars(self).items() if value is not None}
        if self.inline is not None:
            given["executor"] = "inline" if self.inline else "ray"
        if self.label is not None:
            given["labels"] = _labels(self.label)
        if self.retries is not None:
            given["retries"] = {**kept.get("retries", {}), "failed": self.retries}
        return LaunchOptions.of(**{**kept, **given})


OPTION_OF = {
    "address": "address",
    "inline": "executor",
    "cpu": "cpu",
    "local_cpus": "num_cpus",
    "timeout": "timeout_s",
    "fit": "fit",
    "accelerator": "accelerator",
    "label": "labels",
    "retries": "retries",
    "checkpoint_every": "checkpoint_every_s",
    "cluster_file": "cluster_file",
}
"""The field of ``LaunchOptions`` that each field of ``How`` gives."""


def spread(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a command take every field of the dataclasses among its parameters as an option of its own.

    Typer reads a command's signature: it is given one in which the fields stand in the place of their dataclass, and
    when the command is called, the dataclasses are made of them again.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint) and isinstance(hint, type)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            types = get_type_hints(groups[name], include_extras=True)
            parameters += [
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name]
                )
                for field in dataclasses.fields(groups[name])
            ]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))

    @functools.wraps(command)
    def called(*args: _P.args, **given: _P.kwargs) -> _R:
        values: dict[str, Any] = dict(given)
        made = {
            name: group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        return command(*args, **made, **values)  # type: ignore[arg-type]

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _labels(given: Collection[str]) -> dict[str, str]:
    from segbench.errors import SegbenchError

    labels = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not (key and equals):
            raise SegbenchError(f"--label takes KEY=VALUE, found {one!r}")
        labels[key] = value
    return labels
