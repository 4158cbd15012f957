"""Prepared datasets are found by their content, made once, and complete or not there."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segbench.engine.data import (
    DatasetSpec,
    PreparationSettings,
    ensure_prepared,
    open_prepared,
    register,
)
from segbench.errors import SegbenchError
from segbench.methods.job import Task

WriteFolder = Callable[..., Path]


def _spec(folder: Path, name: str = "cells") -> DatasetSpec:
    return DatasetSpec(name, "folder", str(folder), {"target": "cell", "channels": ["image"]})


def _tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()


def test_a_prepared_dataset_says_what_it_holds(cache: Path, write_folder: WriteFolder) -> None:
    spec = _spec(write_folder())
    told: list[tuple[str, int, int]] = []
    prepared = ensure_prepared(spec, lambda *step: told.append(step), workers=2)
    assert prepared.folder.is_relative_to(cache / "prepared")
    assert told == [
        ("train", 0, 2),
        ("train", 1, 2),
        ("train", 2, 2),
        ("val", 0, 1),
        ("val", 1, 1),
        ("test", 0, 2),
        ("test", 1, 2),
        ("test", 2, 2),
    ]
    assert (prepared.channels, prepared.targets, prepared.splits) == (("image",), ("cell",), ("train", "val", "test"))
    assert prepared.tasks == (Task("cells-cell-1ch", "cells", ("image",), "cell"),)
    assert prepared.tissues("train") == ("liver", "skin")
    assert prepared.tissues("val") == ("skin",)
    images = np.load(prepared.images_path("train"), mmap_mode="r")
    labels = np.load(prepared.labels_path("train", "cell"), mmap_mode="r")
    index = prepared.index("train")
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert images.shape == (8, 1, 256, 256)
    assert labels.shape == (8, 256, 256)
    assert index.columns == ["window", "image", "tissue", "y", "x", "n_cells_cell"]
    assert index["window"].to_list() == list(range(8))
    assert index["n_cells_cell"].to_list() == labels.max(axis=(1, 2)).tolist()
    assert prepared.rows("train") == tuple(range(8))
    assert prepared.rows("train", "skin") == (4, 5, 6, 7)
    cells = prepared.cells()
    assert cells.columns == [
        "split",
        "window",
        "image",
        "tissue",
        "target",
        "label",
        "area",
        "elongation",
        "convexity",
        "cut",
    ]
    train = cells.filter(cells["split"] == "train")
    assert train.height == index["n_cells_cell"].sum()
    first = train.filter(train["window"] == 1)
    assert first["area"].to_list() == np.bincount(labels[1].ravel())[1:].tolist()
    assert first["label"].to_list() == list(range(1, labels[1].max() + 1))


def test_misspelt_names_are_answered_with_the_right_ones(cache: Path, write_folder: WriteFolder) -> None:  # noqa: ARG001
    prepared = ensure_prepared(_spec(write_folder()))
    with pytest.raises(SegbenchError, match=r"unknown train tissue of dataset cells 'livr'; did you mean liver"):
        prepared.rows("train", "livr")
    with pytest.raises(SegbenchError, match="unknown target 'nucleus'"):
        prepared.labels_path("train", "nucleus")
    with pytest.raises(SegbenchError, match="has no split 'valid'; it has train, val, test"):
        prepared.images_path("valid")


def test_it_survives_pickling(cache: Path, write_folder: WriteFolder) -> None:  # noqa: ARG001
    prepared = ensure_prepared(_spec(write_folder()))
    assert pickle.loads(pickle.dumps(prepared)) == prepared


def test_the_fingerprint_depends_on_content_alone(cache: Path, write_folder: WriteFolder, tmp_path: Path) -> None:
    folder = write_folder()
    first = ensure_prepared(_spec(folder))
    elsewhere = tmp_path / "deep" / "copy"
    shutil.copytree(folder, elsewhere)
    os.utime(elsewhere / "i0.png", (1, 1))
    again = ensure_prepared(_spec(elsewhere, "other-name"))
    assert len(first.fingerprint) >= 16
    assert again.fingerprint == first.fingerprint
    assert again.folder == first.folder
    assert again.tasks[0].name == "other-name-cell-1ch"

    other_settings = replace(_spec(folder), preparation=PreparationSettings(edge="drop"))
    assert ensure_prepared(other_settings).fingerprint != first.fingerprint
    shutil.copy(folder / "i1.png", elsewhere / "i0.png")
    assert ensure_prepared(_spec(elsewhere)).fingerprint != first.fingerprint
    assert len([p for p in (cache / "prepared").iterdir() if (p / "meta.json").exists()]) == 3


def test_a_tissue_that_changes_in_the_index_changes_the_fingerprint(cache: Path, write_folder: WriteFolder) -> None:  # noqa: ARG001
    folder = write_folder()
    first = ensure_prepared(_spec(folder))
    index = (folder / "index.csv").read_text()
    (folder / "index.csv").write_text(index.replace("train,liver", "train,heart"))
    changed = ensure_prepared(_spec(folder))
    assert changed.tissues("train") == ("heart", "skin")
    assert changed.fingerprint != first.fingerprint


def test_it_is_prepared_once_and_opened_without_its_originals(cache: Path, write_folder: WriteFolder) -> None:  # noqa: ARG001
    folder = write_folder()
    spec = _spec(folder)
    with pytest.raises(SegbenchError, match="unknown dataset 'cells'"):
        open_prepared("cells")
    register(spec)
    with pytest.raises(
        SegbenchError, match=r"'cells' is not prepared: run segbench data prepare folder .*cells --name cells"
    ):
        open_prepared("cells")
    first = ensure_prepared(spec)
    made = (first.folder / "meta.json").stat().st_mtime_ns
    told: list[object] = []
    assert ensure_prepared(spec, lambda *step: told.append(step)) == first
    shutil.rmtree(folder)
    assert ensure_prepared(spec) == open_prepared("cells") == first
    assert (first.folder / "meta.json").stat().st_mtime_ns == made
    assert not told


def test_bad_data_leave_the_cache_as_it_was(cache: Path, write_folder: WriteFolder) -> None:
    broken = write_folder(images={"m4.png": np.zeros((10, 10), np.uint16)}, name="broken")
    with pytest.raises(SegbenchError, match=r"i4.png is \(300, 280\).*mask m4.png is \(10, 10\)"):
        ensure_prepared(_spec(broken, "broken"))
    assert not cache.exists()
    ensure_prepared(_spec(write_folder()))
    before = _tree(cache)
    with pytest.raises(SegbenchError, match=r"^dataset 'broken': i4.png"):
        ensure_prepared(_spec(broken, "broken"))
    assert _tree(cache) == before


def test_a_training_split_without_cells_is_refused(cache: Path, write_folder: WriteFolder) -> None:
    empty = np.zeros((300, 280), np.uint16)
    folder = write_folder(images={"m0.png": empty, "m1.png": empty})
    with pytest.raises(SegbenchError, match="no window of the train split has a cell"):
        ensure_prepared(_spec(folder))
    assert not cache.exists()


def test_an_empty_mask_is_an_image_without_cells(cache: Path, write_folder: WriteFolder) -> None:  # noqa: ARG001
    empty = np.zeros((300, 280), np.uint16)
    prepared = ensure_prepared(_spec(write_folder(images={"m0.png": empty, "m3.png": empty})))
    assert prepared.tissues("train") == ("skin",)
    assert prepared.index("train").height == 4
    test = prepared.index("test")
    assert test.filter(test["tissue"] == "liver")["n_cells_cell"].to_list() == [0, 0, 0, 0]


_PREPARE = """
import json, sys
from segbench.engine.data import DatasetSpec, ensure_prepared
spec = DatasetSpec.from_dict(json.loads(sys.argv[1]))
prepared = ensure_prepared(spec, lambda *step: print(*step, flush=True))
print("made", prepared.fingerprint)
"""


def _start(spec: DatasetSpec) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _PREPARE, json.dumps(spec.to_dict())]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_preparation_looks_unfinished_and_is_cleaned_away(cache: Path, write_folder: WriteFolder) -> None:
    process = _start(DatasetSpec("x", "synthetic", None, {"layout": "livecell", "train": 100}))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("train 3"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(list((cache / "prepared").glob("*.part-*"))) == 1
    assert not list((cache / "prepared").rglob("meta.json"))
    ensure_prepared(_spec(write_folder()))
    assert not list((cache / "prepared").glob("*.part-*"))


@pytest.mark.slow
def test_two_processes_prepare_once(cache: Path, write_folder: WriteFolder) -> None:
    spec = _spec(write_folder())
    both = [_start(spec), _start(spec)]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len({out.splitlines()[-1] for out, _ in outputs}) == 1
    assert sorted("train 0 2" in out for out, _ in outputs) == [False, True]
    assert len(list((cache / "prepared").rglob("meta.json"))) == 1


def test_any_number_of_workers_makes_the_same_arrays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_folder: WriteFolder
) -> None:
    spec = _spec(write_folder())
    found = []
    for workers in (1, 3):
        monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / f"cache{workers}"))
        found.append(ensure_prepared(spec, workers=workers))
    assert found[0].folder != found[1].folder
    assert found[0].fingerprint == found[1].fingerprint
    for path in sorted(found[0].folder.glob("*.npy")):
        assert path.read_bytes() == (found[1].folder / path.name).read_bytes()
    assert found[0].cells().equals(found[1].cells())


@pytest.mark.parametrize("name", ["images-test.npy", "labels-cell-test.npy", "index-train.parquet", "meta.json"])
@pytest.mark.parametrize("how", ["cut", "zeros", "gone"])
def test_a_damaged_cache_is_prepared_anew_with_a_word(
    cache: Path, write_folder: WriteFolder, caplog: pytest.LogCaptureFixture, name: str, how: str
) -> None:
    spec = _spec(write_folder())
    prepared = ensure_prepared(spec)
    path = prepared.folder / name
    sound = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(sound[:100] if how == "cut" else sound[:128] + bytes(len(sound) - 128))
    again = ensure_prepared(spec)
    assert again.fingerprint == prepared.fingerprint
    if name != "meta.json":
        assert path.read_bytes() == sound
    assert json.loads((prepared.folder / "meta.json").read_text())["fingerprint"] == prepared.fingerprint
    assert "prepared anew" in caplog.text or (name, how) == ("meta.json", "gone")
    assert not list((cache / "prepared").glob("*.part-*"))


def test_a_damaged_cache_whose_source_is_gone_is_told_and_stays(cache: Path, write_folder: WriteFolder) -> None:
    source = write_folder()
    prepared = ensure_prepared(_spec(source))
    source.rename(source.with_name("elsewhere"))
    array = prepared.images_path("test")
    array.write_bytes(array.read_bytes()[:100])
    with pytest.raises(SegbenchError, match="bring it back"):
        ensure_prepared(_spec(source))
    assert array.exists()
    assert cache.is_dir()


@pytest.mark.usefixtures("cache")
def test_a_source_file_that_changed_behind_its_size_and_time_is_seen(write_folder: WriteFolder) -> None:
    source = write_folder()
    before = ensure_prepared(_spec(source)).fingerprint
    image = next(path for path in sorted(source.rglob("*")) if path.is_file() and path.suffix in (".png", ".tif"))
    stat, content = image.stat(), bytearray(image.read_bytes())
    others = [p for p in sorted(source.rglob(f"*{image.suffix}")) if p.read_bytes() != bytes(content)]
    other = next((p for p in others if p.stat().st_size == stat.st_size), None)
    if other is not None:
        image.write_bytes(other.read_bytes())
    else:
        from PIL import Image

        pixels = np.asarray(Image.open(image)).copy()
        pixels[:8] = 255 - pixels[:8]
        Image.fromarray(pixels).save(image)
        image.write_bytes(image.read_bytes().ljust(stat.st_size, b"\0")[: max(stat.st_size, image.stat().st_size)])
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ensure_prepared(_spec(source)).fingerprint != before


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"fingerprint": "../../x", "stamp": "y"}', b"\xff"])
def test_a_broken_pointer_or_registration_stops_nothing(cache: Path, write_folder: WriteFolder, content: bytes) -> None:
    spec = _spec(write_folder())
    register(spec)
    fingerprint = ensure_prepared(spec).fingerprint
    for pointer in (cache / "prepared" / "known").glob("*.json"):
        pointer.write_bytes(content)
    assert ensure_prepared(spec).fingerprint == fingerprint
    (cache / "datasets" / "broken.json").write_bytes(content)
    assert open_prepared("cells").fingerprint == fingerprint
