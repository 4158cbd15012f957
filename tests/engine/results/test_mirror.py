"""Results on a URL: what is uploaded comes back whole, and a cut-off upload is no result."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from segbench.engine.results import mirror as remote
from segbench.engine.results.attempts import RECORD_NAME, AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.mirrored_launch import LEASE, launching
from segbench.engine.results.record import Record
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.results.store.check import check_store
from segbench.engine.results.store.recovery import take_in
from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
from segbench.errors import SegbenchError

MakeRecord = Callable[..., Record]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an empty URL of a file system whose uploads are renamed into place, and of one that needs no such care."""
    return f"file://{tmp_path}/bucket/results" if request.param == "file" else f"memory://{tmp_path.name}/results"


def put(out: ResultsFolder, record: Record) -> AttemptFolder:
    """Write an attempt with two artifacts, one of them in a folder."""
    attempt = out.attempt_at(record.attempt.folder).make()
    attempt.job.predictions("test").mkdir(parents=True)
    (attempt.job.predictions("test") / "labels.bin").write_bytes(b"\x00\x01" * 1000)
    attempt.job.job.write_text("{}")
    attempt.write_record(record)
    return attempt


def test_attempts_and_the_store_travel_to_another_machine(
    url: str, tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ResultsFolder.open(url)
    writer = StoreWriter(here)
    for n in range(3):
        remote.push_attempt(put(here, make_record(f"{n:012x}")))
    take_in(here, writer)
    remote.push_store(writer)
    remote.push_attempt(put(here, make_record("e" * 12)))  # after the snapshot

    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "other machine"))
    there = remote.open_results(url)
    assert there != here
    assert query(there, "select count(*) from leaderboard").item() == 1
    assert query(there, "select count(*) from attempts").item() == 3
    # what the snapshot has finished is not fetched; what it lacks is
    assert remote.pull_records(there) == 1
    assert take_in(there, StoreWriter(there)) == 1
    assert remote.pull_records(there, every=True) == 3
    assert check_store(there).faults == ()
    pair = [out.attempt(f"{1:012x}", 1) for out in (here, there)]
    assert [path.name for path in pair[1].path.iterdir()] == [RECORD_NAME]
    assert remote.pull_attempt(pair[1])
    contents = [{p.relative_to(one.path): p.read_bytes() for p in one.path.rglob("*") if p.is_file()} for one in pair]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3
    assert not remote.pull_attempt(there.attempt("no", 1))


def test_a_snapshot_is_fetched_only_when_there_is_a_newer_one(
    url: str, tmp_path: Path, make_record: MakeRecord
) -> None:
    writer = StoreWriter(ResultsFolder.open(url))
    writer.add([make_record()])
    remote.push_store(writer)
    other = ResultsFolder(tmp_path / "other", url).make()
    assert remote.pull_store(other)
    assert not remote.pull_store(other)
    assert not remote.pull_store(writer.out)
    writer.add([make_record("b" * 12)])
    remote.push_store(writer)
    assert remote.pull_store(other)
    assert query(other, "select count(*) from attempts").item() == 2
    assert sorted(path.name for path in other.path.iterdir()) == ["remote.json", "results.duckdb"]


def test_an_upload_that_is_cut_off_is_no_result_and_is_done_again(
    url: str, tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ResultsFolder.open(url)
    attempt = put(here, make_record())

    def fail(*_: object) -> None:
        raise OSError("the network is gone")

    with monkeypatch.context() as broken:
        broken.setattr(remote, "put_whole", fail)
        told = remote.push_or_mark(attempt)
    assert told is not None
    assert "network is gone" in told
    fs, root = fsspec.url_to_fs(url)
    assert fs.exists(f"{root}/{attempt.relative}/job.json")
    assert not remote.pull_attempt(attempt)
    fs.pipe_file(f"{root}/{attempt.relative}/stale.bin", b"x")
    assert remote.push_left(here) == 1
    assert remote.push_left(here) == 0
    names = {path.rpartition("/")[2] for path in fs.find(f"{root}/runs")}
    assert names == {"job.json", "labels.bin", RECORD_NAME}
    assert remote.push_or_mark(attempt) is None
    assert remote.push_or_mark(ResultsFolder(tmp_path).attempt("a", 1)) is None


def test_a_launch_keeps_the_url_up_to_date_and_to_itself(tmp_path: Path, make_record: MakeRecord) -> None:
    out = ResultsFolder.open(f"file://{tmp_path}/bucket")
    there = ResultsFolder(tmp_path / "bucket")
    told: list[str] = []
    with launching(out, told.append, push_every_s=0.2) as launch:
        writer = StoreWriter(out)
        launch.keep(writer)
        out.launch.grid.write_text("{}")
        writer.add([make_record()])
        deadline = time.monotonic() + 30
        while not there.has_store() and time.monotonic() < deadline:
            time.sleep(0.05)
        # another machine: the lease is not its own
        lease = there.path / LEASE
        lease.write_text(lease.read_text().replace('"host": "', '"host": "other-'))
        with pytest.raises(SegbenchError, match="on other-"), launching(out, told.append):
            pass
        writer.add([make_record("b" * 12)])
    assert query(there, "select count(*) from attempts").item() == 2
    assert there.launch.grid.exists()
    assert not lease.exists()
    assert told == []
    local = ResultsFolder(tmp_path)
    with launching(local, told.append) as launch:
        launch.keep(StoreWriter(local))
    assert not (tmp_path / LEASE).exists()


def test_another_process_reads_what_was_uploaded(tmp_path: Path, make_record: MakeRecord) -> None:
    url = f"file://{tmp_path}/bucket"
    out = ResultsFolder.open(url)
    with launching(out, lambda _: None) as launch:
        writer = StoreWriter(out)
        launch.keep(writer)
        writer.add([make_record()])
    code = textwrap.dedent(
        f"""
        from segbench.engine.results.mirror import open_results
        from segbench.engine.results.store import query
        print(query(open_results({url!r}), "select run_id from attempts").item())
        """
    )
    environment = {"SEGBENCH_CACHE": str(tmp_path / "other"), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "a" * 12


def test_mistakes_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for url, words in (
        ("s3://bucket/a", "pip install s3fs"),
        ("nosuch://bucket", "nosuch"),
        (f"file://{tmp_path}/file/below", "cannot reach"),
    ):
        (tmp_path / "file").write_text("")
        out = ResultsFolder.open(url)
        with pytest.raises(SegbenchError, match=words) as caught, launching(out, lambda _: None):
            pass
        assert "\n" not in str(caught.value)
    with pytest.raises(SegbenchError, match="within one process"):  # noqa: SIM117
        with launching(ResultsFolder.open("memory://a"), lambda _: None):
            pass
    assert not remote.open_results(f"file://{tmp_path}/nothing").has_store()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SegbenchError, match="pip install fsspec"):
        remote.open_results("s3://bucket/a")


def test_a_record_that_another_machine_wrote_is_fetched(url: str, tmp_path: Path, make_record: MakeRecord) -> None:
    attempt = put(ResultsFolder.open(url), make_record())
    remote.push_attempt(attempt)
    shutil.rmtree(attempt.path)
    remote.fetch_record(attempt)
    assert attempt.read_record() == make_record()
    remote.fetch_record(ResultsFolder(tmp_path).attempt("a", 1))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray", "plugin")
def test_a_launch_into_a_url_goes_on_from_what_the_url_has(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket/results"
    grid = {"methods": ["threshold"], "tasks": ["synthetic-nuclear-1ch"], "tissues": ["Breast"], "seeds": [0]}
    path = tmp_path / "grid.yaml"

    def run(seeds: list[int]) -> list[str]:
        path.write_text(json.dumps({**grid, "seeds": seeds}))
        told: list[str] = []
        _, summary = launch(
            GridRequest(grid_file=path),
            remote.open_results(url),
            LaunchOptions(cpu=True),
            lambda e: told.append(str(e)),
        )
        assert summary is not None
        assert [outcome.status for outcome in summary.outcomes] == ["done"]
        return told

    run([0])
    bucket = ResultsFolder(tmp_path / "bucket" / "results")
    (attempt,) = bucket.recorded()
    names = {path.name for path in attempt.path.iterdir()}
    assert {"record.json", "job.json", "log.txt", "predictions", "examples.npz"} <= names
    assert check_store(bucket).faults == ()
    # the mirror is gone (another machine), and the snapshot is older than the last record: nothing is done twice
    shutil.rmtree(ResultsFolder.open(url).path)
    bucket.store.unlink()
    told = run([0, 1])
    assert any("fetched 1 records" in text for text in told)
    assert query(bucket, "select count(*), count(distinct run_id) from attempts").row(0) == (2, 2)
    assert check_store(bucket).faults == ()
