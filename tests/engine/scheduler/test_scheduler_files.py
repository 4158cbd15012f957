"""The cluster file and the cluster page: valid where Ray, YAML and the shell can tell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]


def cluster_file() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return content


def test_ray_takes_the_cluster_file() -> None:
    validate_config(prepare_config(cluster_file()))
    with pytest.raises(ValidationError):
        validate_config(prepare_config({**cluster_file(), "idle_timeout": 5}))


def test_the_cluster_has_a_head_without_runs_and_spot_workers_with_four_and_eight_gpus() -> None:
    kinds = cluster_file()["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    workers = {name: kind for name, kind in kinds.items() if name != "head"}
    assert {kind["resources"]["GPU"] for kind in workers.values()} == {4, 8}
    spot = [kind for kind in workers.values() if "InstanceMarketOptions" in kind["node_config"]]
    assert {kind["resources"]["GPU"] for kind in spot} == {4, 8}
    assert {kind["labels"]["segbench.io/market"] for kind in spot} == {"spot"}
    assert sum(kind["max_workers"] * kind["resources"]["GPU"] for kind in workers.values()) >= 450
    assert all(kind["min_workers"] == 0 for kind in workers.values())


def test_every_command_of_the_cluster_file_and_the_slurm_script_are_shell() -> None:
    content = cluster_file()
    commands = [command for key, value in content.items() if key.endswith("commands") for command in value]
    (script,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    for text in (*commands, script):
        told = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
        assert told.returncode == 0, (text, told.stderr)


def test_the_page_names_only_options_that_there_are_and_its_manifests_are_yaml() -> None:
    from typer.testing import CliRunner

    from segbench.cli.app import app

    page = (ROOT / "docs" / "cluster.md").read_text()
    for manifest in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        assert isinstance(yaml.safe_load(manifest), dict)
    helped = {
        command: CliRunner().invoke(app, ["grid", command, "--help"], env={"COLUMNS": "200"}).stdout
        for command in ("launch", "plan", "status", "logs", "retry", "cancel")
    }
    named = re.findall(r"segbench grid (\w+)([^\n`]*)", page)
    assert {command for command, _ in named} == set(helped)
    for command, rest in named:
        for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest):
            assert option in helped[command], (command, option)
