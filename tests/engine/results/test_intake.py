"""The intake: records get into the store in a thread, and nothing holds a launch up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_store import held

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.intake import Intake
from segbench.engine.results.record import Record
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.results.store.check import check_store
from segbench.engine.results.store.recovery import take_in
from segbench.errors import SegbenchError

MakeRecord = Callable[..., Record]


@pytest.fixture
def out(tmp_path: Path) -> ResultsFolder:
    """Return an empty results folder."""
    return ResultsFolder(tmp_path)


def put(out: ResultsFolder, record: Record) -> Record:
    """Write a record into its folder, without a sync."""
    out.attempt_at(record.attempt.folder).make().record.write_text(record.model_dump_json())
    return record


@pytest.mark.slow
def test_a_held_store_makes_the_intake_wait_on_disk_and_not_the_launch(
    out: ResultsFolder, make_record: MakeRecord
) -> None:
    told: list[str] = []
    intake = Intake(out, StoreWriter(out))
    with held(out.store) as process:
        records = [put(out, make_record(f"{n:012x}")) for n in range(600)]
        start = time.monotonic()
        for record in records:
            intake.add(record)
            told += intake.notes()
        assert time.monotonic() - start < 5
        while not told and time.monotonic() - start < 60:
            told += intake.notes()
            time.sleep(0.05)
        time.sleep(3)
        told += intake.notes()
        assert intake.waiting == 600
        assert len(intake._waiting) <= 256
        (note,) = told  # once
        assert f"process {process.pid}" in note
        assert "goes on" in note
    deadline = time.monotonic() + 60
    while intake.waiting and time.monotonic() < deadline:
        time.sleep(0.05)
    assert intake.finish() == ["the store is free again: the records that waited are in it"]
    assert check_store(out).faults == ()
    assert query(out, "select count(*) from attempts").item() == 600


def test_records_are_in_the_store_soon_without_being_asked_for(out: ResultsFolder, make_record: MakeRecord) -> None:
    intake = Intake(out, StoreWriter(out))
    for n in range(3):
        intake.add(put(out, make_record(f"{n:012x}")))
        deadline = time.monotonic() + 20
        while intake.waiting and time.monotonic() < deadline:
            time.sleep(0.02)
        assert query(out, "select count(*) from attempts").item() == n + 1
    assert intake.finish() == []
    intake.close()


def test_what_the_store_could_not_take_is_taken_in_the_next_time(
    out: ResultsFolder, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segbench.engine.results.intake._LAST_PATIENCE_S", 0.5)
    intake = Intake(out, StoreWriter(out))
    with held(out.store):
        intake.add(put(out, make_record()))
        (note,) = intake.finish()
    assert "1 records wait on disk for the next launch" in note
    assert take_in(out, StoreWriter(out)) == 1


def test_a_store_that_cannot_be_written_ends_the_launch_with_its_records_on_disk(
    out: ResultsFolder, make_record: MakeRecord
) -> None:
    intake = Intake(out, StoreWriter(out))
    out.store.write_bytes(b"not a database" * 1000)
    intake.add(put(out, make_record()))
    deadline = time.monotonic() + 20
    while intake._failure is None and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(SegbenchError, match="store repair"):
        intake.notes()
    intake.close()
    assert [attempt.run_id for attempt in out.recorded()] == ["a" * 12]
