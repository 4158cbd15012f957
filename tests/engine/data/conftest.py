"""Small datasets of every kind, and a cache of their own for each test."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from cell_images import discs
from PIL import Image


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty cache folder, which does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEGBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder dataset: rows of the index, with the images and masks to write."""

    def write(
        rows: Sequence[Mapping[str, str]] | None = None,
        images: Mapping[str, npt.NDArray[Any]] | None = None,
        name: str = "cells",
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        if rows is None:
            rows = [
                {"image": f"i{k}.png", "mask": f"m{k}.png", "split": split, "tissue": tissue}
                for k, (split, tissue) in enumerate(
                    [("train", "liver"), ("train", "skin"), ("val", "skin"), ("test", "liver"), ("test", "skin")]
                )
            ]
        written: dict[str, npt.NDArray[Any]] = {}
        for k, row in enumerate(rows):
            image, labels = discs(300, 280, 12, seed=k)
            written.setdefault(row.get("image", ""), image)
            written.setdefault(row.get("mask", ""), labels.astype(np.uint16))
        for file, array in {**written, **(images or {})}.items():
            if file:
                _write_array(folder / file, array)
        with (folder / "index.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return folder

    return write


def _write_array(path: Path, array: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


@pytest.fixture
def write_livecell(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a LIVECell download with the given cells, a list a file name, for every split."""

    def write(
        cells: Mapping[str, Mapping[str, Sequence[Any]]],
        subfolders: bool = False,
        as_mapping: bool = False,
        size: tuple[int, int] = (100, 120),
    ) -> Path:
        folder = tmp_path / "livecell"
        annotations = folder / "annotations" / "LIVECell"
        annotations.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for split, files in cells.items():
            place = folder / "images" / ("livecell_test_images" if split == "test" else "livecell_train_val_images")
            images, found = [], []
            for number, (name, segmentations) in enumerate(files.items(), start=1):
                path = place / name.partition("_")[0] / name if subfolders else place / name
                path.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(path, rng.integers(90, 160, size, dtype=np.uint8))
                images.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
                for segmentation in segmentations:
                    found.append(
                        {"id": len(found) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 1.0,
                         "bbox": [0, 0, 1, 1], "segmentation": segmentation}
                    )  # fmt: skip
            listed: Any = {str(a["id"]): a for a in found} if as_mapping else found
            raw = {"images": images, "annotations": listed, "categories": [{"id": 1, "name": "cell"}]}
            (annotations / f"livecell_coco_{split}.json").write_text(json.dumps(raw))
        return folder

    return write


@pytest.fixture
def write_tissuenet(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a TissueNet download; ``changes`` replaces arrays (None leaves one out)."""

    def write(
        version: str = "v1.0",
        splits: Sequence[str] = ("train", "val", "test"),
        sizes: tuple[int, int] = (96, 64),
        **changes: Any,
    ) -> Path:
        folder = tmp_path / f"tissuenet_{version}"
        folder.mkdir()
        for split in splits:
            size = sizes[split != "train"]
            cells = [discs(size, size, 10, seed=k)[1] for k in range(3)]
            y = np.stack([np.stack([c, np.where(c % 2, c, 0)], axis=-1) for c in cells])
            X = np.random.default_rng(1).integers(0, 50, y.shape).astype(np.float32) + 200 * (y > 0)
            arrays: dict[str, Any] = {"X": X, "y": y}
            tissues = ["Breast", "lymph node metastasis", "LUNG"]
            if version == "v1.0":
                arrays["tissue_list"] = np.array(tissues)
                arrays["platform_list"] = np.array(["codex"] * 3)
            else:
                heading = ["filename", "experiment", "pixel_size", "screening_passed", "time_step", "specimen"]
                rows = [[f"f{k}", "e", 0.5, "x", 1, tissue] for k, tissue in enumerate(tissues)]
                arrays["meta"] = np.array([heading, rows[0], heading, *rows[1:]], dtype=object)
            arrays.update(changes)
            np.savez_compressed(
                folder / f"tissuenet_{version}_{split}.npz", **{k: v for k, v in arrays.items() if v is not None}
            )
        return folder

    return write
