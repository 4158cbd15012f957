"""Models of the right tissue are proposed first: by what images look like, without knowing their cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segbench.engine.data.prepare import prepare_image
from segbench.engine.data.source import RawImage
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.data.synthetic import SyntheticSource
from segbench.engine.models.images import image_files
from segbench.engine.models.likeness import describe_windows
from segbench.engine.models.pulling import Gallery
from segbench.engine.models.recommending import ALL, OTHER, SAME, recommend
from segbench.errors import SegbenchError

PREPARATION = PreparationSettings(clahe_kernel=0)
TISSUES = ("A172", "BV2", "MCF7", "SkBr3")


def _images(split: str, seed: int) -> dict[str, list[npt.NDArray[Any]]]:
    """Return unprepared images of the tissues, by tissue."""
    source = SyntheticSource({"layout": "livecell", "train": 1, "test": 1, "seed": seed})
    found: dict[str, list[npt.NDArray[Any]]] = {}
    for load in source.images(split):
        image = load()
        if image.tissue in TISSUES:
            found.setdefault(image.tissue, []).append(image.pixels)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a gallery's indexes with a model of each tissue, one of all, and one of two channels."""
    folder = tmp_path_factory.mktemp("site")
    items: list[dict[str, Any]] = []
    likeness: dict[str, list[list[float]]] = {}

    def add(name: str, tissue: str, rows: npt.NDArray[np.float64], channels: tuple[str, ...] = ("phase",)) -> None:
        scores = {each: 0.6 if each == tissue else 0.3 for each in TISSUES}
        version = {"version": "1", "source": f"packages/{name}.zip", "sha256": "0" * 64}
        items.append(
            {
                "id": name, "type": "model", "versions": [version], "method": "watershed", "task": "t", "accuracy": 0.4,
                "channels": list(channels), "target": "wholecell", "train_tissue": tissue, "license": "MIT",
                "accuracy_by_tissue": scores, "preparation": PREPARATION.to_dict(), "pixel_size_um": None,
            }
        )  # fmt: skip
        likeness[name] = rows.tolist()

    every = []
    for tissue, images in _images("train", 0).items():
        raw = [prepare_image(RawImage("x", tissue, image, {}), PREPARATION, keep_empty=True).pixels for image in images]
        rows = describe_windows(np.concatenate(raw))
        every.append(rows)
        add(f"of-{tissue.lower()}", tissue, rows)
    add("of-all", "all", np.concatenate(every))
    add("of-two-channels", "all", np.zeros((2, 3)), ("nuclear", "membrane"))
    (folder / "index.json").write_text(json.dumps({"items": items}))
    (folder / "likeness.json").write_text(json.dumps(likeness))
    return folder


def test_the_right_tissue_comes_first_more_often_than_chance(site: Path, tmp_path: Path) -> None:
    gallery, first, n = Gallery(str(site)), 0, 0
    for seed in (1, 2):
        for tissue, images in _images("test", seed).items():
            for number, image in enumerate(images):
                path = tmp_path / f"{tissue}-{seed}-{number}.tif"
                tifffile.imwrite(path, image[0])
                proposals = recommend(image_files([path]), gallery)
                first += proposals[0].train_tissue == tissue
                n += 1
    assert n == 8
    # chance is a quarter: six of eight come by chance in one of 240 cases
    assert first >= 6


def test_the_guideline_orders_them(site: Path, tmp_path: Path) -> None:
    image = _images("test", 1)["BV2"][0]
    tifffile.imwrite(tmp_path / "a.tif", image[0])
    notes: list[str] = []
    proposals = recommend(image_files([tmp_path]), Gallery(str(site)), note=notes.append)
    assert [one.why for one in proposals] == [SAME, ALL, OTHER, OTHER, OTHER]
    assert (proposals[0].name, proposals[0].expected) == ("of-bv2", 0.6)
    assert proposals[0].distance == min(one.distance for one in proposals)
    assert notes
    assert notes[0].startswith("1 models left out: a.tif has 1 channel")


def test_what_does_not_fit_is_told(site: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8))
    with pytest.raises(SegbenchError, match="no model of the gallery fits"):
        recommend(image_files([tmp_path]), Gallery(str(site)), target="nuclear")
