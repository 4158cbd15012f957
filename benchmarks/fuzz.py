"""Damages what segbench keeps on disk, hundreds of times, and looks that nothing is lost and all is told in one line.

Run: python benchmarks/fuzz.py KIND... [--n 300] [--seed 0]

Kinds are store, records, checkpoints, progress, npz, prepared, packages, grids and predictions. Each round begins with
a sound folder, damages one file of it (a bit, a page of zeros or of noise, a cut, no content, a value for another) and
lets segbench at it. Prints how the rounds ended; ends with 1 where an error was no SegbenchError in one line, a round
took longer than a minute, a record was changed or lost, or anything was written outside the round's folder.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from damage import Failures, damaged, other_value, outcome
from fuzz_files import FILE_KINDS

from segbench.engine.results.attempts import RECORD_NAME
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.results.store.check import check_store, repair_store
from segbench.engine.results.store.merge import export_parquet, merge_results
from segbench.engine.results.store.opening import opened
from segbench.engine.results.store.recovery import take_in

RUNS = 6


def main() -> int:
    """Damage one kind of file as often as asked; return 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=sorted(KINDS))
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    faulthandler.enable()
    logging.disable()
    return max([fuzz(what, asked.n, random.Random(asked.seed)) for what in dict.fromkeys(asked.what)])


def fuzz(what: str, rounds: int, rng: random.Random) -> int:
    """Damage one kind of file so often, and print what came of it; return 1 where anything went wrong."""
    ended, failures = Counter[str](), Failures()
    with tempfile.TemporaryDirectory(prefix="segbench-fuzz-") as scratch:
        here = Path(scratch) / "here"
        here.mkdir()
        os.chdir(here)
        os.environ["SEGBENCH_CACHE"] = str(Path(scratch) / "cache")
        for number, told in zip(range(rounds), KINDS[what](Path(scratch), rng, failures), strict=False):
            ended[told] += 1
            if any(here.iterdir()) or not {path.name for path in Path(scratch).iterdir()} <= _OWN:
                failures.append(f"round {number}: something was written outside its folder")
            if sys.stderr.isatty() and number % 20 == 0:
                print(f"{number} of {rounds}", end="\r", file=sys.stderr)
        os.chdir("/")
    for told, n in sorted(ended.items()):
        print(f"{n:5d} {told}")
    for failure in failures[:20]:
        print(f"WRONG: {failure}", file=sys.stderr)
    print(f"{what}: {rounds} damages, {len(failures)} went wrong", flush=True)
    return int(bool(failures))


def sound_results(folder: Path, log: bool) -> ResultsFolder:
    """Make a results folder of a few runs; with ``log``, as a writer leaves it that is killed."""
    from bench_ingest import make_record

    out = ResultsFolder(folder)
    for n in range(RUNS):
        record = make_record(n, 2)
        attempt = out.attempt(record.attempt.run_id, 1).make()
        record.write(attempt.record)
    take_in(out, StoreWriter(out))
    if log:
        with opened(out.store, read_only=False, patience_s=0) as connection:
            connection.execute("pragma disable_checkpoint_on_shutdown")
            connection.execute("update phases set seconds = seconds + 1")
            connection.execute("create table own as select range from range(5000)")
    return out


def store(scratch: Path, rng: random.Random, failures: Failures) -> Iterator[str]:
    """Damage the store's file or its log, ask for everything that reads it, and repair it."""
    sound = [sound_results(scratch / name, log) for name, log in (("plain", False), ("log", True))]
    records = [contents(out) for out in sound]
    while True:
        which = rng.randrange(2)
        out = ResultsFolder(scratch / "round")
        shutil.rmtree(out.path, ignore_errors=True)
        shutil.copytree(sound[which].path, out.path)
        file = out.store if which == 0 or rng.random() < 0.3 else out.store.with_name(f"{out.store.name}.wal")
        kind, content = damaged(file.read_bytes(), rng)
        file.write_bytes(content)
        what = f"{file.name}, {kind}"
        ways: dict[str, Callable[[], Any]] = {
            "sql": lambda out=out: query(out, "select * from leaderboard"),
            "check": lambda out=out: check_store(out),
            "export": lambda out=out: export_parquet(out, scratch / "tables"),
            "launch": lambda out=out: take_in(out, StoreWriter(out, patience_s=0)),
        }
        told = {outcome(way, f"{name} of {what}", failures) for name, way in ways.items()}
        mended = outcome(lambda out=out: repair_store(out), f"repair of {what}", failures)
        if mended != "well":
            failures.append(f"repair of {what}: {mended}")
        elif query(out, "select count(*) from attempts").item() != RUNS or check_store(out).faults:
            failures.append(f"repair of {what}: a run is missing")
        if contents(out) != records[which]:
            failures.append(f"{what}: a record was changed")
        yield f"{file.suffix.removeprefix('.')}: {'told as damaged' if 'refused' in told else 'no harm'}, repaired"


def records(scratch: Path, rng: random.Random, failures: Failures) -> Iterator[str]:
    """Damage one record, as bytes or one value of it, and take, check, merge and repair; the others stay."""
    sound = sound_results(scratch / "sound", log=False)
    sound.store.unlink()
    StoreWriter(sound)  # an empty one, to begin each round with
    while True:
        out, to = ResultsFolder(scratch / "round"), ResultsFolder(scratch / "merged")
        for old in (out, to):
            shutil.rmtree(old.path, ignore_errors=True)
        shutil.copytree(sound.path, out.path)
        victim = rng.choice(list(out.recorded())).record
        before = contents(out)
        if rng.random() < 0.4:
            kind, content = damaged(victim.read_bytes(), rng)
        else:
            kind, content = other_value(victim.read_bytes(), rng)
        victim.write_bytes(content)
        what = f"record, {kind}"
        outcome(lambda out=out: take_in(out, StoreWriter(out)), f"launch of {what}", failures)
        rows = query(out, "select count(*) from attempts").item()
        if rows < RUNS - 1:
            failures.append(f"{what}: {RUNS - rows} runs are missing")
        if rng.random() < 0.25:
            victim.write_bytes(content)
            outcome(lambda out=out, to=to: merge_results([out], to), f"merge of {what}", failures)
            outcome(lambda out=out: check_store(out), f"check of {what}", failures)
            outcome(lambda out=out: repair_store(out), f"repair of {what}", failures)
            if any(query(one, "select count(*) from attempts").item() < RUNS - 1 for one in (out, to)):
                failures.append(f"merge or repair of {what}: runs are missing")
        after = contents(out)
        if any(after.get(name) != text for name, text in before.items() if out.path / name != victim):
            failures.append(f"{what}: another record was changed")
        yield "record taken in" if rows == RUNS else "record set aside or left out"


def contents(out: ResultsFolder) -> dict[str, bytes]:
    """Return every record of a results folder, set aside ones as well, by where it lies."""
    found = sorted((out.path / "runs").glob(f"*/*/{RECORD_NAME}*"))
    return {str(path.relative_to(out.path)): path.read_bytes() for path in found}


KINDS = {"store": store, "records": records, **FILE_KINDS}
_OWN = {"here", "cache", "sound", "round", "merged", "plain", "log", "tables"}


if __name__ == "__main__":
    sys.exit(main())
