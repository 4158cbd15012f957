"""The console script with other distributions' methods, a good one beside broken ones, started from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from segbench.cli.app import app
from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.grid import cards
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.errors import SegbenchError

pytestmark = pytest.mark.slow

GOOD = Path(__file__).parents[1] / "plugin"
DATA = DatasetSpec("elsewhere", "synthetic", None, {"layout": "livecell", "seed": 5, "scale": 0.01})
REASON = "method 'bang' of distribution broken cannot be loaded from bang:Bang: SystemExit: no licence"


@dataclass(frozen=True)
class Place:
    """A results folder with a finished run of the good method, and what is on the path beside segbench."""

    out: Path
    path: tuple[Path, ...]


def console(place: Place, cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own, from a folder of the user's."""
    path = [*map(str, place.path), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(path).rstrip(os.pathsep)}
    command = [Path(sys.executable).parent / "segbench", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Bring in a distribution of two methods, one that ends the process when it is imported, one with a wrong card."""
    folder = tmp_path_factory.mktemp("broken")
    info = folder / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[segbench.methods]\nbang = bang:Bang\nwrong = wrong:CARD\n")
    (folder / "bang.py").write_text("import sys\nprint('so much')\nsys.exit('no licence')\n")
    (folder / "wrong.py").write_text(
        "from segbench.methods import Budget, Card\n"
        "CARD = Card(name='wrong', title='Wrong', family='x', environment='no-such', category='classical',\n"
        "            trained=False, attention=False, budget=Budget(batch_size=1))\n"
    )
    register(DATA)
    return Place(tmp_path_factory.mktemp("out") / "results", (GOOD, folder))


@pytest.fixture(params=["an empty folder", "a package"])
def beside(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a folder that holds something named like segbench, as the parent of a checkout does."""
    (tmp_path / "segbench").mkdir()
    if request.param == "a package":
        (tmp_path / "segbench" / "__init__.py").write_text("raise RuntimeError('the wrong segbench')\n")
        (tmp_path / "yaml.py").write_text("raise RuntimeError('the wrong yaml')\n")
    return tmp_path


def test_a_launch_from_a_folder_that_holds_a_segbench_works(place: Place, beside: Path) -> None:
    launch = ("grid", "launch", "--dataset", DATA.name, "--method", "threshold", "--cpu", "--local-cpus", 1)
    seed = int((beside / "yaml.py").exists())
    done = console(place, beside, *launch, "--seed", seed, "--out", place.out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 done" in done.stdout
    assert query(ResultsFolder(place.out), "select seed, status from runs_latest where seed = ?", [seed]).rows() == [
        (seed, "done")
    ]


def test_check_and_a_job_run_by_hand_work_from_there_too(place: Place, beside: Path) -> None:
    checked = console(place, beside, "methods", "check", "threshold", "--cpu", "--format", "json")
    assert [row["ok"] for row in json.loads(checked.stdout)] == ["ok"], checked.stderr
    job = next(place.out.glob("runs/*/attempt-001/job.json"))
    again = console(place, beside, "methods", "run", job, "--cpu")
    assert again.returncode == 0, again.stderr


@pytest.fixture
def installed(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Put the distributions on this process' path."""
    for folder in place.path:
        monkeypatch.syspath_prepend(str(folder))
    cards.forget()
    yield place
    cards.forget()
    for name in ("segbench_plugin", "bang", "wrong"):
        sys.modules.pop(name, None)


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.usefixtures("installed")
def test_a_broken_method_is_listed_with_its_reason_and_distribution() -> None:
    rows = {row["method"]: row for row in json.loads(ask("methods", "list", "--format", "json").stdout)}
    assert (rows["threshold"]["state"], rows["threshold"]["distribution"]) == ("ready", "segbench-plugin")
    assert (rows["bang"]["state"], rows["bang"]["distribution"], rows["bang"]["reason"]) == ("broken", "broken", REASON)
    assert rows["wrong"]["state"] == "broken"
    assert rows["wrong"]["reason"].startswith("method 'wrong' of distribution broken: unknown environment 'no-such'")
    assert f"broken: {REASON}" in ask("methods", "list").stdout
    assert "bang" not in ask("methods", "list", "--implemented", "--format", "csv").stdout


@pytest.mark.parametrize(
    "command",
    [
        "methods show threshold",
        "methods show wrong",
        "methods show stardist --format json",
        "methods install watershed threshold --cpu",
        "methods check watershed --cpu",
        "data list",
        "grid plan --dataset elsewhere --method threshold {out}",
        "grid plan --preset paper {out}",
        "grid launch --dataset elsewhere --method threshold --seed 0 --cpu {out}",
        "grid status {out}",
        "runs list {out}",
        "sql select+method,ap50+from+leaderboard {out}",
        "report {out}",
        "analyze ranking {out}",
        "analyze usability {out}",
        "analyze runtime {out}",
        "analyze usability --store published",
        "store check {out}",
    ],
)
def test_a_broken_method_stops_no_command_of_the_others(installed: Place, command: str) -> None:
    words = [word.replace("+", " ") for word in command.replace("{out}", f"--out {installed.out}").split()]
    result = ask(*words)
    assert result.exit_code == 0, result.output
    assert "bang" not in result.output


@pytest.mark.parametrize(
    "command",
    [
        "methods show bang",
        "methods check bang",
        "methods install bang",
        "grid plan --method bang",
        "grid plan --dataset elsewhere --method bang",
        "grid launch --dataset elsewhere --method bang",
    ],
)
@pytest.mark.usefixtures("installed")
def test_naming_it_gives_its_reason(command: str, tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "none")] if command.startswith("grid") else []
    with pytest.raises(SegbenchError) as error:
        ask(*command.split(), *where)
    assert str(error.value) == REASON


@pytest.mark.usefixtures("installed")
def test_a_method_without_data_is_told_which_option_is_missing() -> None:
    with pytest.raises(SegbenchError, match="say on which data threshold is to run: give --dataset, --task, --preset"):
        ask("grid", "plan", "--method", "threshold")
    assert ask("grid", "plan", "--method", "stardist").exit_code == 0
    with pytest.raises(SegbenchError, match="unknown method 'treshold'; did you mean threshold"):
        ask("grid", "plan", "--method", "treshold")
