"""Makes the job that runs another one again by hand, in a folder of its own: nothing of the first one is touched."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from segbench.engine.grid.cards import method_of
from segbench.errors import SegbenchError
from segbench.methods.folder import JobFolder
from segbench.methods.job import Arrays, Job


def job_by_hand(path: Path, to: Path | None = None, here: Path | None = None) -> Path:
    """Write the job of a file once more, for a folder in which nothing lies yet; return the new file.

    What it reads stays where it is: paths that are relative start in the file's folder. It keeps no checkpoints and is
    watched by nobody; a job without training data predicts with the first one's model.

    Parameters
    ----------
    path
        The job's file.
    to
        The new folder. None for the job's own where nothing is in it yet, else for ``job-RUN``, ``job-RUN-2``, ...
    here
        The folder in which that is made; None for the working directory.

    Raises
    ------
    SegbenchError
        It is no job file, names no method that is here, or something lies in ``to``.
    """
    try:
        job = Job.read(path)
    except (OSError, ValueError) as error:
        raise SegbenchError(f"not a job file: {error}") from None
    method_of(job.method)  # a wrong name leaves no folder
    base = path.absolute().parent
    own = base / job.output
    if to is not None and not _is_free(to):
        raise SegbenchError(f"{to} is not empty: a job run by hand writes into a new folder, name another --to")
    folder = to or (own if _is_free(own, but=path) else _new_folder(here or Path.cwd(), job.run_id))
    model = base / job.model if job.model is not None else None
    if model is None and job.train is None and JobFolder(own).model_marker.is_file():
        model = JobFolder(own).model
    files = JobFolder(folder.absolute())
    changed = replace(
        job,
        output=str(files.path),
        train=_absolute(job.train, base),
        val=_absolute(job.val, base),
        predict={name: selected for name, arrays in job.predict.items() if (selected := _absolute(arrays, base))},
        model=None if model is None else str(model),
        checkpoints=None,
        parent_pid=None,
        hidden=(),
    )
    files.path.mkdir(parents=True, exist_ok=True)
    changed.write(files.job)
    return files.job


def _is_free(folder: Path, but: Path | None = None) -> bool:
    if not folder.exists():
        return True
    return folder.is_dir() and all(but is not None and each.absolute() == but.absolute() for each in folder.iterdir())


def _new_folder(here: Path, run_id: str) -> Path:
    names = (f"job-{run_id}" if n == 1 else f"job-{run_id}-{n}" for n in itertools.count(1))
    return next(here / name for name in names if not (here / name).exists())


def _absolute(arrays: Arrays | None, base: Path) -> Arrays | None:
    if arrays is None:
        return None
    labels = None if arrays.labels is None else str(base / arrays.labels)
    return replace(arrays, images=str(base / arrays.images), labels=labels)
