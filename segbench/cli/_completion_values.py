"""The values of completions that depend on the user's data: datasets, tasks, tissues, runs, models, figures."""

from __future__ import annotations

import contextlib
import json
import os

from segbench.cli._completion import cache_folder, code_stamp, kept

Value = tuple[str, str]


def of(kind: str, out: str) -> list[Value]:
    """Return the values of a kind, with what each means; none for a kind that is not known.

    Parameters
    ----------
    kind
        Such as ``runs``.
    out
        The results folder.
    """
    if kind == "runs":
        return _runs(out)
    if kind == "models":
        return [*_runs(out), *((name, "imported") for name in _folders(os.path.join(out, "models")))]
    if kind == "sections":
        return _sections()
    if kind == "figures":
        return _figures(out)
    if kind in ("datasets", "tasks", "tissues"):
        found = kept("completion-data.json", _data_stamp(), _data)[kind]
        return [(value, about) for value, about in found]
    return []


def _runs(out: str) -> list[Value]:
    from pathlib import Path

    from segbench.engine.results.folder import ResultsFolder

    folder, told = ResultsFolder(Path(out)), {}
    try:
        for run in folder.launch.read_grid()["runs"]:
            told[run["run_id"]] = f"{run['method']}, {run['task']}, {run['train_tissue']}"
    except (KeyError, TypeError):  # there was no launch, or what it left is damaged
        pass
    with contextlib.suppress(OSError):
        for name in folder.run_ids():
            told.setdefault(name, "")
    return list(told.items())


def _figures(out: str) -> list[Value]:
    """Return the figures that 'segbench plot' last found in the results folder, else the first of each section."""
    try:
        with open(figures_file(out), encoding="utf-8") as file:
            return [(name, title) for name, title in json.load(file)]
    except (OSError, ValueError, TypeError):
        return _sections()


def _sections() -> list[Value]:
    # the report takes a second to import: once, and not where nobody asks for it
    found = kept("completion-sections.json", code_stamp(), _report_sections)["sections"]
    return [(key, title) for key, title in found]


def _report_sections() -> dict[str, list[Value]]:
    from segbench.analysis.report.sections import SECTIONS

    return {"sections": [(section.key, section.title) for section in SECTIONS]}


def figures_file(out: str) -> str:
    """Return where the names of a results folder's figures are kept for completions."""
    import zlib

    key = zlib.crc32(os.path.abspath(out).encode())
    return os.path.join(cache_folder(), "completion-figures", f"{key:08x}.json")


def keep_figures(out: str, figures: list[Value]) -> None:
    """Keep the names of a results folder's figures, where the cache can be written."""
    file = figures_file(out)
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "w", encoding="utf-8") as opened:
            json.dump(figures, opened)
    except OSError:
        pass


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _data_stamp() -> str:
    told = []
    for name in ("datasets", os.path.join("prepared", "known")):
        folder = os.path.join(cache_folder(), name)
        try:
            with os.scandir(folder) as entries:
                told += sorted(f"{entry.name}:{entry.stat().st_mtime_ns}" for entry in entries)
        except OSError:
            told.append(name)
    return "\n".join(told)


def _data() -> dict[str, list[Value]]:
    from segbench.engine.scheduler.catalogue import known_datasets

    found = known_datasets()
    facts = found.catalogue.datasets
    tasks = {task.name: ", ".join(task.channels) for one in facts.values() for task in one.tasks}
    tissues = {tissue: name for name, one in facts.items() for tissue in one.tissues}
    return {
        "datasets": [(name, spec.kind) for name, spec in found.specs.items()],
        "tasks": list(tasks.items()),
        "tissues": [("all", "every tissue together"), *tissues.items()],
    }
