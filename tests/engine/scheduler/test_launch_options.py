"""The options of a launch: checked, saved whole, and taken over by a retry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from segbench.cli.app import app
from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.scheduler import Event, GridRequest, LaunchOptions, Note, Retries, last_options, launch
from segbench.errors import SegbenchError

TINY = DatasetSpec("kept", "synthetic", None, {"layout": "livecell", "seed": 8, "scale": 0.01})
RAY = {"num_cpus": 2, "labels": {"zone": "a"}}


def unlike_the_defaults(folder: Path) -> LaunchOptions:
    """Return options of which none is the default; a new one must be added here."""
    config = folder / "cluster.yaml"
    config.write_text(json.dumps({"available_node_types": {"big": {"resources": {"CPU": 64}, "max_workers": 0}}}))
    options = LaunchOptions(
        executor="inline",
        address="the one that is connected",
        cpu=True,
        num_cpus=2,
        timeout_s=300.0,
        checkpoint_every_s=7.0,
        fit=True,
        accelerator="A100",
        labels={"zone": "a"},
        cluster_file=config,
        retries=Retries(failed=1, lost=2, first_wait_s=0.1, longest_wait_s=3.0),
    )
    for given, default in ((options, LaunchOptions()), (options.retries, Retries())):
        for name in type(given).model_fields:
            assert getattr(given, name) != getattr(default, name), f"{name} is its default"
    return options


def test_what_is_saved_is_loaded_whole(tmp_path: Path) -> None:
    options = unlike_the_defaults(tmp_path)
    saved = json.loads(json.dumps(options.saved()))
    assert set(saved) == set(LaunchOptions.model_fields)
    assert LaunchOptions.from_saved(saved) == (options, ())


@pytest.mark.parametrize("executor", ["ray", "inline"])
@pytest.mark.usefixtures("plugin", "local_ray")
def test_a_retry_is_run_with_every_option_of_its_launch(tmp_path: Path, executor: str) -> None:
    register(TINY)
    options = unlike_the_defaults(tmp_path).changed(executor=executor)
    grid = {"methods": ["threshold"], "tasks": ["kept-wholecell"], "tissues": ["BV2"]}
    path, out = tmp_path / "grid.yaml", tmp_path / "out"
    path.write_text(json.dumps({**grid, "settings": {"threshold": {"fail": "raise"}}}))
    launch(GridRequest(grid_file=path), ResultsFolder(out), options)
    assert last_options(ResultsFolder(out)) == options

    def retry(*words: str) -> LaunchOptions:
        result = CliRunner().invoke(app, ["grid", "retry", "--out", str(out), *words])
        assert "1 failed" in result.stdout, result.output
        return last_options(ResultsFolder(out))

    assert retry() == options
    # tried twice each time, as --retries of the launch says
    assert query(ResultsFolder(out), "select count(*) from attempts where status = 'failed'").item() == 4
    changed = retry("--timeout", "200", "--retries", "0", "--without", "checkpoint-every")
    assert changed.timeout_s == 200.0
    assert changed.retries == Retries(failed=0, lost=2, first_wait_s=0.1, longest_wait_s=3.0)
    assert changed.checkpoint_every_s == LaunchOptions().checkpoint_every_s
    assert changed == options.changed(
        timeout_s=200.0, retries=changed.retries, checkpoint_every_s=changed.checkpoint_every_s
    )


def test_a_launch_of_another_release_gives_what_both_know(tmp_path: Path) -> None:
    assert last_options(ResultsFolder(tmp_path)) == LaunchOptions()
    older = {"pid": 1, "address": "auto", "cpu": True, "timeout_s": None, "labels": {"a": "b"}, "runs": []}
    ResultsFolder(tmp_path).launch.grid.write_text(json.dumps(older))
    assert last_options(ResultsFolder(tmp_path)) == LaunchOptions(address="auto", cpu=True, labels={"a": "b"})

    newer = {**LaunchOptions(cpu=True).saved(), "priority": 3, "retries": {"failed": 2, "budget": 9}}
    ResultsFolder(tmp_path).launch.grid.write_text(json.dumps({"options": newer, "runs": []}))
    told: list[Event] = []
    assert last_options(ResultsFolder(tmp_path), told.append) == LaunchOptions(cpu=True, retries=Retries(failed=2))
    (note,) = told
    assert isinstance(note, Note)
    assert "priority, retries.budget" in note.text
    assert ResultsFolder(tmp_path).launch.read_grid()["options"] == newer


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"timeout_s": 0}, "timeout_s"),
        ({"num_cpus": 0}, "num_cpus"),
        ({"retries": {"failed": -1}}, "retries.failed"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"executor": "slurm"}, "'ray' or 'inline'"),
        ({"time_out": 3}, "time_out"),
    ],
)
def test_a_wrong_option_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SegbenchError, match=words) as told:
        LaunchOptions.of(**given)
    assert "\n" not in str(told.value)
