"""Empty sections say what would fill them for the data at hand, with a command that runs as it stands."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pytest
from report_samples import make_record
from typer.testing import CliRunner

from segbench.analysis.report import build_report
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.store import StoreWriter


def missing(out: Path, *records: Record, sections: tuple[str, ...]) -> dict[str, str]:
    """Return what the empty sections of a store with these records say."""
    StoreWriter(ResultsFolder(out)).add(list(records))
    page = build_report(ResultsFolder(out), sections=sections).html
    found = re.findall(r'<section id="([a-z]+)".*?</section>', page, re.S)
    texts = re.findall(r'<p class="note missing">(.*?)</p>', page, re.S)
    assert len(found) == len(texts) == len(sections)
    return dict(zip(found, map(html.unescape, texts), strict=True))


def of_a_folder(record: Record, dataset: str, channels: list[str], target: str) -> Record:
    """Return a record as a run on a user's own images leaves it."""
    task = f"{dataset}-{target}-{len(channels)}ch"
    attempt = record.attempt.model_copy(
        update={
            "dataset": dataset, "dataset_kind": "folder", "channels": channels, "n_channels": len(channels),
            "target": target, "task": task,
        }
    )  # fmt: skip
    own = [row.model_copy(update={"test_task": task}) for row in record.evaluations if row.operation == "none"]
    rows = [row.model_copy(update={"dataset": dataset, "target": target}) for row in record.tissues]
    return record.model_copy(update={"attempt": attempt, "evaluations": own[: len(own) // 2], "tissues": rows})


def test_images_of_one_channel_are_told_that_nothing_would_compare_channels(tmp_path: Path) -> None:
    record = of_a_folder(make_record("stardist", "StarDist", tissues=("Gut",)), "mine", ["image"], "cell")
    sections = ("channels", "modality", "dilation", "transfer")
    told = missing(tmp_path / "r", record, sections=sections)
    for text in told.values():
        assert "mine" in text
        assert "preset" not in text
        assert "<code>" not in text, "no command brings another channel, target or tissue"
    assert "the channel image" in told["channels"]
    assert "one tissue, Gut" in told["transfer"]


def test_several_tissues_of_ones_own_images_are_trained_on_by_their_names(tmp_path: Path) -> None:
    ran = make_record("stardist", "StarDist", tissues=("Gut", "Skin graft"), epochs=10)
    record = of_a_folder(ran, "mine", ["image"], "cell")
    text = missing(tmp_path / "my results", record, sections=("transfer",))["transfer"]
    command = re.search(r"<code>(.*?)</code>", text)
    assert command
    assert shlex.split(command[1]) == [
        *("segbench", "grid", "launch", "--dataset", "mine", "--method", "stardist", "--task", "mine-cell-1ch"),
        *("--tissue", "all", "--tissue", "Gut", "--tissue", "Skin graft"),
        *("--budget-scale", "0.1", "--out", str(tmp_path / "my results")),
    ]


@pytest.mark.slow
def test_every_command_for_synthetic_data_plans_runs(tmp_path: Path) -> None:
    from segbench.cli.app import app

    record = make_record("stardist", "StarDist", "synthetic-nuclear-2ch")
    told = missing(tmp_path / "r", record, sections=("channels", "modality", "dilation", "transfer"))
    commands = {command for text in told.values() for command in re.findall(r"<code>(.*?)</code>", text)}
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["segbench", "grid", "launch"]
        result = CliRunner().invoke(app, ["grid", "plan", *words[3:], "--format", "csv"])
        assert result.exit_code == 0, result.output
        assert "stardist" in result.output
