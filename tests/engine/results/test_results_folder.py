"""The results folder: every path has one home, small files are whole or old, and what is a mirror is known."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import segbench
from segbench.engine.results.folder import ResultsFolder, is_url
from segbench.engine.results.record import Record
from segbench.engine.results.statuses import ENDED, Status
from segbench.errors import SegbenchError
from segbench.paths import cache_folder
from segbench.small_files import read_json, write_whole

MakeRecord = Callable[..., Record]

PACKAGE = Path(segbench.__file__).parent
# words.py explains the names to users
HOMES = ("engine/results/", "methods/folder.py", "methods/stages.py", "words.py")
NAMES = re.compile(
    r"job\.json|record\.json|result\.json|log\.txt|progress\.jsonl|grid\.json|driver\.json|\.driver\.lock|\.cancel$"
    r"|results\.duckdb|report\.html(?!\.j2)|examples\.(npz|json)|attempt-|^runs/|/runs/|remote\.json|\.unpushed"
)
JOINED = {"runs", "predictions", "model"}


def path_strings(path: Path) -> list[str]:
    """Return the strings of a module, but for docstrings, that name something in a results folder."""
    tree = ast.parse(path.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    joined = {
        id(side)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        for side in (node.left, node.right)
    }
    return [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in told
        and (NAMES.search(node.value) or (id(node) in joined and node.value in JOINED))
    ]


def test_no_module_but_the_results_own_spells_what_lies_in_a_results_folder() -> None:
    modules = list(PACKAGE.rglob("*.py"))
    homes = [path for path in modules if path.relative_to(PACKAGE).as_posix().startswith(HOMES)]
    assert sum(len(path_strings(path)) for path in homes) > 10
    assert [found for path in modules if path not in homes for found in path_strings(path)] == []
    sources = [*PACKAGE.rglob("*.sql"), *PACKAGE.rglob("*.js"), *PACKAGE.rglob("*.j2")]
    assert [path for path in sources if NAMES.search(path.read_text())] == []


def test_an_attempts_folder_is_named_as_the_store_has_it(tmp_path: Path, make_record: MakeRecord) -> None:
    out = ResultsFolder(tmp_path)
    record = make_record(attempt=12)
    attempt = out.attempt("aaaaaaaaaaaa", 12)
    assert attempt.relative == record.attempt.folder
    assert out.attempt_at(record.attempt.folder) == attempt
    assert [attempt.has_record(), out.has_runs(), out.run_ids()] == [False, False, []]
    attempt.make().write_record(record)
    assert attempt.read_record() == record
    assert list(out.recorded()) == out.attempts("aaaaaaaaaaaa") == [attempt]
    assert out.next_attempt("aaaaaaaaaaaa").number == attempt.next.number == 13
    assert out.next_attempt("b" * 12).number == 1
    assert out.find_attempt("aaa") == attempt


def test_folders_that_are_no_attempts_are_not_taken_for_some(tmp_path: Path) -> None:
    out = ResultsFolder(tmp_path)
    attempt = out.attempt("a", 2).make()
    for name in ("checkpoint-batch-4", ".merge-attempt-003", "attempt-x", "attempt-"):
        (attempt.run_path / name).mkdir()
    assert out.attempts("a") == [attempt]
    for relative in ("runs/../attempt-001", "runs/a/../../x", "/etc/attempt-001", "runs/a/attempt-0", "runs/a", ""):
        with pytest.raises(ValueError, match="no attempt's folder"):
            out.attempt_at(relative)
    (tmp_path / "runs" / "b").symlink_to(tmp_path.parent)
    with pytest.raises(ValueError, match="no attempt's folder"):
        out.attempt_at("runs/b/attempt-001")


@pytest.mark.parametrize("content", ["new", b"new", ["n", "ew"]])
def test_a_file_is_new_or_old_and_never_in_between(
    tmp_path: Path, content: str | bytes | list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def full(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, content)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="full"):
            write_whole(path, content, sync=True)
    assert path.read_text() == "old"
    write_whole(path, content)
    assert path.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_no_one_could_read_is_read_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    assert read_json(path) == {}
    whole = json.dumps({"a": [1, "ä"]})
    for content in (whole[:-2], "", "[1]", "3", "null", "\x00", "[" * 100_000):
        path.write_text(content)
        assert read_json(path) == {}
    path.write_bytes(bytes(range(256)))
    assert read_json(path) == {}
    assert read_json(tmp_path) == {}
    path.write_text(whole)
    assert read_json(path) == {"a": [1, "ä"]}


def test_small_files_of_a_launch_that_were_cut_off_are_as_if_there_were_none(tmp_path: Path) -> None:
    launch = ResultsFolder(tmp_path).launch
    launch.write_grid([{"run_id": "a"}, {"run_id": "b"}], {"options": {"cpu": True}})
    assert [run["run_id"] for run in launch.read_grid()["runs"]] == ["a", "b"]
    assert launch.read_grid()["options"] == {"cpu": True}
    launch.write_grid([], {})
    assert launch.read_grid()["runs"] == []
    launch.write_state({"waiting": 1})
    for path in (launch.grid, launch.state):
        path.write_bytes(path.read_bytes()[:-3])
    assert (launch.read_grid(), launch.read_state()) == ({}, {})
    assert not launch.take_request_to_end()
    launch.ask_to_end()
    assert [launch.take_request_to_end(), launch.take_request_to_end()] == [True, False]


def test_a_folder_that_is_not_there_is_held_by_no_one_and_is_not_made(tmp_path: Path) -> None:
    out = ResultsFolder(tmp_path / "no")
    assert not out.launch.is_held()
    assert not out.path.exists()
    (tmp_path / "file").touch()
    with pytest.raises(SegbenchError, match="cannot write results to"):
        ResultsFolder(tmp_path / "file" / "below").make()


def test_what_is_a_mirror_is_known_from_how_it_was_named(tmp_path: Path) -> None:
    assert is_url("s3://bucket/a")
    assert not is_url(tmp_path)
    mirror = ResultsFolder.open("s3://bucket/a/")
    assert mirror == ResultsFolder.open("s3://bucket/a") != ResultsFolder.open("s3://bucket/b")
    assert (mirror.url, str(mirror), mirror.name) == ("s3://bucket/a", "s3://bucket/a", "a")
    assert mirror.path.is_relative_to(cache_folder())
    # who names the mirror's own path means the URL: what is launched there must get there
    assert ResultsFolder.open(mirror.path) == mirror
    assert ResultsFolder.open(mirror) is mirror
    local = ResultsFolder.open(tmp_path)
    assert (local.url, str(local)) == (None, str(tmp_path))
    # a file inside decides nothing: a copy of a mirror is a folder like any other
    ResultsFolder(tmp_path, "s3://bucket/a").note_snapshot("1")
    assert ResultsFolder.open(tmp_path).url is None
    # and it travels with what is handed on, to other processes too
    there: ResultsFolder = pickle.loads(pickle.dumps(mirror.absolute()))
    assert [there.attempt("a", 1).url, there.attempt("a", 1).next.url] == ["s3://bucket/a"] * 2
    assert local.attempt("a", 1).url is None


def test_one_vocabulary_says_where_runs_stand_and_the_store_takes_the_ends_alone(make_record: MakeRecord) -> None:
    assert [status.value for status in ENDED] == [
        "done",
        "failed",
        "timeout",
        "out-of-memory",
        "diverged",
        "cancelled",
        "lost",
    ]
    going = [status for status in Status if not status.ended]
    assert [status.value for status in going] == ["to do", "queued", "running", "interrupted"]
    for status in going:
        with pytest.raises(ValueError, match="an attempt ends as one of done, failed"):
            make_record(status=status)
