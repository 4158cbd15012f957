"""What the last release left behind is still good: its store opens, its grid has nothing to run, its run ids stay."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from segbench.cli.app import app
from segbench.engine.grid.presets import preset

RELEASE = Path(__file__).parent.parent / "stores" / "release-0.1.0"
GRID = RELEASE / "grid.yaml"
TOLD: dict[str, list[dict[str, Any]]] = json.loads((RELEASE / "told.json").read_text())
IDS: dict[str, Any] = json.loads((RELEASE / "ids.json").read_text())
TABLES = {"attempts": 5, "evaluations": 770, "images": 70, "resamples": 600, "history": 17, "phases": 40, "tissues": 66}
"""Rows of the release's store."""


def run(*arguments: object, out: Path | None = None) -> str:
    """Run a command and return what it printed; a fault ends the test."""
    given = [*map(str, arguments), *(() if out is None else ("--out", str(out)))]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def asked(*arguments: object, out: Path) -> list[dict[str, Any]]:
    """Run a command and return its rows."""
    rows: list[dict[str, Any]] = json.loads(run(*arguments, "--format", "json", out=out))
    return rows


def counted(out: Path) -> dict[str, int]:
    """Return the rows of each of the release's tables."""
    union = " union all ".join(f"select '{name}' as name, count(*) as n from {name}" for name in TABLES)
    return {row["name"]: row["n"] for row in asked("sql", union, out=out)}


def only(rows: Sequence[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    """Return these columns of the rows, sorted."""
    return sorted((tuple(row[column] for column in columns) for row in rows), key=repr)


def attempts_of(out: Path) -> dict[str, bytes]:
    """Return every file of every attempt."""
    return {str(path.relative_to(out)): path.read_bytes() for path in (out / "runs").rglob("*") if path.is_file()}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a copy of the release's results folder."""
    out = tmp_path / "results"
    shutil.copytree(RELEASE / "results", out)
    packed = out / "results.duckdb.gz"
    (out / "results.duckdb").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    return out


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a test a cache with no dataset in it."""
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def prepared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache in which the release's data are prepared once more."""
    cache = tmp_path_factory.mktemp("release-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGBENCH_CACHE", str(cache))
        run("data", "prepare", "synthetic", "--layout", "tissuenet", "--scale", "0.01")
    return cache


@pytest.fixture
def prepared(prepared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a test see that cache."""
    monkeypatch.setenv("SEGBENCH_CACHE", str(prepared_cache))
    return prepared_cache


@pytest.fixture
def same_engine() -> None:
    """Skip where the baseline's libraries, which are the engine's own and enter its ids, are not the release's."""
    record = json.loads((RELEASE / "results/runs/5cf39ac1d5b1/attempt-001/record.json").read_text())
    versions = record["attempt"]["versions"]
    for name in ("numpy", "scipy", "scikit-image"):
        if importlib.metadata.version(name) != versions[name]:
            pytest.skip(f"{name} is {importlib.metadata.version(name)} here, the release had {versions[name]}")


def test_its_store_opens_and_says_what_it_said(results: Path) -> None:
    assert counted(results) == TABLES
    board = asked("sql", "select * from leaderboard", out=results)
    columns = list(TOLD["leaderboard"][0])
    assert only(board, *columns) == only(TOLD["leaderboard"], *columns)


def test_status_and_runs_list_say_what_they_said(results: Path) -> None:
    listed = ("run_id", "method", "task", "train_tissue", "seed", "status", "attempts", "ap50", "train_s")
    assert only(asked("runs", "list", out=results), *listed) == only(TOLD["runs list"], *listed)
    standing = ("run_id", "method", "task", "train_tissue", "seed", "status", "error")
    assert only(asked("grid", "status", out=results), *standing) == only(TOLD["grid status"], *standing)


def test_a_run_is_shown_with_both_its_attempts(results: Path) -> None:
    shown = run("runs", "show", "1614", "--format", "json", out=results)
    assert [attempt["status"] for attempt in json.loads(shown)["attempts"]] == ["timeout", "done"]


def test_its_store_agrees_with_its_records(results: Path) -> None:
    told = run("store", "check", out=results)
    assert "5 records, 5 attempts in the store; all as it should be; 4 finished attempts of an older segbench" in told


def test_its_store_is_rebuilt_from_its_records(results: Path) -> None:
    (results / "results.duckdb").unlink()
    assert "rebuilt the store from 5 records" in run("store", "repair", out=results)
    assert counted(results) == TABLES


def test_its_store_is_reported(results: Path) -> None:
    run("report", out=results)
    page = (results / "report.html").read_text()
    assert all(title in page for title in ("StarDist", "Cellpose", "Watershed"))


@pytest.mark.slow
@pytest.mark.usefixtures("prepared", "same_engine")
def test_launching_its_grid_again_runs_nothing_and_brings_its_store_up_to_date(results: Path, tmp_path: Path) -> None:
    planned = asked("grid", "plan", "--grid", GRID, out=results)
    assert {row["id"] for row in planned} == {row["run_id"] for row in TOLD["runs list"]}
    assert {(row["status"], row["final_id"]) for row in planned} == {("done", True)}
    before = attempts_of(results)
    told = run("grid", "launch", "--grid", GRID, "--cpu", "--local-cpus", "1", out=results)
    assert told.startswith("nothing to run: all 4 runs of this grid are done already")
    assert attempts_of(results) == before
    assert counted(results) == TABLES

    fresh = tmp_path / "fresh"
    run("store", "merge", results, "--out", fresh)
    steps = "select version, name from migrations"
    assert only(asked("sql", steps, out=results), "version", "name") == only(
        asked("sql", steps, out=fresh), "version", "name"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("prepared", "same_engine")
def test_the_demo_has_its_ids_on_prepared_data(tmp_path: Path) -> None:
    assert _plan("demo", tmp_path) == IDS["demo on these data"]


@pytest.mark.usefixtures("empty_cache", "same_engine")
def test_the_demo_has_its_ids_before_its_data_are_prepared(tmp_path: Path) -> None:
    assert _plan("demo", tmp_path) == IDS["demo"]


@pytest.mark.usefixtures("empty_cache")
def test_the_published_grid_has_its_ids_where_it_is_run_as_the_release_did(tmp_path: Path) -> None:
    released = preset("paper").model_copy(update={"recipe": "cards"}).model_dump(exclude_defaults=True, mode="json")
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(released))
    rows = asked("grid", "plan", "--grid", tmp_path / "paper.yaml", out=tmp_path / "no results")
    found = {row["id"]: " / ".join((row["method"], row["task"], row["train_tissue"])) for row in rows}
    assert found == IDS["paper"]


@pytest.mark.usefixtures("empty_cache")
def test_the_full_grid_has_its_ids(tmp_path: Path) -> None:
    ids = sorted(_plan("full", tmp_path))
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    assert {"runs": len(ids), "sha256": digest} == IDS["full"]


def _plan(preset: str, folder: Path) -> dict[str, str]:
    rows = asked("grid", "plan", "--preset", preset, out=folder / "no results")
    return {row["id"]: " / ".join((row["method"], row["task"], row["train_tissue"])) for row in rows}
