"""GeoJSON, ROIs and _seg.npy of other tools are read, and hostile ones are one line that names the file."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from segbench.engine.files.geojson import read_geojson
from segbench.engine.files.imagej import read_rois
from segbench.engine.files.outlines import fill
from segbench.engine.files.seg_npy import read_seg_npy
from segbench.engine.files.unpickling import as_array, read_pickle
from segbench.errors import SegbenchError

SQUARE = [[1, 2], [5, 2], [5, 6], [1, 6], [1, 2]]


def feature(coordinates: Any, kind: str = "Polygon", object_type: str = "annotation", **more: Any) -> dict[str, Any]:
    properties = {"objectType": object_type}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties} | more


def geojson(folder: Path, content: Any) -> Path:
    path = folder / "a.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# GeoJSON


@pytest.mark.parametrize(
    "content",
    [
        [feature([SQUARE])],
        {"type": "FeatureCollection", "features": [feature([SQUARE])]},
        feature([SQUARE]),
        feature([[SQUARE]], "MultiPolygon"),
        feature([[[x, y, 0] for x, y in SQUARE]]),
    ],
)
def test_every_form_that_qupath_exports_is_read(tmp_path: Path, content: Any) -> None:
    (cell,) = read_geojson(geojson(tmp_path, content)).cells
    mask, top, left = fill(cell, 20, 20)
    assert (mask.all(), mask.shape, top, left) == (True, (4, 4), 2, 1)


def test_annotations_around_cells_are_no_cells(tmp_path: Path) -> None:
    around = feature([[[0, 0], [20, 0], [20, 20], [0, 20]]])
    cells = [feature([SQUARE], object_type="cell"), feature([SQUARE], object_type="detection")]
    core = feature([SQUARE], object_type="tma_core")
    outlines = read_geojson(geojson(tmp_path, [around, *cells, core]))
    assert len(outlines.cells) == 2
    assert outlines.left_out == {"regions around cells": 2}
    assert len(read_geojson(geojson(tmp_path, [around, core])).cells) == 1
    old = feature([SQUARE], id="PathCellObject") | {"properties": {}}
    assert len(read_geojson(geojson(tmp_path, [around, old])).cells) == 1


def test_nuclei_are_taken_where_asked_for(tmp_path: Path) -> None:
    inner = {"type": "Polygon", "coordinates": [[[2, 3], [4, 3], [4, 5], [2, 5]]]}
    path = geojson(
        tmp_path, [feature([SQUARE], object_type="cell", nucleusGeometry=inner), feature([SQUARE], object_type="cell")]
    )
    outlines = read_geojson(path, nuclei=True)
    assert fill(outlines.cells[0], 20, 20)[0].shape == (2, 2)
    assert outlines.left_out == {"cells without a nucleus": 1}


def test_points_and_lines_are_counted(tmp_path: Path) -> None:
    others = [feature([1, 2], "Point"), feature(SQUARE, "LineString"), feature([SQUARE]) | {"geometry": None}]
    assert read_geojson(geojson(tmp_path, others)).left_out == {"points and lines": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("7", "is no GeoJSON"),
        ('{"type": "Topology"}', "is no GeoJSON"),
        ("[7]", "feature 0 is no GeoJSON feature"),
        ([feature(7)], "are lists of rings"),
        ([feature([7], "MultiPolygon")], "are lists of rings"),
        (
            '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, NaN], [1, 0], [1, 1]]]}}]',
            "finite",
        ),
        ([feature([[[0, 1e9], [1, 0], [1, 1]]])], "further than any picture"),
        ([feature([SQUARE]) | {"geometry": 7}], "geometry is no object"),
    ],
)
def test_a_broken_geojson_is_one_line(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(SegbenchError, match=rf"a\.geojson.*{message}") as error:
        read_geojson(geojson(tmp_path, content))
    assert "\n" not in str(error.value)


def test_cells_on_several_planes_are_refused(tmp_path: Path) -> None:
    one, other = feature([SQUARE]), feature([SQUARE])
    other["geometry"]["plane"] = {"c": -1, "z": 3, "t": 0}
    with pytest.raises(SegbenchError, match="2 planes of a stack"):
        read_geojson(geojson(tmp_path, [one, other]))


# ImageJ


def roi(**values: Any) -> bytes:
    return ImagejRoi(**({"left": 1, "top": 2, "right": 5, "bottom": 6} | values)).tobytes()


def composite(path: list[float], claimed: int | None = None) -> bytes:
    size = len(path) if claimed is None else claimed
    return roi(roitype=ROI_TYPE.RECT, multi_coordinates=np.array(path, np.float32), shape_roi_size=size)


def zipped(folder: Path, entries: dict[str, bytes]) -> Path:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_rectangles_ovals_polygons_and_composites_are_cells_and_lines_are_not(tmp_path: Path) -> None:
    corners = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.int32)
    outlines = read_rois(
        [
            zipped(
                tmp_path,
                {
                    "rect.roi": roi(roitype=ROI_TYPE.RECT),
                    "oval.roi": roi(roitype=ROI_TYPE.OVAL, left=0, top=0, right=200, bottom=100),
                    "polygon.roi": roi(roitype=ROI_TYPE.POLYGON, n_coordinates=4, integer_coordinates=corners),
                    "composite.roi": composite([0, 1, 2, 1, 5, 2, 1, 5, 6, 1, 1, 6, 4]),
                    "line.roi": roi(roitype=ROI_TYPE.LINE),
                    "text.roi": roi(roitype=ROI_TYPE.RECT, subtype=ROI_SUBTYPE.TEXT),
                    "readme.txt": b"not a ROI",
                    "__MACOSX/._rect.roi": b"\0",
                },
            )
        ]
    )
    assert outlines.left_out == {"points and lines": 2}
    square, oval, *others = (fill(cell, 300, 300) for cell in outlines.cells)
    for mask, top, left in (square, *others):
        assert (mask.all(), mask.shape, top, left) == (True, (4, 4), 2, 1)
    assert abs(oval[0].sum() / (np.pi * 100 * 50) - 1) < 1e-3


def test_a_rectangle_between_pixels_keeps_its_place(tmp_path: Path) -> None:
    box = {"xd": 1.4, "yd": 2.4, "widthd": 2.0, "heightd": 3.0, "version": 223}
    between = roi(roitype=ROI_TYPE.RECT, options=ROI_OPTIONS.SUB_PIXEL_RESOLUTION, **box)
    (tmp_path / "a.roi").write_bytes(between)
    (cell,) = read_rois([tmp_path / "a.roi"]).cells
    assert [round(float(v), 3) for v in (*cell[0].min(axis=0), *cell[0].max(axis=0))] == [1.4, 2.4, 3.4, 5.4]


def test_rois_of_several_slices_are_refused_and_of_one_are_not(tmp_path: Path) -> None:
    rect = {"roitype": ROI_TYPE.RECT}
    same = {"a.roi": roi(**rect, position=3), "b.roi": roi(**rect, position=3), "c.roi": roi(**rect)}
    assert len(read_rois([zipped(tmp_path, same)]).cells) == 3
    with pytest.raises(SegbenchError, match=r"a\.zip has ROIs on 2 planes"):
        read_rois([zipped(tmp_path, {"a.roi": roi(**rect, z_position=1), "b.roi": roi(**rect, z_position=2)})])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"readme.txt": b""}, "holds no .roi file"),
        ({"a.roi": b"Iout"}, "too short"),
        ({"a.roi": b"\0" * 100}, "not an ImageJ ROI"),
        ({"../../a.roi": b""}, "outside of itself"),
        ({"..\\a.roi": b""}, "outside of itself"),
        ({"/etc/a.roi": b""}, "outside of itself"),
        ({"C:/a.roi": b""}, "outside of itself"),
        ({"a.roi": b"\0" * (2**24 + 1)}, "claims 16,777,217 bytes"),
        ({"a.roi": composite([7.0])}, "PathIterator"),
        ({"a.roi": composite([0.0], claimed=10**6)}, "cannot be read"),
        ({"a.roi": composite([0, 1, np.nan, 1, 1, 1, 1, 2, 2])}, "not finite"),
    ],
)
def test_a_hostile_zip_of_rois_is_one_line(tmp_path: Path, entries: dict[str, bytes], message: str) -> None:
    with pytest.raises(SegbenchError, match=rf"a\.zip.*({message})") as error:
        read_rois([zipped(tmp_path, entries)])
    assert "\n" not in str(error.value)


def test_a_zip_that_lies_about_its_size_or_is_cut_off_is_one_line(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"a.roi": roi(roitype=ROI_TYPE.RECT), "b.roi": b"\1" * 5000})
    data = path.read_bytes()
    for broken in (data[:60], data[:-30], data.replace(struct.pack("<I", 5000), struct.pack("<I", 50)), b"PK", b""):
        path.write_bytes(broken)
        with pytest.raises(SegbenchError, match=r"a\.zip"):
            read_rois([path])


def test_an_empty_zip_is_an_image_without_cells(tmp_path: Path) -> None:
    assert read_rois([zipped(tmp_path, {})]).cells == ()


# Cellpose


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def seg_npy(folder: Path, saved: Any) -> Path:
    path = folder / "a_seg.npy"
    np.save(path, np.array(saved, object), allow_pickle=True)
    return path


def test_masks_come_without_what_lies_beside_them(tmp_path: Path) -> None:
    masks = np.array([[0, 1], [2, 2]], ">u2")
    saved = {
        "masks": masks,
        "outlines": np.asfortranarray(masks),
        "diameter": np.float32(3),
        "filename": "a.png",
        "flows": [np.zeros((1, 2, 3), np.uint8), [np.float64(1)]],
        "ismanual": np.array([True]),
        "restore": None,
        "manual_changes": [["2024", {"n": 1}]],
        "names": np.array(["a", "b"]),
    }
    np.testing.assert_array_equal(read_seg_npy(seg_npy(tmp_path, saved)), masks)
    np.testing.assert_array_equal(read_seg_npy(seg_npy(tmp_path, saved | {"masks": masks[None]})), masks)
    early = masks.astype(np.int32) - 1
    np.testing.assert_array_equal(read_seg_npy(seg_npy(tmp_path, saved | {"masks": early})), masks)


@pytest.mark.parametrize("beside", [False, True])
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(tmp_path: Path, beside: bool) -> None:
    bomb = Bomb(tmp_path / "made")
    saved = {"masks": np.ones((2, 2), int), "flows": [bomb]} if beside else {"masks": bomb}
    with pytest.raises(SegbenchError, match=r"a_seg\.npy is refused: its pickle asks for (posix|nt)\.mkdir"):
        read_seg_npy(seg_npy(tmp_path, saved))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"outlines": np.ones((2, 2), int)}, "has no masks"),
        ([1], r"not what Cellpose saves|has no masks"),
        ({"masks": [[0, 1]]}, "holds a list where an array is meant"),
        ({"masks": np.ones((3, 2, 2), int)}, "masks of 3 planes"),
        ({"masks": np.full((2, 2), 0.5)}, "not whole"),
        ({"masks": np.full((2, 2), -7)}, "from -7"),
        ({"masks": np.array(["a"])}, r"a label map is \(H, W\)"),
    ],
)
def test_a_file_that_cellpose_did_not_save_is_one_line(tmp_path: Path, saved: Any, message: str) -> None:
    with pytest.raises(SegbenchError, match=rf"a_seg\.npy.*({message})") as error:
        read_seg_npy(seg_npy(tmp_path, saved))
    assert "\n" not in str(error.value)


def test_a_label_map_or_no_npy_at_all_is_told_from_a_seg_npy(tmp_path: Path) -> None:
    path = tmp_path / "a_seg.npy"
    np.save(path, np.ones((2, 2)))
    with pytest.raises(SegbenchError, match="data import suffix"):
        read_seg_npy(path)
    whole = path.read_bytes()
    for broken in (b"hello", b"", whole.replace(b"}", b" "), whole.replace(b"(2,", b"(((")):
        path.write_bytes(broken)
        with pytest.raises(SegbenchError, match=r"a_seg\.npy is no \.npy file: .*") as error:
            read_seg_npy(path)
        assert "\n" not in str(error.value)


def claimed(shape: tuple[int, ...], content: Any, code: str = "u1") -> bytes:
    """Return the pickle of an array whose shape is claimed."""

    class Claim:
        def __reduce__(self) -> tuple[Any, ...]:
            make, arguments, state = np.empty(0, code).__reduce__()
            return make, arguments, (state[0], shape, state[2], False, content)

    return pickle.dumps(Claim(), protocol=4)


@pytest.mark.parametrize(
    "data",
    [
        claimed((10**12,), b"\0"),
        claimed((10**12,), [None], "O"),
        claimed((-1,), b"\0"),
        claimed(("a",), b"\0"),  # type: ignore[arg-type]
        pickle.dumps(7),
        b"",
        b"\x80\x04\x95",
        b"\x80\x04K\x01r\xff\xff\xff\xff.",
        b"\x80\x04]\x94h\x07.",
        b"c__builtin__\neval\n.",
        b"cnumpy\nndarray\n(I1000000000000\ntR.",
    ],
)
def test_nothing_is_believed_of_what_a_pickle_claims(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        as_array(read_pickle(io.BytesIO(data)))
