"""A job: all that one method's subprocess needs to know, as one JSON file."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.methods.card import Budget
from segbench.small_files import write_whole

JOB_SCHEMA = 1


@dataclass(frozen=True)
class Task:
    """What is segmented from what: a dataset, its input channels and the target labels."""

    name: str
    """``DATASET-TARGET-Nch``, or ``DATASET-wholecell`` for the LIVECell layout."""
    dataset: str
    """The dataset's registered name."""
    channels: tuple[str, ...]
    """Input channels, by name, in the order in which methods see them."""
    target: str
    """Which label maps are segmented."""


@dataclass(frozen=True)
class Arrays:
    """A selection of windows of a prepared split, by path; nothing is copied into the job."""

    images: str
    """A .npy of shape (N, C, H, W), float32, values in 0..1."""
    channels: tuple[int, ...]
    """Which of the C channels, in the order in which the method sees them."""
    rows: tuple[int, ...] | None = None
    """Which of the N windows; None for all."""
    labels: str | None = None
    """A .npy of shape (N, H, W), int32, 0 for background; None where there is no truth."""
    scale: float = 1.0
    """By which they are resampled as they are read."""


@dataclass(frozen=True)
class Devices:
    """What the subprocess may use."""

    num_gpus: float = 0.0
    """GPUs as Ray granted them (CUDA_VISIBLE_DEVICES is Ray's own); below 1 it is the fraction of one GPU's memory."""
    num_cpus: int = 1
    """Threads for the libraries, over all processes."""
    processes: int = 1
    """Processes that train together on this node, one a device; above 1 each is started by torchrun."""


@dataclass(frozen=True)
class Asked:
    """What a process is asked to predict while it runs, and how it answers: a JSON line each.

    Examples
    --------
    >>> Asked.of(Asked("7", "windows.npy").line()), Asked.answer("7", error="it broke")
    (Asked(name='7', images='windows.npy'), '{"answered": "7", "error": "it broke"}')
    """

    name: str
    """The predictions become a folder of that name."""
    images: str
    """A .npy of windows, as ``Arrays`` has it, with the channels that the method sees."""

    def line(self) -> str:
        """Return the question."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of(cls, line: str) -> Asked:
        """Read a question; raises ValueError or TypeError where it is none."""
        return cls(**json.loads(line))

    @staticmethod
    def answer(name: str, error: str | None = None) -> str:
        """Return the answer once the predictions lie there, or why they do not."""
        return json.dumps({"answered": name, "error": error})


@dataclass(frozen=True)
class Job:
    """One run for one method's subprocess. Written by the engine, read by ``python -m segbench.methods``.

    Examples
    --------
    >>> from segbench import Budget, Job
    >>> from segbench.methods import Arrays, Task
    >>> job = Job(
    ...     run_id="0123456789ab",
    ...     method="segbench.methods.watershed:Watershed",
    ...     task=Task("cells-nuclear-1ch", "cells", ("nuclear",), "nuclear"),
    ...     budget=Budget(batch_size=1),
    ...     seed=0,
    ...     output="out",
    ...     predict={"test": Arrays("images.npy", channels=(0,))},
    ... )
    >>> job.command(Path("job.json"), python="python")
    ['python', '-m', 'segbench.methods', 'job.json']
    """

    run_id: str
    method: str
    """``module:Class`` of the method."""
    task: Task
    budget: Budget
    seed: int
    output: str
    """Folder for what the process writes: see ``JobFolder``."""
    train: Arrays | None = None
    """None for methods that are not trained."""
    val: Arrays | None = None
    predict: Mapping[str, Arrays] = field(default_factory=dict)
    """What to predict after training, by name; each becomes a folder of that name."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The card's settings with the run's overrides: complete."""
    devices: Devices = field(default_factory=Devices)
    checkpoints: str | None = None
    """Folder of the run, not of the attempt, where training keeps what it needs to go on; None to keep nothing."""
    checkpoint_every_s: float = 600.0
    """Seconds of training between two checkpoints."""
    parent_pid: int | None = None
    """The engine's process: the subprocess ends itself when that one is gone. None when run by hand."""
    model: str | None = None
    """Folder of a finished model: it is not trained then but predicts."""
    most_at_once: int | None = None
    """Most windows that may go through the network together in prediction; None for as many as the method wants."""
    asked: bool = False
    """Once the method is ready, further predictions are asked for on standard input, as JSON lines: see ``Asked``."""
    formats: str | None = None
    """An empty folder for the weights in other programs' formats, written after the predictions; None to write none."""
    hidden: tuple[str, ...] = ()
    """Folders that the process hides from itself before it imports the method, where the system lets it."""
    schema: int = JOB_SCHEMA

    def rank(self) -> int:
        """Return which of the job's processes this one is: 0 for the one that tells, saves and predicts."""
        return int(os.environ.get("LOCAL_RANK", "0")) if self.devices.processes > 1 else 0

    def command(self, path: Path, python: str | os.PathLike[str] = sys.executable) -> list[str]:
        """Return the command that runs this job once it is written to ``path``."""
        module = ["-m", "segbench.methods", str(path)]
        if self.devices.processes == 1:
            return [str(python), *module]
        # a free port of this node alone
        launcher = ["--standalone", "--nnodes=1", f"--nproc-per-node={self.devices.processes}", "--max-restarts=0"]
        return [str(python), "-m", "torch.distributed.run", *launcher, *module]

    def write(self, path: Path) -> None:
        """Write the job as JSON, whole or not at all."""
        write_whole(path, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read a job; raises ValueError that names the field when the file does not fit the contract."""
        try:
            raw = json.loads(Path(path).read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        if not isinstance(raw, dict):
            raise ValueError(f"{path}: a job is a JSON object, found {type(raw).__name__}")
        if raw.get("schema") != JOB_SCHEMA:
            raise ValueError(f"{path}: field 'schema' is {raw.get('schema')!r}, this segbench reads {JOB_SCHEMA}")

        def arrays(value: dict[str, Any] | None) -> Arrays | None:
            if value is None:
                return None
            rows = value.get("rows")
            return Arrays(
                images=value["images"],
                channels=tuple(value["channels"]),
                rows=None if rows is None else tuple(rows),
                labels=value.get("labels"),
                scale=float(value.get("scale", 1.0)),
            )

        try:
            task = raw["task"]
            return cls(
                run_id=raw["run_id"],
                method=raw["method"],
                task=Task(task["name"], task["dataset"], tuple(task["channels"]), task["target"]),
                budget=Budget(**raw["budget"]),
                seed=int(raw["seed"]),
                output=raw["output"],
                train=arrays(raw.get("train")),
                model=raw.get("model"),
                most_at_once=raw.get("most_at_once"),
                asked=bool(raw.get("asked", False)),
                formats=raw.get("formats"),
                val=arrays(raw.get("val")),
                predict={name: selected for name, value in raw["predict"].items() if (selected := arrays(value))},
                settings=dict(raw["settings"]),
                devices=Devices(**raw["devices"]),
                checkpoints=raw.get("checkpoints"),
                checkpoint_every_s=float(raw.get("checkpoint_every_s", 600.0)),
                parent_pid=raw.get("parent_pid"),
                hidden=tuple(map(str, raw.get("hidden", ()))),
            )
        except KeyError as error:
            raise ValueError(f"{path}: field {error} is missing") from None
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from None
