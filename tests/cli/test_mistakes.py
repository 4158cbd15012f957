"""What is typed wrongly is told in one line, with the nearest right word; one letter means one thing everywhere."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from segbench.cli._lazy import COMMANDS, every_command
from segbench.cli.app import main
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.status import find_log
from segbench.errors import SegbenchError, near_names

Refused = Callable[[Sequence[str]], str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that gives the one line in which a command refuses to work, and leaves nothing behind."""
    monkeypatch.chdir(tmp_path)

    def asked(arguments: Sequence[str]) -> str:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["segbench", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        assert end.value.code == 2, told.err
        assert told.out == ""
        assert told.err.startswith("error: ")
        assert len(told.err.splitlines()) == 1
        assert sorted(tmp_path.rglob("*")) == before
        return told.err.strip()

    return asked


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["grd"], "did you mean grid?"),
        (["grid", "lanch"], "did you mean launch?"),
        (["grid", "plan", "--prest", "demo"], "did you mean --preset?"),
        (["data", "import", "geojosn", "x", "--to", "y"], "KIND: unknown 'geojosn'; did you mean geojson?"),
        (["data", "list", "--format", "jsn"], "--format: unknown 'jsn'; did you mean json?"),
        (["data", "import"], "KIND is missing: one of coco, geojson"),
        (["evaluate", "truth"], "PREDICTIONS is missing (see 'segbench evaluate --help')"),
        (["grid", "plan", "--epochs", "many"], "--epochs: must be a whole number"),
        (["grid", "plan", "--batch-size", "0"], "--batch-size: must be at least 1"),
        (["grid", "plan", "-o", "x"], "the results folder is --out"),
        (["help", "windov"], "did you mean window?"),
    ],
)
def test_a_slip_is_told_in_one_line_with_what_was_meant(arguments: list[str], words: str, refused: Refused) -> None:
    told = refused(arguments)
    assert words in told
    assert "Value error" not in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: [cellpose]\ntasks: [a]\n", "unknown field 'method'; did you mean methods?"),
        ("methods: [cellpose]\ntasks: [a]\nbudgts: {}\n", "unknown field 'budgts'; did you mean budgets or budget?"),
        ("blocks: [{methods: [cellpose], tasks: [a]}]\nseeds: [1]\n", "field seeds belongs into each of the blocks"),
        ("methods: cellpose\ntasks: [a]\n", "field methods must be a list, found 'cellpose': write [cellpose]"),
        ("methods: [cellpose]\ntasks: [a]\nevaluation: hole\n", "found 'hole'; did you mean whole?"),
        ("methods: [celpose]\ntasks: [a]\n", "methods: unknown method 'celpose'; did you mean cellpose?"),
        ("methods: [cellpose]\ntasks: [synthetic-nuclear-1h]\n", "tasks: unknown task 'synthetic-nuclear-1h'; did you"),
        ("methods: [cellpose]\ntasks: [a]\nbudgets: {cellpose: {epoch: 3}}\n", "of budgets.cellpose 'epoch'; did you"),
        ("methods: [cellpose]\ntasks: [a]\nsettings: {cellpose: {cropp: 3}}\n", "'cropp'; did you mean crop?"),
        ("methods: [cellpose]\ntasks: [a]\nresources: {cellpose: {gpus: 3}}\n", "did you mean num_gpus?"),
    ],
)
def test_an_error_of_a_grid_file_names_the_users_own_key(
    text: str, words: str, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    told = refused(["grid", "plan", "--grid", "mine.yaml"])
    assert told.startswith("error: mine.yaml: ")
    assert words in told


def test_names_that_are_not_near_are_not_asked_after() -> None:
    assert near_names("synthetic-tissuenet", ["synthetic-livecell"]) == []
    assert near_names("nope", ["train", "val", "test"]) == []
    assert near_names("launhc", ["launch", "plan", "cancel"]) == ["launch"]
    assert near_names("Cellpsoe", ["cellpose", "stardist"]) == ["cellpose"]


def test_one_letter_means_one_thing() -> None:
    meanings: dict[str, set[str]] = defaultdict(set)
    for _, command in every_command():
        for param in command.params:
            letters = [one for one in param.opts if one.startswith("-") and not one.startswith("--")]
            meanings.update({one: meanings[one] | {max(param.opts, key=len)} for one in letters})
    assert {"-f", "-o", "-m"} <= set(meanings)
    assert {letter: names for letter, names in meanings.items() if len(names) > 1} == {}


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    for words, command in every_command():
        if len(words) == 1:
            first = " ".join(str(command.help).split("\n\n")[0].split())
            assert first.startswith(COMMANDS[words[0]].rstrip(".").partition(":")[0][:30]), words


def test_the_log_of_a_run_that_waits_is_told_to_come(tmp_path: Path) -> None:
    out = ResultsFolder(tmp_path)
    out.launch.write_grid([{"run_id": "abc123456789"}, {"run_id": "abd123456789"}], {})
    with pytest.raises(SegbenchError, match="never begun"):
        find_log(out, "abc")
    with pytest.raises(SegbenchError, match="give more of the id"):
        find_log(out, "ab")
    with pytest.raises(SegbenchError, match="unknown run 'x'"):
        find_log(out, "x")
    with out.launch.hold(), pytest.raises(SegbenchError, match="is queued: it has no log before it begins"):
        find_log(out, "abc1")


@pytest.mark.parametrize("out", ["afile", "afile/below", "a" * 300])
def test_a_results_folder_that_cannot_be_is_told_before_data_are_prepared(
    out: str, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "afile").touch()
    assert "cannot write results to" in refused(["grid", "launch", "--out", out])
