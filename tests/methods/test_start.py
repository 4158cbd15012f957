"""Trainings start from released weights or a file; with no epochs such a model is applied as it is."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.engine.grid import BudgetChange, expand, grid_of
from segbench.engine.grid.cards import get_card
from segbench.engine.grid.starts import missing_weights, start_settings
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.engine.scheduler.catalogue import known_datasets
from segbench.errors import SegbenchError
from segbench.methods import weights
from segbench.methods.card import Budget
from segbench.methods.cellpose.start import read_size, released_planes
from segbench.methods.folder import JobFolder
from segbench.methods.job import Arrays, Job, Task
from segbench.methods.predictions import PredictionSet
from segbench.methods.stardist_start import unpack

CATALOGUE = known_datasets().catalogue
SMALL = {
    "stardist": {"n_rays": 8, "patch_size": 32, "calibration_windows": 0},
    "cellpose": {"crop": 32, "min_train_masks": 0, "flow_threshold": 0.0, "diam_mean": 12.0},
}
RUN_ALL = "import sys; from segbench.methods.runner import main; sys.exit(max([main([job]) for job in sys.argv[1:]]))"


def grid(**given: Any) -> Any:
    return grid_of({"tasks": ["synthetic-nuclear-1ch"], **given}, "grid")


def test_the_words_stand_for_each_methods_own_setting() -> None:
    (run,) = expand(grid(methods=["cellpose"], start="generalist"), CATALOGUE)
    assert run.settings["start"] == "nuclei"
    assert start_settings(get_card("cellpose"), "generalist", "wholecell") == {"start": "cyto3"}
    assert start_settings(get_card("swin-s"), "published-backbone", "nuclear") == {"pretrained": "imagenet"}
    assert start_settings(get_card("stardist"), "mine.zip", "nuclear") == {"start": "mine.zip"}


def test_random_is_what_was_before_and_keeps_its_id() -> None:
    plain, random = (
        expand(grid(methods=["stardist"], **start), CATALOGUE)[0].id for start in ({}, {"start": "random"})
    )
    assert plain == random
    assert expand(grid(methods=["stardist"]), CATALOGUE, start="generalist")[0].id != plain


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (
            {"methods": ["mask-rcnn"], "start": "generalist"},
            "mask-rcnn cannot start from generalist; allowed: random, pub",
        ),
        ({"methods": ["mesmer"], "start": "published-backbone"}, "mesmer cannot start from published-backbone"),
        ({"methods": ["cellpose"], "budget": {"epochs": 0}}, "cellpose has 0 epochs and would start from random"),
        (
            {"methods": ["stardist"], "tasks": ["synthetic-wholecell-2ch"], "start": "generalist"},
            "2D_versatile_fluo takes 1 channel at most, synthetic-wholecell-2ch has 2",
        ),
    ],
)
def test_what_cannot_start_so_is_refused_by_name(given: dict[str, Any], error: str) -> None:
    with pytest.raises(SegbenchError, match=error):
        expand(grid(**given), CATALOGUE)


def test_each_missing_file_is_named_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path))
    runs = expand(grid(methods=["cellpose"], start="generalist", seeds=[0, 1]), CATALOGUE)
    assert [line.split(" are ")[0] for line in missing_weights(runs)] == ["the weights cellpose-nuclei"]
    untrained = expand(grid(methods=["cellpose"], start="generalist"), CATALOGUE, budget=BudgetChange(epochs=0))
    assert len(missing_weights(untrained)) == 2
    (line,) = missing_weights(expand(grid(methods=["stardist"], start="/no/model.zip"), CATALOGUE))
    assert line == "stardist would start from /no/model.zip, which is no file"


def test_a_wrong_or_truncated_file_is_refused_by_its_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    content, file = b"published" * 100, tmp_path / "file"
    known = dataclasses.replace(weights.RELEASED["sam-vit-b"], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(weights.RELEASED, "sam-vit-b", known)  # type: ignore[arg-type]
    file.write_bytes(content[:-1])
    with pytest.raises(SegbenchError, match=r"not the published file, or only a part of it: .* nothing is kept"):
        weights.add("sam-vit-b", file)
    assert not known.there()
    assert list(known.path.parent.iterdir()) == []
    file.write_bytes(content)
    weights.add("sam-vit-b", file)
    assert known.verified().read_bytes() == content
    known.path.write_bytes(content[:50])
    with pytest.raises(SegbenchError, match="only a part of it"):
        known.verified()


def test_where_no_checksum_is_published_the_first_file_is_the_measure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path))
    (tmp_path / "file").write_bytes(b"weights")
    one = weights.released("cellpose-cyto3")
    weights.add(one.name, tmp_path / "file")
    one.path.write_bytes(b"other weights")
    with pytest.raises(SegbenchError, match="is not the published file"):
        one.verified()


def test_without_a_network_fetching_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path))
    nowhere = dataclasses.replace(weights.RELEASED["sam-vit-b"], url="http://127.0.0.1:9/sam.pth")
    monkeypatch.setitem(weights.RELEASED, "sam-vit-b", nowhere)  # type: ignore[arg-type]
    with pytest.raises(SegbenchError, match=r"cannot be fetched .* 'segbench methods weights add sam-vit-b FILE'"):
        weights.fetch("sam-vit-b")
    assert list((tmp_path / "pretrained").glob("*")) == []


def test_a_file_is_fetched_whole_and_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sam.pth").write_bytes(b"x" * 3_000_000)
    there = dataclasses.replace(
        weights.RELEASED["sam-vit-b"],
        url=(tmp_path / "sam.pth").as_uri(),
        sha256=hashlib.sha256(b"x" * 3_000_000).hexdigest(),
    )
    monkeypatch.setitem(weights.RELEASED, "sam-vit-b", there)  # type: ignore[arg-type]
    told: list[int] = []
    weights.fetch("sam-vit-b", lambda came, total: told.append(came))  # noqa: ARG005
    assert told[-1] == 3_000_000
    assert there.verified().stat().st_size == 3_000_000


def test_released_models_see_the_channel_to_segment_first() -> None:
    assert released_planes(("membrane", "DAPI"), "wholecell") == (0, 1)
    assert released_planes(("a", "b"), "wholecell") == (0, 1)
    with pytest.raises(SegbenchError, match="2 channels at most, the task has 3"):
        released_planes(("a", "b", "c"), "wholecell")


def test_a_model_of_the_size_may_hold_arrays_alone(tmp_path: Path) -> None:
    good = {"A": np.ones(256), "smean": np.zeros(256), "ymean": 0.5, "diam_mean": 30.0}
    np.save(tmp_path / "good.npy", good, allow_pickle=True)  # type: ignore[arg-type]
    assert read_size(tmp_path / "good.npy")["ymean"] == 0.5

    class Evil:
        def __reduce__(self) -> Any:
            return print, ("it ran",)

    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": ()})
    pickle.dump(np.array(Evil(), object), buffer)
    (tmp_path / "evil.npy").write_bytes(buffer.getvalue())
    with pytest.raises(SegbenchError, match=r"evil\.npy is no model of the cells' size: it names builtins\.print"):
        read_size(tmp_path / "evil.npy")


def test_of_a_zip_only_the_models_files_are_taken(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("m/config.json", json.dumps({"n_channel_in": 1, "n_rays": 8, "train_epochs": 3}))
        archive.writestr("m/weights_best.h5", b"w")
        archive.writestr("../../evil", b"e")
    first = unpack(str(tmp_path / "model.zip"), tmp_path / "work", 1)
    assert first.network == {"n_channel_in": 1, "n_rays": 8}
    assert sorted(path.name for path in (tmp_path / "work").rglob("*") if path.is_file()) == [
        "config.json", "weights_best.h5",
    ]  # fmt: skip
    with pytest.raises(SegbenchError, match=r"takes 1 channel\(s\), the task has 2"):
        unpack(str(tmp_path / "model.zip"), tmp_path / "other", 2)
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    with pytest.raises(SegbenchError, match=r"broken\.zip is no model of StarDist2D"):
        unpack(str(tmp_path / "broken.zip"), tmp_path / "third", 1)


def arrays(folder: Path, name: str, n: int, seed: int) -> Arrays:
    images, labels = draw_discs(n, seed=seed)
    np.save(folder / f"{name}-images.npy", images)
    np.save(folder / f"{name}-labels.npy", labels)
    return Arrays(str(folder / f"{name}-images.npy"), (0,), None, str(folder / f"{name}-labels.npy"))


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["stardist", "cellpose"])
def test_a_model_is_applied_as_it_is_and_trained_further(name: str, tmp_path: Path) -> None:
    """Trained first; with no epochs its predictions are the same, and training that goes on begins where it ended."""
    card, built = get_card(name), environments.ensure(get_card(name).environment, gpu=False)
    train, val, test = (
        arrays(tmp_path, split, n, seed) for split, n, seed in (("train", 8, 0), ("val", 2, 1), ("t", 2, 2))
    )
    first, formats = tmp_path / "first" / "model", tmp_path / "formats"
    formats.mkdir()

    def job(output: str, epochs: int, **settings: Any) -> Path:
        one = Job(
            run_id="0" * 12,
            method={
                "stardist": "segbench.methods.stardist:StarDist",
                "cellpose": "segbench.methods.cellpose:Cellpose",
            }[name],
            task=Task("discs-nuclear-1ch", "discs", ("nuclear",), "nuclear"),
            budget=Budget(batch_size=4, epochs=epochs, steps_per_epoch=10 if name == "stardist" else None),
            seed=0, output=str(tmp_path / output), train=train, val=val,
            predict={"test": dataclasses.replace(test, labels=None)},
            settings={**card.defaults, **SMALL[name], **settings},
        )  # fmt: skip
        if output == "packed":
            one = dataclasses.replace(one, train=None, val=None, model=str(first), formats=str(formats))
        one.write(tmp_path / f"{output}.json")
        return tmp_path / f"{output}.json"

    start = str(first if name == "stardist" else first / "cellpose")
    jobs = [job("first", 6), job("applied", 0, start=start), job("further", 1, start=start)]
    jobs += [job("packed", 6, optimize_thresholds=False, prob_thresh=0.01)] if name == "stardist" else []
    done = subprocess.run(
        [built.python, "-c", RUN_ALL, *jobs], env=environments.subprocess_env(built), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    results = {
        output: json.loads((tmp_path / output / "result.json").read_text())
        for output in ("first", "applied", "further")
    }
    assert done.returncode == 0, results
    assert results["applied"]["timings"]["train"] is None
    assert (results["applied"]["epochs"], results["applied"]["n_train_cells"]) == (0, 0)
    found = [PredictionSet(JobFolder(tmp_path / output).predictions("test")) for output in ("first", "applied")]
    for n in range(2):
        np.testing.assert_array_equal(found[0].labels[n], found[1].labels[n])
    if name == "stardist":  # what bioimage.io's steps make of its network is what the method finds
        (written,) = json.loads((tmp_path / "packed" / "formats.json").read_text()).values()
        made = np.load(formats / written["network"]["output"])[0, ..., 0]
        mine = PredictionSet(JobFolder(tmp_path / "packed").predictions("test")).labels[0]
        pairs = np.unique(np.stack([made.ravel(), mine.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(made)) == len(np.unique(mine)) > 2
        assert "fingerprint.pb" not in (names := zipfile.ZipFile(formats / written["file"]).namelist())
        assert "saved_model.pb" in names
    losses = {output: [one["loss"] for one in results[output]["history"]] for output in results}
    assert losses["further"][0] < 0.9 * losses["first"][0]
