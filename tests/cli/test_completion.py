"""What shells complete: commands, options and values, by their own protocols, in less time than a key press."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.analysis.registry import ANALYSES
from segbench.cli._completion import candidates, complete, the_index
from segbench.cli._lazy import COMMANDS, every_command

COMMAND = [sys.executable, "-c", "from segbench.cli.app import main; main()"]
Ask = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that has the list of commands, as it is after a shell's first question."""
    folder = tmp_path_factory.mktemp("completion")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGBENCH_CACHE", str(folder))
        the_index()
    return folder


@pytest.fixture
def ask(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return a function that asks as bash does, and gives what it would offer."""
    monkeypatch.setenv("SEGBENCH_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)

    def asked(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        assert complete("complete_bash")
        return capsys.readouterr().out.split()

    return asked


def test_every_command_and_option_is_offered(ask: Ask) -> None:
    assert ask("segbench ") == list(COMMANDS)
    assert ask("segbench gr") == ["grid"]
    for words, command in every_command():
        before = " ".join(("segbench", *words[:-1], words[-1][:-1]))
        assert words[-1] in ask(before)
        offered = ask(" ".join(("segbench", *words, "--")))
        for param in command.params:
            assert {flag for flag in param.opts if flag.startswith("--")} <= set(offered), words


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("segbench grid plan --preset ", {"demo", "paper", "full"}),
        ("segbench grid plan --preset pa", {"paper"}),
        ("segbench grid launch -m star", {"stardist"}),
        ("segbench grid plan --preset demo --task synthetic-nuclear-1", {"synthetic-nuclear-1ch"}),
        ("segbench grid plan --tissue Pan", {"Pancreas"}),
        ("segbench grid plan --dataset syn", {"synthetic", "synthetic-livecell"}),
        ("segbench data show synthetic-", {"synthetic-livecell"}),
        ("segbench methods show cellp", {"cellpose"}),
        ("segbench methods check stardist cellp", {"cellpose"}),
        ("segbench analyze ran", {"ranking"}),
        ("segbench analyze ranking --part ", set(ANALYSES["ranking"].parts)),
        ("segbench analyze training-data Bre", {"Breast"}),
        ("segbench plot accu", {"accuracy"}),
        ("segbench report --sections rank", {"ranking"}),
        ("segbench data import geo", {"geojson"}),
        ("segbench data list --format ", {"table", "csv", "json"}),
        ("segbench grid retry --status time", {"timeout"}),
        ("segbench help wind", {"window"}),
        ("segbench runs show 0a", {"0a1b2c3d4e5f"}),
        ("segbench grid logs 9", {"9f0000000000"}),
        ("segbench runs show --out elsewhere ", set()),
        ("segbench models apply ", {"0a1b2c3d4e5f", "9f0000000000", "nuclei"}),
        ("segbench models apply 0a1b2c3d4e5f nuc", {"nuclei"}),
        ("segbench data prepare folder ", set()),
        ("segbench nothing ", set()),
    ],
)
def test_values_are_offered(line: str, offered: set[str], ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / "segbench-results"
    (out / "runs/0a1b2c3d4e5f").mkdir(parents=True)
    (out / "models/nuclei").mkdir(parents=True)
    run = {"run_id": "9f0000000000", "method": "stardist", "task": "t", "train_tissue": "all"}
    (out / "grid.json").write_text(json.dumps({"runs": [run]}))
    assert set(ask(line)) == offered


def test_an_option_is_offered_once_unless_it_can_be_repeated(ask: Ask) -> None:
    offered = ask("segbench grid plan --preset demo --method stardist --")
    assert "--preset" not in offered
    assert "--method" in offered


def test_zsh_and_fish_are_told_what_each_value_means(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(cache))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "segbench grid plan --preset pa")
    assert complete("complete_zsh")
    assert capsys.readouterr().out == '_arguments \'*: :(("paper":"the published 138 runs"))\'\n'
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert complete("complete_fish")
    assert capsys.readouterr().out == "paper\tthe published 138 runs\n"
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "is-args")
    with pytest.raises(SystemExit) as end:
        complete("complete_fish")
    assert end.value.code == 0
    assert not complete("source_bash")


def test_a_quote_that_is_open_is_no_error(ask: Ask) -> None:
    assert ask('segbench grid plan "--pre') == ["--preset"]


def test_what_a_shell_asks_loads_nothing_that_takes_long(cache: Path) -> None:
    probe = "import sys; from segbench.cli.app import main; main(); print(*sys.modules, file=sys.stderr)"
    variables = {**os.environ, "SEGBENCH_CACHE": str(cache), "_SEGBENCH_COMPLETE": "complete_bash"}
    for line in ("segbench grid plan --preset ", "segbench runs show ", "segbench grid plan --task "):
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        for _ in range(2):  # what depends on data is kept at the first
            told = subprocess.run(
                [sys.executable, "-c", probe], env=variables | asked, capture_output=True, text=True, check=True
            )
        loaded = {name.partition(".")[0] for name in told.stderr.split()}
        assert not loaded & {"typer", "rich", "pydantic", "numpy", "polars", "duckdb", "ray", "yaml"}, line


def test_the_real_command_answers_the_shell(cache: Path) -> None:
    words = {"COMP_WORDS": "segbench grid pl", "COMP_CWORD": "2", "_SEGBENCH_COMPLETE": "complete_bash"}
    variables = {**os.environ, "SEGBENCH_CACHE": str(cache), **words}
    told = subprocess.run(COMMAND, env=variables, capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == ("plan\n", "")


def test_an_index_that_is_damaged_or_old_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("COMP_WORDS", "segbench grid pl")
    monkeypatch.setenv("COMP_CWORD", "2")
    for damage in ('{"stamp"', '{"stamp": "old", "commands": {}}', "[]"):
        (tmp_path / "completion.json").write_text(damage)
        assert complete("complete_bash")
        assert capsys.readouterr().out == "plan\n"
    assert json.loads((tmp_path / "completion.json").read_text())["commands"]


def test_without_a_cache_that_can_be_written_it_answers_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "file"))
    assert candidates(["grid"], "pl", the_index())[0][0] == "plan"
