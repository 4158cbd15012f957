"""Datasets are kept by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segbench.engine.data import (
    DatasetSpec,
    PreparationSettings,
    dataset_tasks,
    dataset_tissues,
    get_spec,
    register,
    registered,
)
from segbench.engine.data.registry import unregister
from segbench.engine.scheduler.catalogue import known_datasets
from segbench.engine.study.tissues import LIVECELL_TISSUES, TISSUENET_TISSUES
from segbench.errors import SegbenchError


def test_the_synthetic_datasets_need_no_registration(cache: Path) -> None:
    assert [spec.name for spec in registered()] == ["synthetic", "synthetic-livecell"]
    assert [task.name for task in dataset_tasks(get_spec("synthetic"))] == [
        "synthetic-nuclear-1ch", "synthetic-nuclear-2ch", "synthetic-wholecell-1ch", "synthetic-wholecell-2ch",
    ]  # fmt: skip
    assert dataset_tissues(get_spec("synthetic")) == TISSUENET_TISSUES
    assert dataset_tissues(get_spec("synthetic-livecell")) == LIVECELL_TISSUES
    assert not cache.exists()


def test_a_registered_dataset_is_found_again(cache: Path) -> None:  # noqa: ARG001
    spec = DatasetSpec("mine", "livecell", "/data/mine", {"pixel_size_um": 1.24}, PreparationSettings(edge="drop"))
    register(spec)
    assert get_spec("mine") == spec
    assert [found.name for found in registered()] == ["synthetic", "synthetic-livecell", "mine"]
    register(DatasetSpec("mine", "livecell", "/data/other"))
    assert get_spec("mine").source == "/data/other"


def test_the_studys_tissues_are_known_without_the_data(cache: Path) -> None:  # noqa: ARG001
    assert dataset_tissues(DatasetSpec("t", "tissuenet", "/nowhere")) == TISSUENET_TISSUES
    assert dataset_tissues(DatasetSpec("l", "livecell", "/nowhere")) == LIVECELL_TISSUES


def test_a_misspelt_dataset_is_answered_with_the_nearest(cache: Path) -> None:  # noqa: ARG001
    with pytest.raises(SegbenchError, match=r"unknown dataset 'syntetic'; did you mean synthetic"):
        get_spec("syntetic")


def test_built_in_names_are_kept_for_synthetic_data(cache: Path) -> None:
    with pytest.raises(SegbenchError, match="'synthetic' is kept for the built-in dataset"):
        register(DatasetSpec("synthetic", "folder", "/data/x"))
    assert not cache.exists()
    register(DatasetSpec("synthetic", "synthetic", None, {"layout": "tissuenet", "seed": 5}))
    assert get_spec("synthetic").options["seed"] == 5


def test_a_damaged_record_is_named_and_stops_no_other(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    (cache / "datasets").mkdir(parents=True)
    (cache / "datasets" / "bad.json").write_text("{")
    assert [spec.name for spec in registered()] == ["synthetic", "synthetic-livecell"]
    assert "bad.json is not a dataset's record" in caplog.text


def test_a_spec_survives_json() -> None:
    spec = DatasetSpec(
        "mine", "folder", "/data/mine", {"channels": ["a", "b"]}, PreparationSettings(percentiles=(1, 99))
    )
    assert DatasetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"name": "My Cells"}, "lower-case letters"),
        ({"name": "all"}, "lower-case letters"),
        ({"kind": "foldr"}, "unknown kind of dataset 'foldr'; did you mean folder"),
        ({"source": None}, "needs the path"),
        ({"source": "relative/path"}, "absolute path"),
        ({"kind": "synthetic"}, "takes no path"),
    ],
)
def test_a_wrong_spec_is_refused(values: dict[str, str], why: str) -> None:
    with pytest.raises(SegbenchError, match=why):
        DatasetSpec(**{"name": "a", "kind": "folder", "source": "/data", **values})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"window": 8}, "window must be"),
        ({"step": 300}, "step must be 1 to 256"),
        ({"edge": "shft"}, "did you mean shift"),
        ({"percentiles": (99, 1)}, "two rising numbers"),
        ({"clahe_clip": 2.0}, "clahe_clip"),
        ({"keep_empty": ("valid",)}, "unknown split 'valid'"),
        ({"windw": 256}, "unknown preparation setting 'windw'; did you mean window"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], why: str) -> None:
    with pytest.raises(SegbenchError, match=why):
        PreparationSettings.from_dict(values)


def test_a_dataset_whose_files_are_gone_is_told_blocks_nobody_and_can_be_removed(cache: Path, tmp_path: Path) -> None:
    register(DatasetSpec("gone", "folder", str(tmp_path / "gone")))
    known = known_datasets()
    assert "gone" in known.catalogue.absent
    assert known.catalogue.task("synthetic-nuclear-1ch").dataset == "synthetic"
    with pytest.raises(SegbenchError, match="segbench data remove gone"):
        known.catalogue.task("gone-cell-1ch")
    unregister("gone")
    assert "gone" not in [spec.name for spec in registered()]
    for name, words in (("gone", "unknown dataset"), ("synthetic", "built in"), ("../x", "unknown dataset")):
        with pytest.raises(SegbenchError, match=words):
            unregister(name)
    assert list((cache / "datasets").iterdir()) == []
