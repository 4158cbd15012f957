"""Segment Anything predicts through upstream's generator, and says what is missing where there are no weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.errors import SegbenchError
from segbench.methods import Arrays, Budget, Devices, Job, PredictionSet, Task
from segbench.methods.mask_encoding import encode
from segbench.methods.predictions import run_lengths
from segbench.methods.segment_anything import WEIGHTS, chosen, find_weights, from_runs, paint, picture

SMALL = {"image_size": 128, "embed_dim": 32, "depth": 2, "num_heads": 2}


def mask(*rows: str) -> np.ndarray[Any, Any]:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def test_runs_lead_back_to_their_mask() -> None:
    drawn = np.random.default_rng(0).random((7, 5)) < 0.4
    assert np.array_equal(from_runs(run_lengths(drawn), drawn.shape), drawn)
    assert run_lengths(np.ones((2, 2), bool)).tolist() == [0, 4]


def test_run_lengths_of_many_masks_are_those_of_each() -> None:
    drawn = np.random.default_rng(1).random((30, 5, 9)) < 0.4
    drawn[3], drawn[4] = False, True
    for masks in (drawn, drawn[::2, ::-1, 1:], drawn[:0]):
        assert [runs.tolist() for runs in encode(masks)] == [run_lengths(each).tolist() for each in masks]
    assert all(runs.dtype == np.uint32 for runs in encode(drawn))


def test_of_a_mask_that_overlaps_little_only_the_free_part_is_added() -> None:
    large, small = mask("####..", "####.."), mask("...##.", "......")
    assert paint([small, large], 0.7).tolist() == [[2, 2, 2, 2, 1, 0], [2, 2, 2, 2, 0, 0]]


def test_a_mask_that_lies_in_another_overwrites_it() -> None:
    large, inside = mask("####..", "####.."), mask(".##...", "......")
    assert paint([large, inside], 0.7).tolist() == [[1, 2, 2, 1, 0, 0], [1, 1, 1, 1, 0, 0]]


def test_large_masks_are_dropped_and_scores_stay_with_their_masks() -> None:
    drawn = [mask("######", "######"), mask("##....", "##...."), mask("#.....", "......"), mask("....##", "......")]
    records = [
        {
            "segmentation": {"size": [2, 6], "counts": run_lengths(each).tolist()}, "area": int(each.sum()),
            "predicted_iou": 0.9, "stability_score": (n + 1) / 10,
        }
        for n, each in enumerate(drawn)
    ]  # fmt: skip
    found = chosen(records, {"max_area": 12, "overwrite_overlap": 0.7})
    assert found.scores == pytest.approx([0.18, 0.27, 0.36])
    assert [from_runs(counts, (2, 6)).sum() for counts in found.counts] == [3, 1, 2]
    overlapping = chosen(records, {"max_area": 0, "overwrite_overlap": 0})
    assert [from_runs(counts, (2, 6)).sum() for counts in overlapping.counts] == [12, 4, 1, 2]
    assert chosen([], {"max_area": 12, "overwrite_overlap": 0.7}).counts == []


def test_pictures_have_the_studys_channels() -> None:
    window = np.stack([np.full((2, 2), 0.2), np.full((2, 2), 0.6)]).astype(np.float32)
    assert picture(window, ("nuclear", "membrane"))[0, 0].tolist() == [153, 51, 0]
    assert picture(window[:1], ("phase",))[0, 0].tolist() == [51, 51, 51]
    with pytest.raises(SegbenchError, match="1 to 3 channels, found 4"):
        picture(np.zeros((4, 2, 2), np.float32), tuple("abcd"))


def test_missing_weights_are_named_with_their_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path))
    place = tmp_path / "pretrained" / "sam_vit_b_01ec64.pth"
    with pytest.raises(
        SegbenchError, match=r"weights fetch sam-vit-b', .* download https://dl\.fbaipublicfiles\.com/\S+ "
    ) as told:
        find_weights("vit_b", "")
    assert "\n" not in str(told.value)
    place.parent.mkdir()
    place.write_bytes(b"something else")
    with pytest.raises(SegbenchError, match="is not the published file"):
        find_weights("vit_b", "")
    real = dataclasses.replace(WEIGHTS["vit_b"], sha256=hashlib.sha256(b"something else").hexdigest())
    monkeypatch.setitem(WEIGHTS, "vit_b", real)  # type: ignore[arg-type]
    assert find_weights("vit_b", "") == place
    with pytest.raises(SegbenchError, match=r"setting checkpoint is 'nowhere\.pth', which is no file"):
        find_weights("vit_b", "nowhere.pth")


SAVE_A_SMALL_MODEL_AND_PREDICT = """
import sys, torch
from pathlib import Path
from segbench.methods.runner import main
from segbench.methods.segment_anything import build_small, runs_of_masks
from segment_anything.utils.amg import mask_to_rle_pytorch
architecture, weights, *jobs = sys.argv[1:]
torch.manual_seed(0)
masks = torch.rand(20, 9, 7) < 0.3
assert runs_of_masks(masks) == mask_to_rle_pytorch(masks)
torch.save(build_small(Path(architecture)).state_dict(), weights)
for job in jobs:
    main([job])
"""


def job_of(folder: Path, name: str, **changed: Any) -> Path:
    """Write a job on three drawn windows for a model of random weights, which takes any thresholds to see its masks."""
    images, _ = draw_discs(3, 64, 2)
    np.save(folder / "x.npy", images)
    loose = {"points_per_side": 6, "pred_iou_thresh": -1e9, "stability_score_thresh": -1.0, "max_area": 4000}
    settings = {**get_card("segment-anything").defaults, **loose, **changed}
    job = Job(
        run_id="segment-anything", method=method_object("segment-anything"), budget=Budget(batch_size=1), seed=0,
        task=Task("t", "d", ("nuclear", "membrane"), "nuclear"), output=str(folder / name), settings=settings,
        predict={"test": Arrays(str(folder / "x.npy"), (0, 1))}, devices=Devices(num_cpus=1),
    )  # fmt: skip
    job.write(folder / f"{name}.json")
    return folder / f"{name}.json"


def result_of(job: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((job.with_suffix("") / "result.json").read_text())
    return result


@pytest.mark.heavy
def test_it_predicts_through_a_checkpoint_alike_alone_and_together(tmp_path: Path) -> None:
    architecture, weights = tmp_path / "small.json", tmp_path / "small.pth"
    architecture.write_text(json.dumps(SMALL))
    small = {"model": str(architecture), "checkpoint": str(weights)}
    jobs = {
        "together": job_of(tmp_path, "together", **small, windows_together=2),
        "alone": job_of(tmp_path, "alone", **small, windows_together=1),
        "wrong": job_of(tmp_path, "wrong", **{**small, "model": "vit_b"}),
    }
    environment = environments.ensure("torch", gpu=False)
    command = [str(environment.python), "-c", SAVE_A_SMALL_MODEL_AND_PREDICT, str(architecture), str(weights)]
    # one process for all of them: the library takes longer to import than to run
    subprocess.run([*command, *map(str, jobs.values())], env=environments.subprocess_env(environment), check=True)
    result = result_of(jobs["together"])
    assert result["error"] is None
    assert result["timings"]["train"] is None
    assert result["n_parameters"] > 4e6
    together, alone = (PredictionSet(tmp_path / name / "predictions" / "test") for name in ("together", "alone"))
    assert len(together) == 3
    assert together.scores.size > 0
    assert np.array_equal(together.offsets, alone.offsets)
    assert np.allclose(together.scores, alone.scores, atol=1e-4)
    assert "does not hold the weights of vit_b" in result_of(jobs["wrong"])["error"]
