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
from segbench.engine.results.record import RECORD_NAME, Record
from segbench.engine.results.store import StoreWriter, query, store_path
from segbench.engine.results.store.check import check_store
from segbench.engine.results.store.recovery import take_in
from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
from segbench.errors import SegbenchError
from segbench.paths import cache_folder

MakeRecord = Callable[..., Record]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an empty URL of a file system whose uploads are renamed into place, and of one that needs no such care."""
    return f"file://{tmp_path}/bucket/results" if request.param == "file" else f"memory://{tmp_path.name}/results"


def put(out: Path, record: Record) -> Path:
    """Write an attempt with two artifacts, one of them in a folder; return its folder."""
    folder = out / record.attempt.folder
    (folder / "predictions" / "test").mkdir(parents=True)
    (folder / "predictions" / "test" / "labels.bin").write_bytes(b"\x00\x01" * 1000)
    (folder / "job.json").write_text("{}")
    record.write(folder)
    return folder


def test_what_is_a_url_and_what_a_folder(tmp_path: Path) -> None:
    assert remote.is_url("s3://bucket/a")
    assert not remote.is_url(tmp_path)
    folder = remote.mirror("s3://bucket/a/")
    assert folder == remote.mirror("s3://bucket/a") != remote.mirror("s3://bucket/b")
    assert folder.is_relative_to(cache_folder())
    assert (remote.url_of(folder), remote.url_of(tmp_path)) == ("s3://bucket/a", None)


def test_attempts_and_the_store_travel_to_another_machine(
    url: str, tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = remote.mirror(url)
    writer = StoreWriter(here)
    for n in range(3):
        remote.push_attempt(url, put(here, make_record(f"{n:012x}")))
    take_in(here, writer)
    remote.push_store(url, writer)
    remote.push_attempt(url, put(here, make_record("e" * 12)))  # after the snapshot

    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "other machine"))
    there = remote.open_mirror(url)
    assert there != here
    assert query(there, "select count(*) from leaderboard").item() == 1
    assert query(there, "select count(*) from attempts").item() == 3
    # what the snapshot has finished is not fetched; what it lacks is
    assert remote.pull_records(url, there) == 1
    assert take_in(there, StoreWriter(there)) == 1
    assert remote.pull_records(url, there, every=True) == 3
    assert check_store(there).faults == ()
    name = Path("runs") / f"{1:012x}" / "attempt-001"
    assert [path.name for path in (there / name).iterdir()] == [RECORD_NAME]
    assert remote.pull_attempt(url, there / name)
    contents = [{p.relative_to(d): p.read_bytes() for p in (d / name).rglob("*") if p.is_file()} for d in (here, there)]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3
    assert not remote.pull_attempt(url, there / "runs" / "no" / "attempt-001")


def test_a_snapshot_is_fetched_only_when_there_is_a_newer_one(
    url: str, tmp_path: Path, make_record: MakeRecord
) -> None:
    writer = StoreWriter(remote.mirror(url))
    writer.add([make_record()])
    remote.push_store(url, writer)
    other = tmp_path / "other"
    other.mkdir()
    assert remote.pull_store(url, other)
    assert not remote.pull_store(url, other)
    assert not remote.pull_store(url, remote.mirror(url))
    writer.add([make_record("b" * 12)])
    remote.push_store(url, writer)
    assert remote.pull_store(url, other)
    assert query(other, "select count(*) from attempts").item() == 2
    assert sorted(path.name for path in other.iterdir()) == ["remote.json", "results.duckdb"]


def test_an_upload_that_is_cut_off_is_no_result_and_is_done_again(
    url: str, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = remote.mirror(url)
    folder = put(here, make_record())

    def fail(*_: object) -> None:
        raise OSError("the network is gone")

    with monkeypatch.context() as broken:
        broken.setattr(remote, "_put_whole", fail)
        told = remote.push_or_mark(url, folder)
    assert told is not None
    assert "network is gone" in told
    fs, root = fsspec.url_to_fs(url)
    assert fs.exists(f"{root}/runs/{folder.parent.name}/attempt-001/job.json")
    assert not remote.pull_attempt(url, here / "runs" / folder.parent.name / "attempt-001")
    fs.pipe_file(f"{root}/runs/{folder.parent.name}/attempt-001/stale.bin", b"x")
    assert remote.push_left(url, here) == 1
    assert remote.push_left(url, here) == 0
    names = {path.rpartition("/")[2] for path in fs.find(f"{root}/runs")}
    assert names == {"job.json", "labels.bin", RECORD_NAME}
    assert remote.push_or_mark(url, folder) is None
    assert remote.push_or_mark(None, folder) is None


def test_a_launch_keeps_the_url_up_to_date_and_to_itself(tmp_path: Path, make_record: MakeRecord) -> None:
    url = f"file://{tmp_path}/bucket"
    out = remote.mirror(url)
    told: list[str] = []
    with remote.launching(out, told.append, push_every_s=0.2) as launch:
        writer = StoreWriter(out)
        launch.keep(writer)
        (out / "grid.json").write_text("{}")
        writer.add([make_record()])
        deadline = time.monotonic() + 30
        while not (tmp_path / "bucket" / "results.duckdb").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        # another machine: the lease is not its own
        lease = tmp_path / "bucket" / remote.LEASE
        lease.write_text(lease.read_text().replace('"host": "', '"host": "other-'))
        with pytest.raises(SegbenchError, match="on other-"), remote.launching(out, told.append):
            pass
        writer.add([make_record("b" * 12)])
    assert query(tmp_path / "bucket", "select count(*) from attempts").item() == 2
    assert (tmp_path / "bucket" / "grid.json").exists()
    assert not lease.exists()
    assert told == []
    with remote.launching(tmp_path, told.append) as launch:
        assert launch.url is None
        launch.keep(StoreWriter(tmp_path))


def test_another_process_reads_what_was_uploaded(tmp_path: Path, make_record: MakeRecord) -> None:
    url = f"file://{tmp_path}/bucket"
    with remote.launching(remote.mirror(url), lambda _: None) as launch:
        writer = StoreWriter(remote.mirror(url))
        launch.keep(writer)
        writer.add([make_record()])
    code = textwrap.dedent(
        f"""
        from segbench.engine.results import mirror as remote
        from segbench.engine.results.store import query
        print(query(remote.open_mirror({url!r}), "select run_id from attempts").item())
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
        with pytest.raises(SegbenchError, match=words) as caught, remote.launching(remote.mirror(url), lambda _: None):
            pass
        assert "\n" not in str(caught.value)
    with pytest.raises(SegbenchError, match="within one process"):  # noqa: SIM117
        with remote.launching(remote.mirror("memory://a"), lambda _: None):
            pass
    assert not store_path(remote.open_mirror(f"file://{tmp_path}/nothing")).exists()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SegbenchError, match="pip install fsspec"):
        remote.open_mirror("s3://bucket/a")


def test_a_record_that_another_machine_wrote_is_fetched(url: str, tmp_path: Path, make_record: MakeRecord) -> None:
    out = remote.mirror(url)
    folder = put(out, make_record())
    remote.push_attempt(url, folder)
    shutil.rmtree(folder)
    remote.fetch_record(out, folder)
    assert Record.read(folder / RECORD_NAME) == make_record()
    remote.fetch_record(tmp_path, tmp_path / "runs" / "a" / "attempt-001")
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
        out, options = remote.open_mirror(url), LaunchOptions(cpu=True)
        _, summary = launch(GridRequest(grid_file=path), out, options, lambda e: told.append(str(e)))
        assert summary is not None
        assert [outcome.status for outcome in summary.outcomes] == ["done"]
        return told

    run([0])
    bucket = tmp_path / "bucket" / "results"
    attempts = list(bucket.glob("runs/*/attempt-001"))
    assert len(attempts) == 1
    assert {"record.json", "job.json", "log.txt", "predictions", "examples.npz"} <= {
        p.name for p in attempts[0].iterdir()
    }
    assert check_store(bucket).faults == ()
    # the mirror is gone (another machine), and the snapshot is older than the last record: nothing is done twice
    shutil.rmtree(remote.mirror(url))
    (bucket / "results.duckdb").unlink()
    told = run([0, 1])
    assert any("fetched 1 records" in text for text in told)
    assert query(bucket, "select count(*), count(distinct run_id) from attempts").row(0) == (2, 2)
    assert check_store(bucket).faults == ()
