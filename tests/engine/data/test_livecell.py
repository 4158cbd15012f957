"""LIVECell's layout is read as it is distributed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segbench.engine.data import DatasetSpec, PreparationSettings, PreparedDataset, dataset_tissues, ensure_prepared
from segbench.engine.data.livecell import LivecellSource, cell_type, rasterize, rasterize_counted
from segbench.engine.data.prepare import prepare
from segbench.errors import SegbenchError

WriteLivecell = Callable[..., Path]
SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
TWO_PARTS = [[50.0, 50, 60, 50, 60, 60, 50, 60], [70.0, 70, 80, 70, 80, 80]]
CELLS = {
    "train": {"A172_Phase_A7_1_00d00h00m_1.tif": [SQUARE], "SkBr3_Phase_E3_1_00d00h00m_2.tif": [SQUARE, TWO_PARTS]},
    "val": {"A172_Phase_A7_2_00d00h00m_1.tif": [TWO_PARTS]},
    "test": {"SKBR3_Phase_H3_1_00d00h00m_2.tif": [SQUARE]},
}


def _first(folder: Path, split: str = "train") -> Any:
    return next(LivecellSource(folder, {}).images(split))()


@pytest.mark.parametrize("subfolders", [False, True])
@pytest.mark.parametrize("as_mapping", [False, True])
def test_every_layout_of_the_download_is_found(
    write_livecell: WriteLivecell, subfolders: bool, as_mapping: bool
) -> None:
    folder = write_livecell(CELLS, subfolders, as_mapping)
    source = LivecellSource(folder, {})
    assert dict(source.counts()) == {"train": 2, "val": 1, "test": 1}
    images = [load() for load in source.images("train")]
    assert [(i.tissue, int(i.labels["wholecell"].max())) for i in images] == [("A172", 1), ("SkBr3", 2)]
    assert images[0].pixels.shape == (1, 100, 120)
    assert dataset_tissues(DatasetSpec("l", "livecell", str(folder))) == ("A172", "SkBr3")


def test_single_cell_type_annotations_are_joined(write_livecell: WriteLivecell) -> None:
    folder = write_livecell(CELLS)
    annotations = folder / "annotations" / "LIVECell"
    for split in ("train", "val", "test"):
        (annotations / f"livecell_coco_{split}.json").rename(annotations / f"livecell_a172_{split}.json")
    assert LivecellSource(folder, {}).counts()["train"] == 2


def test_masks_are_those_of_pycocotools(testdata: Path) -> None:
    folder = testdata / "t98g-phase-livecell-layout"
    raw = json.loads((folder / "annotations" / "LIVECell" / "livecell_coco_test.json").read_text())
    for annotation in raw["annotations"][:120]:
        rle = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], 511, 512))
        parts = tuple(np.asarray(part) for part in annotation["segmentation"])
        np.testing.assert_array_equal(rasterize((parts,), 511, 512) > 0, coco_mask.decode(rle) > 0)


@pytest.mark.parametrize("seed", range(6))
def test_polygons_beyond_the_image_are_clipped_as_pycocotools_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(50):
        polygon = rng.uniform(-20, 70, 2 * rng.integers(3, 9)).round(2)
        expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon.tolist()], 40, 50)))
        np.testing.assert_array_equal(rasterize(((polygon,),), 40, 50) > 0, expected > 0)


def test_of_overlapping_cells_the_smaller_is_on_top() -> None:
    large, small = np.array(SQUARE[0]), np.array([15.0, 15, 20, 15, 20, 20, 15, 20])
    for cells in ((large,), (small,)), ((small,), (large,)):
        labels = rasterize(cells, 40, 40)
        top = 1 + [c[0] is small for c in cells].index(True)
        assert labels[17, 17] == top
        assert labels[12, 12] == 3 - top


def test_a_cell_outlined_twice_is_kept_once_and_what_cells_lose_is_counted() -> None:
    large, small = np.array(SQUARE[0]), np.array([15.0, 15, 20, 15, 20, 20, 15, 20])
    wider = large + np.array([-1, -1, 1, -1, 1, 1, -1, 1.0])
    labels, overlaps = rasterize_counted(((large,), (wider,), (large.copy(),), (small,)), 40, 40)
    assert set(np.unique(labels)) == {0, 1, 4}
    assert (overlaps.twice, overlaps.covered, overlaps.lost, overlaps.gone) == (2, 1, 25, 0)


def listed_twice(folder: Path) -> Path:
    """Let the training annotations list their first image a second time, with cells of its own."""
    path = next(folder.rglob("livecell_coco_train.json"))
    content = json.loads(path.read_text())
    again = content["images"][0] | {"id": 999}
    content["images"].append(again)
    content["annotations"].append(content["annotations"][0] | {"id": 9999, "image_id": 999})
    path.write_text(json.dumps(content))
    return folder


def test_an_image_listed_twice_is_two_images_of_one_origin(write_livecell: WriteLivecell, tmp_path: Path) -> None:
    folder = listed_twice(write_livecell(CELLS))
    source = LivecellSource(folder, {})
    loaded = [load() for load in source.images("train")]
    first = [image for image in loaded if image.origin == loaded[0].origin]
    assert [image.image for image in first] == [str(loaded[0].origin), f"{loaded[0].origin}#2"]
    assert "listed again" in "\n".join(source.told({}, len(loaded)))
    out = tmp_path / "prepared"
    out.mkdir()
    prepare(source, PreparationSettings(), out, "f" * 24, None, 1)
    prepared = PreparedDataset.read(out, DatasetSpec("twice", "livecell", str(folder)))
    assert len(set(prepared.origins("train"))) == len(set(prepared.index("train")["image"])) - 1
    assert any("listed again" in note for note in prepared.notes)


def test_files_of_one_cell_type_and_parts_of_the_training_data_are_found(write_livecell: WriteLivecell) -> None:
    folder = write_livecell(CELLS)
    single = folder / "annotations" / "LIVECell_single_cells" / "a172"
    single.mkdir(parents=True)
    part = folder / "annotations" / "LIVECell_dataset_size_split"
    part.mkdir()
    for path in sorted(folder.rglob("livecell_coco_*.json")):
        split = path.stem.removeprefix("livecell_coco_")
        if split == "train":
            (part / "0_train2percent.json").write_bytes(path.read_bytes())
        path.rename(single / f"{split}.json")
    assert LivecellSource(folder, {}).counts()["train"] > 0
    assert LivecellSource(folder, {"train_file": "0_train2percent.json"}).counts()["train"] > 0
    with pytest.raises(SegbenchError, match=r"unknown annotation file '1_train.json'.*0_train2percent.json"):
        LivecellSource(folder, {"train_file": "1_train.json"})
    (single / "train.json").unlink()
    with pytest.raises(SegbenchError, match=r"--train-file: 0_train2percent.json"):
        LivecellSource(folder, {})


@pytest.mark.parametrize("compressed", [False, True])
def test_run_length_encodings_are_read(write_livecell: WriteLivecell, compressed: bool) -> None:
    mask = np.zeros((100, 120), np.uint8)
    mask[20:40, 30:70] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    counts: Any = rle["counts"].decode()
    if not compressed:
        runs = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F"), [2]])))
        counts = np.diff(np.concatenate([[0], runs])).tolist()
    cells = {**CELLS, "train": {"A172_1.tif": [{"size": [100, 120], "counts": counts}]}}
    np.testing.assert_array_equal(_first(write_livecell(cells)).labels["wholecell"], mask)


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"train": CELLS["train"]}, "holds no livecell_coco_test.json; JSON files found: livecell_coco_train.json"),
        ({**CELLS, "train": {"A172_1.tif": [[[1.0, 2, 3, 4]]]}}, "three points or more"),
        ({**CELLS, "train": {"A172_1.tif": [[]]}}, "a segmentation is a list of polygons"),
        (
            {**CELLS, "train": {"A172_1.tif": [{"size": [9, 9], "counts": [81]}]}},
            r"annotation 1: the mask's size is \[9, 9\]",
        ),
    ],
)
def test_wrong_annotations_are_told(write_livecell: WriteLivecell, cells: dict[str, Any], why: str) -> None:
    folder = write_livecell(cells)
    with pytest.raises(SegbenchError, match=why):
        _first(folder)


def test_missing_doubled_and_mismatched_images_are_told(write_livecell: WriteLivecell) -> None:
    folder = write_livecell(CELLS)
    image = folder / "images" / "livecell_train_val_images" / "A172_Phase_A7_1_00d00h00m_1.tif"
    other = image.with_name("SkBr3_Phase_E3_1_00d00h00m_2.tif")
    (folder / "copy").mkdir()
    (folder / "copy" / image.name).write_bytes(image.read_bytes())
    with pytest.raises(SegbenchError, match=r"names image A172_Phase_A7_1_00d00h00m_1.tif, which is found 2 times"):
        _first(folder)
    (folder / "copy" / image.name).unlink()
    image.write_bytes(image.read_bytes()[:500])
    with pytest.raises(SegbenchError, match="cannot be read"):
        _first(folder)
    import tifffile

    tifffile.imwrite(image, np.zeros((50, 50), np.uint8))
    with pytest.raises(SegbenchError, match=r"is \(1, 50, 50\).*its annotations say \(1, 100, 120\)"):
        _first(folder)
    other.unlink()
    with pytest.raises(SegbenchError, match=r"SkBr3_.*which is not there"):
        _first(folder)


def test_what_is_not_coco_is_told(write_livecell: WriteLivecell) -> None:
    folder = write_livecell(CELLS)
    path = folder / "annotations" / "LIVECell" / "livecell_coco_train.json"
    whole = path.read_text()
    for text, why in (
        (whole[: len(whole) // 2], "is not a COCO"),
        ("[]", "is not a COCO"),
        ('{"images": []}', "'annotations' is missing"),
    ):
        path.write_text(text)
        with pytest.raises(SegbenchError, match=f"livecell_coco_train.json .*{why}" if "COCO" not in why else why):
            LivecellSource(folder, {}).counts()


def test_cell_types_are_written_as_the_study_does() -> None:
    assert [cell_type(f"{n}_Phase_1.tif") for n in ("SKBR3", "huh7", "Other")] == ["SkBr3", "Huh7", "Other"]


def test_the_real_phase_contrast_cells_are_all_there(testdata: Path, cache: Path) -> None:  # noqa: ARG001
    folder = testdata / "t98g-phase-livecell-layout"
    assert sum(len(i.cells) for s in ("train", "val", "test") for i in LivecellSource(folder, {})._split(s)) == 1026
    prepared = ensure_prepared(DatasetSpec("t98g", "livecell", str(folder)))
    assert prepared.tissues() == ("T98G",)
    assert [task.name for task in prepared.tasks] == ["t98g-wholecell"]
    # 511 x 512 pixels: three shifted windows to each side, none of the training windows without cells
    assert {split: prepared.index(split).height for split in prepared.splits} == {"train": 252, "val": 108, "test": 180}
