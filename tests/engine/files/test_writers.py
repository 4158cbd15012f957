"""Label maps as other tools read them: read by those tools' own readers, no pixel is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import roifile
import tifffile
from pycocotools.coco import COCO
from scipy import ndimage
from skimage.draw import polygon
from skimage.measure import label

from segbench.engine.files.imagej import read_rois
from segbench.engine.files.outlines import fill
from segbench.engine.files.writers import (
    cells_of,
    write_coco,
    write_geojson,
    write_label_tiff,
    write_rois,
    write_seg_npy,
)

SHAPE = (60, 80)


@pytest.fixture
def labels() -> npt.NDArray[np.int32]:
    """Return touching cells, some with holes and some in pieces, whose numbers have gaps."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    seeds = rng.random((25, 2)) * SHAPE
    nearest = np.argmin((rows[..., None] - seeds[:, 0]) ** 2 + (columns[..., None] - seeds[:, 1]) ** 2, axis=-1)
    cells = ndimage.gaussian_filter(rng.random(SHAPE), 1.5) > 0.47
    return ((3 * nearest + 5) * cells).astype(np.int32)


def test_the_cells_have_what_is_hard_to_draw(labels: npt.NDArray[np.int32]) -> None:
    masks = [mask for _, mask, _, _ in cells_of(labels)]
    assert any(label(mask, connectivity=1).max() > 1 for mask in masks)
    assert any((ndimage.binary_fill_holes(mask) != mask).any() for mask in masks)


def test_cells_come_with_their_labels_and_places() -> None:
    big = np.zeros((4, 5), np.uint32)
    big[1:3, 2], big[0, 4] = 4_000_000_000, 7
    assert [(number, mask.tolist(), top, left) for number, mask, top, left in cells_of(big)] == [
        (7, [[True]], 0, 4),
        (4_000_000_000, [[True], [True]], 1, 2),
    ]
    full = np.full((2, 2), 9)
    assert [(number, mask.shape) for number, mask, _, _ in cells_of(full)] == [(9, (2, 2))]
    assert list(cells_of(np.zeros((3, 3), int))) == []


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_draws_the_same_cells(tmp_path: Path, labels: npt.NDArray[np.int32], polygons: bool) -> None:
    write_coco(tmp_path / "a.json", [("a.png", labels), ("b.png", labels.T)], polygons=polygons)
    coco = COCO(tmp_path / "a.json")
    for image, wanted in ((1, labels), (2, labels.T)):
        numbers = np.unique(wanted[wanted > 0])
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image]))
        assert len(annotations) == len(numbers)
        for number, annotation in zip(numbers, annotations, strict=True):
            mask = coco.annToMask(annotation)
            np.testing.assert_array_equal(mask, wanted == number)
            assert annotation["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == [int(one) for one in box]
    kinds = {type(annotation["segmentation"]) for annotation in coco.dataset["annotations"]}
    assert kinds == ({dict, list} if polygons else {dict})


def test_geojson_outlines_hold_the_centres_of_the_cells_pixels(tmp_path: Path, labels: npt.NDArray[np.int32]) -> None:
    write_geojson(tmp_path / "a.geojson", labels)
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [int(feature["properties"]["name"]) for feature in features] == np.unique(labels[labels > 0]).tolist()
    kinds = set()
    for feature in features:
        geometry = feature["geometry"]
        kinds.add(geometry["type"])
        polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        drawn = np.zeros(SHAPE, np.bool_)
        for ring in (ring for one in polygons for ring in one):
            assert ring[0] == ring[-1]
            x, y = np.array(ring).T
            drawn[polygon(y - 0.5, x - 0.5, SHAPE)] ^= True
        np.testing.assert_array_equal(drawn, labels == int(feature["properties"]["name"]))
    assert kinds == {"Polygon", "MultiPolygon"}


def test_roifile_reads_the_rois(tmp_path: Path, labels: npt.NDArray[np.int32]) -> None:
    write_rois(tmp_path / "a.zip", labels)
    rois = roifile.roiread(tmp_path / "a.zip")
    assert {roi.composite for roi in rois} == {True, False}
    for roi in rois:
        drawn = np.zeros(SHAPE, np.bool_)
        for x, y in (ring.T for ring in roi.coordinates(multi=True)):
            drawn[polygon(y - 0.5, x - 0.5, SHAPE)] ^= True
        np.testing.assert_array_equal(drawn, labels == int(roi.name))


def test_rois_keep_pixels_beyond_what_16_bits_count(tmp_path: Path) -> None:
    wide = np.zeros((3, 40_000), np.uint8)
    wide[1:, 39_990:39_999] = 1
    write_rois(tmp_path / "a.zip", wide)
    (cell,) = read_rois([tmp_path / "a.zip"]).cells
    mask, top, left = fill(cell, *wide.shape)
    assert (mask.all(), mask.shape, top, left) == (True, (2, 9), 1, 39_990)


def test_numpy_reads_what_cellpose_reads(tmp_path: Path, labels: npt.NDArray[np.int32]) -> None:
    write_seg_npy(tmp_path / "a_seg.npy", labels, "a.tif")
    saved = np.load(tmp_path / "a_seg.npy", allow_pickle=True).item()
    masks = saved["masks"]
    assert masks.dtype == np.uint16
    assert np.unique(masks).tolist() == list(range(len(np.unique(labels))))
    np.testing.assert_array_equal(np.unique(labels)[masks], labels)
    assert set(np.unique(saved["outlines"])) == set(np.unique(masks))
    assert (saved["outlines"] == masks)[saved["outlines"] > 0].all()
    assert len(saved["ismanual"]) == masks.max()
    assert saved["filename"] == "a.tif"


@pytest.mark.parametrize(("largest", "dtype"), [(65_535, np.uint16), (65_536, np.uint32), (2**31 - 1, np.uint32)])
def test_a_label_tiff_is_as_wide_as_its_labels(tmp_path: Path, largest: int, dtype: type) -> None:
    wanted = np.zeros((5, 7), np.int32)
    wanted[2, 3] = largest
    write_label_tiff(tmp_path / "a.tif", wanted)
    found = tifffile.imread(tmp_path / "a.tif")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, wanted)


def test_an_image_without_cells_is_written_in_every_form(tmp_path: Path) -> None:
    empty = np.zeros((4, 5), np.uint8)
    write_coco(tmp_path / "a.json", [("a.png", empty)])
    write_geojson(tmp_path / "a.geojson", empty)
    write_seg_npy(tmp_path / "a_seg.npy", empty, "a.png")
    write_label_tiff(tmp_path / "a.tif", empty)
    write_rois(tmp_path / "a.zip", empty)
    assert json.loads((tmp_path / "a.json").read_text())["annotations"] == []
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []
    assert not np.load(tmp_path / "a_seg.npy", allow_pickle=True).item()["masks"].any()
    assert not tifffile.imread(tmp_path / "a.tif").any()
