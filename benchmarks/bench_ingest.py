"""Times how records on disk get into the store: reading and inserting, beside one INSERT a row through executemany.

Each record is a finished attempt with 12 evaluations, 50 points of the loss curve, 8 phases and, with --windows N, the
counts of N test windows. The peer inserts the same rows into the same tables in one transaction, and is timed on fewer
records.

On a machine that does other things as well, the CPU seconds say more than the wall's.

Run: python benchmarks/bench_ingest.py [--records 100000] [--windows 0] [--peer 200] [--limit-s 60]. Exits with 1 where
reading and inserting takes longer than the limit.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import AttemptRow, EvaluationRow, HistoryRow, ImageTable, Record
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter
from segbench.engine.results.store.frames import frames
from segbench.engine.results.store.recovery import take_in

TASK = "tissuenet-nuclear-1ch"
TISSUES = ("all", *(f"tissue-{n:02d}" for n in range(11)))
PHASES = ("wait", "data", "environment", "import", "load", "train", "predict", "evaluate")


def make_record(n: int, windows: int) -> Record:
    """Return the record of a finished attempt; no two are alike."""
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n)
    run_id = f"{n * 2654435761 % 2**48:012x}"
    scores = {name: (n % 997 + i) / 1009 for i, name in enumerate(("map", "ap50", "ap75", "ar", "ar50", "ar75"))}
    attempt = AttemptRow(
        run_id=run_id,
        attempt=1,
        status=Status.DONE,
        method="stardist",
        method_title="StarDist",
        method_revision=1,
        family="stardist",
        environment="tensorflow",
        category="cell-specific",
        trained=True,
        attention=False,
        task=TASK,
        dataset="tissuenet",
        dataset_kind="tissuenet",
        dataset_fingerprint="f" * 24,
        channels=["nuclear"],
        n_channels=1,
        target="nuclear",
        train_tissue="all",
        seed=n,
        settings={"n_rays": 32, "grid": [2, 2], "learning_rate": 0.0003, "unet_n_depth": 3},
        batch_size=4,
        epochs=50,
        n_train_images=2580,
        n_train_cells=1_200_000,
        n_val_images=313,
        n_parameters=1_400_000,
        versions={"python": "3.11", "tensorflow": "2.15", "stardist": "0.9.1", "numpy": "1.26"},
        lock_hash="a" * 16,
        segbench_version="0.1.0",
        git_commit="b" * 40,
        host=f"node-{n % 56}",
        cpu_name="EPYC",
        num_cpus=4,
        gpu_names=["A100"],
        num_gpus=1,
        peak_memory_bytes=9_000_000_000,
        started_at=start,
        ended_at=start + timedelta(hours=2),
        folder=AttemptFolder(Path(), run_id, 1).relative,
    )
    counts: dict[str, list[int] | list[float] | list[str]] = {
        "image": list(range(windows)),
        "name": [f"image-{w // 9}" for w in range(windows)],
        "tissue": ["lung"] * windows,
        **{name: [n % 40 + 3] * windows for name in ("n_truth", "n_predictions", "pq_matches", "splits", "merges")},
        **{f"tp_{t}": [n % 40] * windows for t in range(50, 100, 5)},
        **{f"iou_{t}": [n % 40 * 0.83] * windows for t in range(50, 100, 5)},
        **{name: [n % 40 * 0.83] * windows for name in ("pq_iou", "seg")},
        **{name: [n % 40 * 100] * windows for name in ("aji_intersection", "aji_union")},
    }
    return Record(
        attempt=attempt,
        phases=dict.fromkeys(PHASES, n % 61 + 0.25),
        evaluations=[
            EvaluationRow(test_task=TASK, test_tissue=t, n_images=1249, n_truth=90_000, n_predictions=91_000, **scores)
            for t in TISSUES
        ],
        images=[ImageTable(test_task=TASK, columns=counts)] if windows else [],
        history=[HistoryRow(epoch=e, loss=1 / (e + n % 7), val_loss=1.1 / (e + n % 7)) for e in range(1, 51)],
    )


def write_records(out: Path, count: int, windows: int) -> int:
    """Write the records as a launch would, but for the sync to the disk; return their bytes."""
    total = 0
    for n in range(count):
        record = make_record(n, windows)
        path = ResultsFolder(out).attempt_at(record.attempt.folder).make().record
        total += path.write_text(record.model_dump_json(indent=1))
    return total


def time_peer(out: Path, count: int) -> tuple[float, int]:
    """Insert records with executemany, a row an INSERT; return seconds, reading included, and rows."""
    path = out / "peer"
    StoreWriter(ResultsFolder(path))
    start, rows = time.perf_counter(), 0
    with duckdb.connect(ResultsFolder(path).store) as connection:
        connection.begin()
        for attempt in itertools.islice(ResultsFolder(out).recorded(), count):
            for table, frame in frames(connection, [attempt.read_record()]).items():
                if not frame.is_empty():
                    marks = ", ".join("?" * frame.width)
                    connection.executemany(
                        f"insert into {table} ({', '.join(frame.columns)}) values ({marks})", frame.rows()
                    )
                    rows += frame.height
        connection.commit()
    return time.perf_counter() - start, rows


def main() -> None:
    """Write records, take them in, read only, and let the peer try."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--windows", type=int, default=0)
    parser.add_argument("--peer", type=int, default=200)
    parser.add_argument("--limit-s", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        size = write_records(out, options.records, options.windows)
        print(f"{options.records:,} records, {size / options.records / 1e3:.1f} kB each")

        start, start_cpu = time.perf_counter(), time.process_time()
        writer = StoreWriter(ResultsFolder(out))
        assert take_in(ResultsFolder(out), writer) == options.records
        taken, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        with duckdb.connect(ResultsFolder(out).store, read_only=True) as connection:
            rows = sum(
                connection.execute(f"select count(*) from {table}").fetchall()[0][0]
                for table in ("attempts", "phases", "evaluations", "images", "history")
            )
        print(
            f"read and inserted      {taken:8.2f} s  {rows / taken:12,.0f} rows/s  ({rows:,} rows; {cpu:.2f} s of CPU)"
        )

        start = time.perf_counter()
        for attempt in ResultsFolder(out).recorded():
            attempt.read_record()
        reading = time.perf_counter() - start
        print(f"of which reading       {reading:8.2f} s")
        start = time.perf_counter()
        assert take_in(ResultsFolder(out), writer) == 0
        print(f"nothing new to take in {time.perf_counter() - start:8.2f} s")
        print(f"store {ResultsFolder(out).store.stat().st_size / 1e6:.0f} MB; memory at most {_peak_mb():.0f} MB")

        seconds, peer_rows = time_peer(out, min(options.peer, options.records))
        print(f"executemany            {seconds:8.2f} s  {peer_rows / seconds:12,.0f} rows/s  ({peer_rows:,} rows)")
        print(f"times faster a row     {rows / taken / (peer_rows / seconds):8.1f}")
        print(f"limit {options.limit_s:g} s")
        sys.exit(taken > options.limit_s)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
