"""What travels between a results folder on a URL (``s3://bucket/path``) and the local mirror that DuckDB works on.

Each attempt's folder is uploaded by the machine that ran it, its record last, so that a record there means that all of
the attempt is there. The store is uploaded as a snapshot, now and then. Whatever fsspec speaks will do; a file system
that does not put a file in place in one step gets it under another name and renamed.
"""

from __future__ import annotations

import os

from segbench.engine.results.attempts import RUNS, AttemptFolder, attempt_number
from segbench.engine.results.folder import STORE_NAME, ResultsFolder
from segbench.engine.results.remote_files import filesystem, get_whole, names, put_whole, told, version
from segbench.engine.results.store.reader import query
from segbench.engine.results.store.writer import StoreWriter, remove_store
from segbench.errors import SegbenchError
from segbench.small_files import read_json


def open_results(out: str | os.PathLike[str] | ResultsFolder) -> ResultsFolder:
    """Return the results folder of a path or URL; of a URL its mirror with the newest snapshot of its store.

    While a launch of this machine writes into the mirror, that is newer than any snapshot, and nothing is fetched.

    Raises
    ------
    SegbenchError
        The URL cannot be reached, or fsspec or a package that it needs is missing.
    """
    folder = ResultsFolder.open(out)
    if folder.url is not None and not folder.launch.is_held_here():
        pull_store(folder)
        pull_launch_files(folder)
    return folder


def push_attempt(attempt: AttemptFolder) -> None:
    """Upload an attempt's folder, its record last.

    Raises
    ------
    OSError
        The upload failed; no record of this attempt is there then.
    """
    fs, root = filesystem(_url(attempt))
    target, record = f"{root}/{attempt.relative}", f"{root}/{attempt.relative}/{attempt.record.name}"
    if fs.exists(target) and not fs.exists(record):
        fs.rm(target, recursive=True)  # left by an upload that was cut off
    kept = (attempt.record, attempt.unpushed)
    files = [path for path in sorted(attempt.path.rglob("*")) if path.is_file() and path not in kept]
    there = [f"{target}/{path.relative_to(attempt.path).as_posix()}" for path in files]
    for parent in sorted({name.rpartition("/")[0] for name in [*there, record]}):
        fs.makedirs(parent, exist_ok=True)
    if files:
        fs.put([str(path) for path in files], there)
    put_whole(fs, attempt.record, record)


def push_or_mark(attempt: AttemptFolder) -> str | None:
    """Upload an attempt's folder; where that fails return why, in one line: the next launch's begin or end tries again.

    Of a local results folder nothing is done.
    """
    if attempt.url is None:
        return None
    # before the upload: being killed in it leaves the mark
    attempt.unpushed.touch()
    try:
        with told(attempt.url):
            push_attempt(attempt)
    except SegbenchError as error:
        return f"could not upload {attempt.run_id}/{attempt.name}: {error}"
    attempt.unpushed.unlink(missing_ok=True)
    return None


def push_left(out: ResultsFolder) -> int:
    """Upload the attempts of a mirror whose upload failed or was cut off; return how many."""
    left = [attempt for attempt in out.unpushed() if attempt.has_record()]
    for attempt in left:
        push_attempt(attempt)
        attempt.unpushed.unlink()
    return len(left)


def pull_records(out: ResultsFolder, every: bool = False) -> int:
    """Fetch the records that the mirror lacks, and return how many.

    Runs that its store has finished are not looked at, unless ``every`` says so: a listing each takes its time.
    Artifacts stay where they are: ``pull_attempt`` fetches those of one attempt.
    """
    fs, root = filesystem(_url(out))
    finished: set[str] = set()
    if out.has_store() and not every:
        finished = set(query(out, "select run_id from attempts where status = 'done'")["run_id"])
    there: list[AttemptFolder] = []
    for run in names(fs, f"{root}/{RUNS}"):
        for number in map(attempt_number, [] if run in finished else names(fs, f"{root}/{RUNS}/{run}")):
            attempt = out.attempt(run, number)
            if number and not attempt.has_record() and fs.exists(f"{root}/{attempt.relative}/{attempt.record.name}"):
                there.append(attempt)
    for attempt in there:
        get_whole(fs, f"{root}/{attempt.relative}/{attempt.record.name}", attempt.make().record)
    return len(there)


def pull_attempt(attempt: AttemptFolder, record_only: bool = False) -> bool:
    """Fetch the folder of an attempt into the mirror, its record last; return whether the URL has it."""
    fs, root = filesystem(_url(attempt))
    source, record = f"{root}/{attempt.relative}", f"{root}/{attempt.relative}/{attempt.record.name}"
    if not fs.exists(record):
        return False
    attempt.make()
    for path in [] if record_only else fs.find(source):
        here = attempt.path / str(path)[len(str(fs._strip_protocol(source))) :].lstrip("/")
        if here != attempt.record:
            here.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(path, str(here))
    get_whole(fs, record, attempt.record)
    return True


def fetch_record(attempt: AttemptFolder) -> None:
    """Fetch an attempt's record into a mirror where another machine has run it; does nothing in a local folder."""
    if attempt.url is not None and not attempt.has_record():
        with told(attempt.url):
            pull_attempt(attempt, record_only=True)


def pull_all(out: ResultsFolder, artifacts: bool = False) -> None:
    """Fetch every record that a mirror lacks and, if asked, the artifacts beside it; does nothing in a local folder."""
    if out.url is None:
        return
    with told(out.url):
        pull_records(out, every=True)
        for attempt in out.recorded() if artifacts else ():
            if not attempt.has_job():
                pull_attempt(attempt)


def push_store(writer: StoreWriter) -> None:
    """Upload a snapshot of the store, and beside it what the launch wrote of itself."""
    out = writer.out
    fs, root = filesystem(_url(out))
    fs.makedirs(root, exist_ok=True)
    copy = out.store_beside("snapshot")
    try:
        writer.snapshot(copy)
        put_whole(fs, copy, f"{root}/{STORE_NAME}")
    finally:
        copy.unlink(missing_ok=True)
    push_launch_files(out)
    out.note_snapshot(version(fs, f"{root}/{STORE_NAME}"))


def pull_store(out: ResultsFolder) -> bool:
    """Fetch the newest snapshot of the store into the mirror; return whether there was a newer one."""
    fs, root = filesystem(_url(out))
    with told(_url(out)):
        newest = version(fs, f"{root}/{STORE_NAME}")
        if newest is None or (newest == out.snapshot() and out.has_store()):
            return False
        part = out.store_beside(f"fetched-{os.getpid()}")
        fs.get_file(f"{root}/{STORE_NAME}", str(part))
        remove_store(out.store)
        part.replace(out.store)
    out.note_snapshot(newest)
    return True


def push_launch_files(out: ResultsFolder) -> None:
    """Upload what a launch writes of itself."""
    fs, root = filesystem(_url(out))
    for path in out.launch.told:
        if path.exists():
            put_whole(fs, path, f"{root}/{path.name}")


def pull_launch_files(out: ResultsFolder) -> None:
    """Fetch what the last launch wrote of itself, with the time at which it did."""
    fs, root = filesystem(_url(out))
    with told(_url(out)):
        for path in out.launch.told:
            if fs.exists(f"{root}/{path.name}"):
                get_whole(fs, f"{root}/{path.name}", path)
                at = read_json(path).get("at")
                if at is not None:  # how long ago it was tells whether the launch lives
                    os.utime(path, (at, at))


def _url(folder: ResultsFolder | AttemptFolder) -> str:
    if folder.url is None:
        raise ValueError(f"{folder} is no mirror of a URL")
    return folder.url
