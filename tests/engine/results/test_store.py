"""The store: what goes in comes out, once, whoever else is at the file."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from segbench.engine.results.attempts import RECORD_NAME
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import ImageTable, Record
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.results.store.check import check_store, repair_store
from segbench.engine.results.store.migrate import Migration, migrate, migrations
from segbench.engine.results.store.opening import StoreBusyError
from segbench.engine.results.store.recovery import take_in
from segbench.errors import SegbenchError

MakeRecord = Callable[..., Record]


def test_a_record_comes_out_as_it_went_in(tmp_path: Path, make_record: MakeRecord) -> None:
    record = make_record(settings={"rays": [1, 2], "deep": {"a": None, "b": "x'\"<script>"}}, error=None)
    folder = tmp_path / "attempt"
    folder.mkdir()
    assert Record.read(record.write(folder / RECORD_NAME)) == record
    assert StoreWriter(ResultsFolder(tmp_path)).add([record]) == 1
    row = query(ResultsFolder(tmp_path), "select * from attempts").to_dicts()[0]
    assert row["started_at"] == record.attempt.started_at
    assert row["channels"] == ["nuclear"]
    assert query(ResultsFolder(tmp_path), "select settings->'rays', settings->'deep'->>'b' from attempts").rows() == [
        ("[1,2]", "x'\"<script>")
    ]
    assert query(ResultsFolder(tmp_path), "select point, epoch, loss, val_loss from history").rows() == [
        (0, 1, 0.5, None),
        (1, 2, 0.25, 0.3),
    ]
    assert query(ResultsFolder(tmp_path), "select n_cells, area from tissues").rows() == [(100, 90.0)]


def test_the_same_records_again_change_nothing(tmp_path: Path, make_record: MakeRecord) -> None:
    records = [make_record(run_id=f"{n:012x}") for n in range(5)]
    writer = StoreWriter(ResultsFolder(tmp_path))
    assert [writer.add(records), writer.add(records), StoreWriter(ResultsFolder(tmp_path)).add(records)] == [5, 0, 0]
    assert query(ResultsFolder(tmp_path), "select count(*) from evaluations").item() == 5


def test_a_run_has_one_finished_attempt(tmp_path: Path, make_record: MakeRecord) -> None:
    writer = StoreWriter(ResultsFolder(tmp_path))
    assert writer.add([make_record(status=Status.FAILED, error="x"), make_record(attempt=2)]) == 2
    assert writer.add([make_record(attempt=3)]) == 0
    assert writer.add([make_record(attempt=4, status=Status.LOST)]) == 1
    assert query(ResultsFolder(tmp_path), "select attempt, status from runs_latest").rows() == [(2, "done")]
    assert writer.finished_runs() == {"aaaaaaaaaaaa"}


def test_runs_latest_shows_the_latest_attempt_where_none_is_done(tmp_path: Path, make_record: MakeRecord) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add(
        [make_record(attempt=n, status=Status.FAILED, error=f"try {n}") for n in (1, 2, 3)]
    )
    assert query(ResultsFolder(tmp_path), "select attempt, error from runs_latest").rows() == [(3, "try 3")]
    assert query(ResultsFolder(tmp_path), "select * from leaderboard").height == 0


def test_the_views_compute_what_the_design_says(tmp_path: Path, make_record: MakeRecord) -> None:
    records = [
        make_record("1" * 12, phases={"train": 100.0}, epochs=25, batch_size=16),
        make_record(
            "2" * 12, phases={"train": 60.0}, method="b", epochs=None, iterations=1000, batch_size=4, n_train_images=320
        ),
        make_record("3" * 12, phases={"predict": 1.0}, method="c", trained=False, ap50=None),
    ]
    StoreWriter(ResultsFolder(tmp_path)).add(records)
    times = dict(query(ResultsFolder(tmp_path), "select method, standardised_s from timings").rows())
    # T x B/8 x 50/E and T x B/8 x 50N/(I x B)
    assert times == {
        "stardist": pytest.approx(100 * 16 / 8 * 50 / 25),
        "b": pytest.approx(60 * 4 / 8 * 50 * 320 / (1000 * 4)),
        "c": 0,
    }
    board = query(ResultsFolder(tmp_path), "select method, accuracy, place from leaderboard").rows()
    mean = (0.5 + 0.8 + 0.6 + 0.9 + 0.7) / 5
    assert board == [("b", pytest.approx(mean), 1), ("stardist", pytest.approx(mean), 1), ("c", None, 3)]


def test_cell_metrics_add_windows_up(tmp_path: Path, make_record: MakeRecord) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add([make_record()])
    sql = (
        "select test_tissue, f1_50, f1_75, tp_fp_fn_50, panoptic_quality, aggregated_jaccard, seg, splits "
        "from cell_metrics"
    )
    rows = {row[0]: row[1:] for row in query(ResultsFolder(tmp_path), sql).rows()}
    assert rows["all"] == pytest.approx((18 / 41, 16 / 41, 9 / 32, 15 / 41, 90 / 180, 7.5 / 30, 1))
    assert rows["lung"] == pytest.approx((18 / 21, 16 / 21, 9 / 12, 15 / 21, 0.75, 0.75, 1))
    assert rows["skin"] == (0, 0, 0, 0, 0, 0, 0)
    # recall as the study's text has it: the mean over images, of which one has all its cells missed
    per_image = query(ResultsFolder(tmp_path), "select test_tissue, ar50_per_image, ar_per_image from cell_metrics")
    means = {row[0]: row[1:] for row in per_image.rows()}
    assert means["all"] == pytest.approx((0.9 / 2, (4 * 0.9 + 6 * 0.8) / 10 / 2))
    assert means["lung"] == pytest.approx((0.9, 0.84))


@pytest.mark.slow
def test_readers_read_while_the_writer_writes(tmp_path: Path, make_record: MakeRecord) -> None:
    writer = StoreWriter(ResultsFolder(tmp_path))
    reader = textwrap.dedent(
        f"""
        from segbench.engine.results.folder import ResultsFolder
        from segbench.engine.results.store import query
        out = ResultsFolder.open({str(tmp_path)!r})
        counts = [query(out, "select count(*) from leaderboard").item() for _ in range(40)]
        assert counts == sorted(counts), counts
        """
    )
    readers = [subprocess.Popen([sys.executable, "-c", reader]) for _ in range(2)]
    for n in range(60):
        writer.add([make_record(f"{n:012x}", method=f"m{n}")])
    assert [process.wait(timeout=120) for process in readers] == [0, 0]
    assert query(ResultsFolder(tmp_path), "select count(*) from leaderboard").item() == 60


def test_a_reader_that_stays_makes_the_writer_wait_and_then_say_so(tmp_path: Path, make_record: MakeRecord) -> None:
    StoreWriter(ResultsFolder(tmp_path))
    done: list[int] = []
    with held(ResultsFolder(tmp_path).store):
        with pytest.raises(StoreBusyError, match="close that DuckDB client"):
            StoreWriter(ResultsFolder(tmp_path), patience_s=0.5).add([make_record()])
        waiting = threading.Thread(
            target=lambda: done.append(StoreWriter(ResultsFolder(tmp_path), patience_s=30).add([make_record()]))
        )
        waiting.start()
        time.sleep(0.5)
        assert not done
    waiting.join(timeout=30)
    assert done == [1]


def test_a_query_cannot_change_the_store_or_read_other_files(tmp_path: Path, make_record: MakeRecord) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add([make_record()])
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    for statement in (
        "delete from attempts",
        "drop view leaderboard",
        f"select * from read_csv('{tmp_path / 'secret.csv'}')",
        f"copy attempts to '{tmp_path / 'stolen.csv'}'",
        "set enable_external_access = true",
    ):
        with pytest.raises(SegbenchError):
            query(ResultsFolder(tmp_path), statement)
    assert query(ResultsFolder(tmp_path), "select count(*) from attempts").item() == 1
    assert not (tmp_path / "stolen.csv").exists()


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="segbench grid launch"):
        query(ResultsFolder(tmp_path), "select 1")
    StoreWriter(ResultsFolder(tmp_path))
    with pytest.raises(SegbenchError, match="leaderbord") as caught:
        query(ResultsFolder(tmp_path), "select * from leaderbord")
    assert "\n" not in str(caught.value)
    (tmp_path / "other").mkdir()
    ResultsFolder(tmp_path / "other").store.write_bytes(b"not a database" * 1000)
    with pytest.raises(SegbenchError, match="store repair"):
        query(ResultsFolder(tmp_path / "other"), "select 1")
    with pytest.raises(SegbenchError, match="store repair"):
        StoreWriter(ResultsFolder(tmp_path / "other"))


def test_a_store_of_a_newer_segbench_is_left_alone(tmp_path: Path) -> None:
    StoreWriter(ResultsFolder(tmp_path))
    with duckdb.connect(ResultsFolder(tmp_path).store) as connection:
        connection.execute("insert into migrations values (99, '0099_future.sql', '9.9', now())")
    with pytest.raises(SegbenchError, match="newer segbench"):
        StoreWriter(ResultsFolder(tmp_path))


def test_records_left_on_disk_are_taken_in_and_broken_ones_set_aside(tmp_path: Path, make_record: MakeRecord) -> None:
    for n in range(4):
        folder = tmp_path / "runs" / f"{n:012x}" / "attempt-001"
        folder.mkdir(parents=True)
        make_record(f"{n:012x}").write(folder / RECORD_NAME)
    broken = tmp_path / "runs" / f"{3:012x}" / "attempt-001" / "record.json"
    broken.write_bytes(broken.read_bytes()[:200])
    writer = StoreWriter(ResultsFolder(tmp_path))
    assert [take_in(ResultsFolder(tmp_path), writer), take_in(ResultsFolder(tmp_path), writer)] == [3, 0]
    assert not broken.exists()
    assert broken.with_name("record.json.broken").exists()
    assert writer.finished_runs() == {f"{n:012x}" for n in range(3)}


def test_a_store_of_the_first_release_is_brought_up_with_its_rows(tmp_path: Path, make_record: MakeRecord) -> None:
    first = migrations()[0]
    assert (first.version, first.name) == (1, "0001_initial.sql")
    with duckdb.connect(ResultsFolder(tmp_path).store) as connection:
        # today's views ask for columns that came later: the tables alone, as that release made them
        connection.execute(first.sql)
        connection.execute(
            "create table migrations (version integer primary key, name varchar not null, "
            "segbench_version varchar not null, applied_at timestamp with time zone not null)"
        )
        connection.execute("insert into migrations values (1, ?, '0.1.0', now())", [first.name])
        StoreWriter(ResultsFolder(tmp_path / "today")).add([make_record(), make_record("b" * 12)])
        connection.execute(f"attach '{ResultsFolder(tmp_path / 'today').store}' as today (read_only)")
        for table in ("attempts", "phases", "evaluations", "images", "history", "tissues"):
            names = ", ".join(connection.sql(f"select * from {table}").columns)
            connection.execute(f"insert into {table} by name select {names} from today.{table}")
    for made in (make_record(), make_record("b" * 12)):
        record = made.model_copy(update={"resamples": []})  # the first release had none
        folder = tmp_path / record.attempt.folder
        folder.mkdir(parents=True)
        record.write(folder / RECORD_NAME)
    assert check_store(ResultsFolder(tmp_path)).faults == ()
    assert query(ResultsFolder(tmp_path), "select count(*) from migrations").item() == 1
    writer = StoreWriter(ResultsFolder(tmp_path))
    assert writer.add([make_record("c" * 12)]) == 1
    assert query(ResultsFolder(tmp_path), "select version from migrations order by all").rows() == [
        (m.version,) for m in migrations()
    ]
    assert query(ResultsFolder(tmp_path), "select count(*), avg(ap50) from accuracy").rows() == [
        (3, pytest.approx(0.8))
    ]
    assert query(ResultsFolder(tmp_path), "select count(*) from history").item() == 6


def test_records_of_the_first_release_are_read(tmp_path: Path, make_record: MakeRecord) -> None:
    content = json.loads(make_record().model_dump_json())
    del content["resamples"]
    content["record_schema"] = 1
    path = tmp_path / "record.json"
    path.write_text(json.dumps(content))
    read = Record.read(path)
    assert (read.record_schema, read.attempt, read.resamples) == (1, make_record().attempt, [])
    assert StoreWriter(ResultsFolder(tmp_path)).add([read]) == 1


def test_migrations_are_applied_in_order_once_and_all_or_none(tmp_path: Path, make_record: MakeRecord) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add([make_record()])
    last = migrations()[-1].version
    steps = [
        *migrations(),
        Migration(last + 1, "add.sql", "alter table tissues add column site varchar default 'here'"),
        Migration(last + 2, "fill.sql", "update tissues set site = upper(site)"),
    ]
    broken = [*steps, Migration(last + 3, "broken.sql", "alter table tissues drop column nothing")]
    connection = duckdb.connect(ResultsFolder(tmp_path).store)
    connection.begin()
    with pytest.raises(duckdb.Error, match="nothing"):
        migrate(connection, broken)
    connection.rollback()
    assert "site" not in connection.sql("select * from tissues").columns
    connection.begin()
    assert migrate(connection, steps) == [last + 1, last + 2]
    connection.commit()
    assert migrate(connection, steps) == []
    assert connection.execute("select distinct site from tissues").fetchall() == [("HERE",)]
    connection.close()
    # a store with steps that this segbench does not know: one line from whoever needs its tables
    for ask in (StoreWriter, check_store, lambda out: query(out, "select 1"), repair_store):
        with pytest.raises(SegbenchError, match="newer segbench") as caught:
            ask(ResultsFolder(tmp_path))
        assert "\n" not in str(caught.value)
    with duckdb.connect(ResultsFolder(tmp_path).store, read_only=True) as connection:
        assert connection.execute("select count(*) from attempts").fetchone() == (1,)


def test_a_record_that_the_store_forbids_does_not_hold_the_others_up(tmp_path: Path, make_record: MakeRecord) -> None:
    good = [make_record(f"{n:012x}") for n in range(6)]
    row = good[3].evaluations[0]
    good[3] = good[3].model_copy(update={"evaluations": [row, row]})
    for record in good:
        folder = tmp_path / record.attempt.folder
        folder.mkdir(parents=True)
        record.write(folder / RECORD_NAME)
    writer = StoreWriter(ResultsFolder(tmp_path))
    assert take_in(ResultsFolder(tmp_path), writer) == 5
    assert writer.finished_runs() == {f"{n:012x}" for n in (0, 1, 2, 4, 5)}
    assert (tmp_path / good[3].attempt.folder / "record.json.broken").exists()
    assert query(ResultsFolder(tmp_path), f"select count(*) from attempts where run_id = '{3:012x}'").item() == 0


@pytest.mark.parametrize(
    "change", [lambda c: c.pop("seg"), lambda c: c.update(extra=[1, 2]), lambda c: c.update(image=[0])]
)
def test_windows_with_other_columns_are_no_record(
    make_record: MakeRecord, change: Callable[[dict[str, object]], object]
) -> None:
    columns = dict(make_record().images[0].columns)
    change(columns)
    with pytest.raises(ValueError, match="columns"):
        ImageTable(test_task="t", columns=columns)


def test_a_copy_of_the_store_is_whole_while_the_writer_writes(tmp_path: Path, make_record: MakeRecord) -> None:
    writer = StoreWriter(ResultsFolder(tmp_path))
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            writer.add([make_record(f"{n:012x}")])
            n += 1

    thread = threading.Thread(target=write)
    thread.start()
    counts = []
    for n in range(5):
        copy = tmp_path / f"copy-{n}" / "results.duckdb"
        copy.parent.mkdir()
        writer.snapshot(copy)
        counts.append(
            query(ResultsFolder(copy.parent), "select count(distinct run_id), count(*) from evaluations").row(0)
        )
        time.sleep(0.1)
    stop.set()
    thread.join()
    assert all(runs == rows for runs, rows in counts)
    assert counts == sorted(counts)
    assert counts[-1][0] > 0


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold a store open for reading in another process, as a user's DuckDB client does."""
    code = (
        f"import duckdb, sys; c = duckdb.connect({str(path)!r}, read_only=True); "
        "print('open', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "open"
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=30)


def test_columns_that_no_frame_can_hold_are_told_in_one_line(tmp_path: Path, make_record: MakeRecord) -> None:
    out = ResultsFolder(tmp_path)
    StoreWriter(out).add([make_record()])
    with pytest.raises(SegbenchError, match=r"two columns 'a'.*with 'as'"):
        query(out, "select 1 as a, 2 as a")
    with pytest.raises(SegbenchError, match=r"cannot be shown.*cast it"):
        query(out, "select interval 1 day as a")


@pytest.mark.parametrize(
    ("part", "value"),
    [("seed", 2**31), ("n_parameters", 2**70), ("attempt", 2**31), ("run_id", "../x"), ("peak_memory_bytes", -1)],
)
def test_what_no_column_holds_is_no_record_and_is_set_aside_alone(
    tmp_path: Path, make_record: MakeRecord, part: str, value: object
) -> None:
    out = ResultsFolder(tmp_path)
    for n in range(3):
        record = make_record(f"{n:012x}")
        record.write(out.attempt(record.attempt.run_id, 1).make().record)
    wrong = out.attempt(f"{1:012x}", 1)
    raw = json.loads(wrong.record.read_text())
    raw["attempt"][part] = value
    del raw["digest"]
    wrong.record.write_text(json.dumps(raw))
    assert take_in(out, StoreWriter(out)) == 2
    assert wrong.broken_record.exists()


def test_a_score_outside_0_to_1_and_another_runs_record_are_set_aside(tmp_path: Path, make_record: MakeRecord) -> None:
    out = ResultsFolder(tmp_path)
    for n in range(4):
        record = make_record(f"{n:012x}")
        record.write(out.attempt(record.attempt.run_id, 1).make().record)
    for n, score in ((0, 7.5), (1, -3)):
        path = out.attempt(f"{n:012x}", 1).record
        raw = json.loads(path.read_text())
        raw["evaluations"][0]["ap50"] = score
        del raw["digest"]
        path.write_text(json.dumps(raw))
    make_record(f"{3:012x}").write(out.attempt(f"{2:012x}", 1).record)
    assert take_in(out, StoreWriter(out)) == 1
    assert query(out, "select run_id from attempts").rows() == [(f"{3:012x}",)]


def test_a_row_that_the_frames_cannot_hold_does_not_hold_the_others_up(tmp_path: Path, make_record: MakeRecord) -> None:
    good = [make_record(f"{n:012x}") for n in range(3)]
    # past the door by hand: what a later column may be too small for
    good[1] = good[1].model_copy(update={"attempt": good[1].attempt.model_copy(update={"seed": 2**40})})
    writer = StoreWriter(ResultsFolder(tmp_path))
    assert writer.add(good) == 2
    assert [record.attempt.run_id for record, _ in writer.refused] == [f"{1:012x}"]
