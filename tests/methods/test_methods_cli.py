"""``segbench methods`` at the prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from segbench.cli.methods import app
from segbench.engine.grid.cards import get_card
from segbench.engine.run.check import draw_discs
from segbench.errors import SegbenchError
from segbench.methods import Arrays, Budget, Job, PredictionSet, Task


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_list_gives_every_method_with_its_budget() -> None:
    rows = {row["method"]: row for row in json.loads(ask("list", "--format", "json").stdout)}
    assert len(rows) >= 19
    assert rows["centermask2"]["iterations"] == 100_000
    assert (rows["stardist"]["epochs"], rows["stardist"]["state"]) == (100, "ready")
    assert rows["mesmer"]["state"] == "ready"
    ready = ask("list", "--implemented", "--format", "csv").stdout.splitlines()
    assert {line.split(",")[0] for line in ready[1:]} >= {"watershed", "stardist", "cellpose"}
    assert not any("planned" in line for line in ready)


def test_show_tells_all_of_one_method() -> None:
    card = json.loads(ask("show", "cellpose", "--format", "json").stdout)
    assert card["libraries"]["cellpose"] == "3.1.1.3"
    assert card["settings"]["flow_threshold"]["default"] == "auto"
    assert card["settings"]["flow_threshold"]["allowed"] == "auto, or a number of at least 0"
    assert card["settings"]["crop"]["unit"] == "pixels"
    assert card["distribution"] == "segbench"
    table = ask("show", "cellpose").stdout
    assert "mean diameter" in table
    assert "a number from 0 to 2" in table
    assert ask("show", "mesmer").exit_code == 0


@pytest.mark.parametrize("command", ["show", "install", "check"])
def test_misspelt_names_are_answered_with_the_nearest(command: str) -> None:
    with pytest.raises(SegbenchError, match="did you mean stardist"):
        ask(command, "stardst")


def test_planned_methods_cannot_be_checked(add_distribution: Callable[..., Path]) -> None:
    module = (
        "from segbench.methods import Budget, Card\n"
        "LATER = Card(name='later', title='Later', family='acme', environment='unheard-of', category='classical',\n"
        "             trained=False, attention=False, budget=Budget(batch_size=1), implemented=False)\n"
    )
    add_distribution("acme", {"acme_later.py": module}, "later = acme_later:LATER")
    rows = {row["method"]: row for row in json.loads(ask("list", "--format", "json").stdout)}
    assert (rows["later"]["state"], rows["later"]["distribution"]) == ("planned", "acme")
    with pytest.raises(SegbenchError, match="can be planned but not run yet"):
        ask("check", "later")


def test_install_of_the_baselines_environment_is_the_engine() -> None:
    result = ask("install", "watershed", "--cpu")
    assert result.exit_code == 0
    assert result.stdout.startswith("engine: ")


def test_check_runs_the_baseline_for_real() -> None:
    (row,) = json.loads(ask("check", "watershed", "--cpu", "--format", "json").stdout)
    assert (row["method"], row["ok"], row["error"]) == ("watershed", "ok", None)
    assert row["instances"] > 10


@pytest.mark.usefixtures("plugin")
def test_check_runs_a_third_partys_method() -> None:
    (row,) = json.loads(ask("check", "threshold", "--cpu", "--format", "json").stdout)
    assert (row["method"], row["ok"]) == ("threshold", "ok")


def test_check_of_a_method_that_fails_tells_why_and_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\ncase \"$1\" in -c) echo '{}';; *) echo no library here >&2; exit 3;; esac\n")
    broken.chmod(0o755)
    monkeypatch.setenv("SEGBENCH_ENV_CELLPOSE", str(broken))
    result = ask("check", "cellpose", "--cpu", "--format", "json")
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)
    assert (row["ok"], row["error"]) == ("failed", "ended with status 3 and left no result: no library here")


def test_a_job_is_run_again_by_hand_in_its_methods_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, _ = draw_discs(2)
    np.save(tmp_path / "x.npy", images)
    job = Job(
        run_id="r", method="segbench.methods.watershed:Watershed", task=Task("t", "d", ("nuclear",), "nuclear"),
        budget=Budget(batch_size=1), seed=0, output=str(tmp_path / "run"), settings=get_card("watershed").defaults,
        predict={"test": Arrays(str(tmp_path / "x.npy"), (0,))},
    )  # fmt: skip
    job.write(tmp_path / "job.json")
    assert ask("run", str(tmp_path / "job.json")).exit_code == 0
    assert len(PredictionSet(tmp_path / "run" / "predictions" / "test")) == 2
    (tmp_path / "run" / "record.json").write_text("{}")  # as the engine leaves it
    recorded = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for folder in ("job-r", "job-r-2"):
        assert ask("run", str(tmp_path / "run" / "job.json")).exit_code == 0
        assert len(PredictionSet(tmp_path / folder / "predictions" / "test")) == 2
    with pytest.raises(SegbenchError, match="is not empty"):
        ask("run", str(tmp_path / "job.json"), "--to", str(tmp_path / "run"))
    assert recorded == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    replace(job, predict={"test": Arrays(str(tmp_path / "gone.npy"), (0,))}).write(tmp_path / "job.json")
    assert ask("run", str(tmp_path / "job.json")).exit_code == 1
    replace(job, method="a:B").write(tmp_path / "job.json")
    with pytest.raises(SegbenchError, match="unknown method class 'a:B'"):
        ask("run", str(tmp_path / "job.json"))
    with pytest.raises(SegbenchError, match=r"not a job file: .*No such file"):
        ask("run", str(tmp_path / "none.json"))
