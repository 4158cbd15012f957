"""OME-Zarr and CZI files, written by the formats' own libraries, read by the rules for TIFF."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from pylibCZIrw import czi

import segbench
from segbench.engine.data import DatasetSpec
from segbench.engine.data.cache import ensure_prepared
from segbench.engine.files import spool
from segbench.engine.files.picture import Take
from segbench.engine.files.pictures import read_numbers, read_picture
from segbench.errors import SegbenchError

PIXELS = np.random.default_rng(0).integers(0, 60_000, (2, 3, 40, 50)).astype(np.uint16)
UNITS = {"y": "micrometer", "x": "micrometer", "z": "micrometer"}


def write_zarr(path: Path, pixels: np.ndarray, axes: str = "czyx", version: str = "0.5", **more: Any) -> Path:
    """Write an OME-Zarr image of two resolutions, as version 0.4 or 0.5 has it."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    for name, step in (("0", 1), ("1", 2)):
        group.create_array(name, data=pixels[..., ::step, ::step], chunks=(1,) * (pixels.ndim - 2) + (16, 16))
    scales = [[1.0] * (pixels.ndim - 2) + [0.25 * step] * 2 for step in (1, 2)]
    multiscales = {
        "version": version,
        "axes": [{"name": axis, "type": "space", **({"unit": UNITS[axis]} if axis in UNITS else {})} for axis in axes],
        "datasets": [
            {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            for n, scale in enumerate(scales)
        ],
    }
    told = {"multiscales": [multiscales], **more}
    group.attrs.update(told if version == "0.4" else {"ome": {"version": version, **told}})
    return path


def write_czi(path: Path, pixels: np.ndarray, scenes: int = 1) -> Path:
    """Write channels and depth, (C, Z, H, W), once a scene."""
    with czi.create_czi(str(path)) as file:
        for scene in range(scenes):
            for c, z in np.ndindex(*pixels.shape[:2]):
                plane = {"C": c, "Z": z, "T": 0}
                file.write(pixels[c, z][..., None].copy(), plane=plane, scene=scene, location=(100 * scene, 0))
        file.write_metadata(channel_names={0: "dapi", 1: "actin"}, scale_x=5e-7, scale_y=5e-7)
    return path


def test_a_large_ome_zarr_image_is_decoded_onto_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zarr(tmp_path / "a.zarr", PIXELS[:, 0], "cyx")
    monkeypatch.setattr(spool, "LARGE_BYTES", 1000)
    pixels = read_picture(path).pixels
    assert isinstance(pixels.base, np.memmap) or isinstance(pixels, np.memmap)
    np.testing.assert_array_equal(pixels, PIXELS[:, 0])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_image_is_its_full_resolution_with_what_it_says_of_it(tmp_path: Path, version: str) -> None:
    omero = {"channels": [{"label": "dapi"}, {"label": "actin"}]}
    path = write_zarr(tmp_path / "a.zarr", PIXELS, version=version, omero=omero)
    for take, expected in ((Take("max"), PIXELS.max(axis=1)), (Take.of(None, ["Z=2"]), PIXELS[:, 2])):
        found = read_picture(path, take)
        np.testing.assert_array_equal(found.pixels, expected)
        assert (found.channels, found.pixel_size_um) == (("dapi", "actin"), 0.25)
        assert found.notes == ("smaller copies left out",)
    with pytest.raises(
        SegbenchError, match=r"a\.zarr has an axis Z \(depth\) of 3 planes: choose one with --plane Z=0"
    ):
        read_picture(path)
    with pytest.raises(SegbenchError, match="--plane Z=3, but Z goes from 0 to 2"):
        read_picture(path, Take.of(None, ["Z=3"]))


def test_a_czi_file_is_its_channels_with_names_and_pixel_size(tmp_path: Path) -> None:
    path = write_czi(tmp_path / "a.czi", PIXELS)
    found = read_picture(path, Take("max"))
    np.testing.assert_array_equal(found.pixels, PIXELS.max(axis=1))
    assert (found.channels, found.pixel_size_um) == (("dapi", "actin"), pytest.approx(0.5))
    with pytest.raises(SegbenchError, match=r"a\.czi has an axis Z \(depth\) of 3 planes"):
        read_picture(path)


def test_axes_of_one_plane_are_none(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", PIXELS[:1, :1][None], "tczyx")
    np.testing.assert_array_equal(read_picture(path).pixels, PIXELS[0, :1])


def test_chunks_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", PIXELS[0, 0], "yx")
    (path / "0" / "c" / "1" / "1").unlink()
    found = read_picture(path)
    assert "1 of 12 chunks are not there, their pixels are 0" in found.notes
    assert not found.pixels[0, 16:32, 16:32].any()


def test_label_images_are_their_numbers(tmp_path: Path) -> None:
    labels = np.arange(40 * 50, dtype=np.uint32).reshape(40, 50) + 70_000
    np.testing.assert_array_equal(read_numbers(write_zarr(tmp_path / "l.zarr", labels, "yx")), labels)
    labels = labels.astype(np.uint16)
    np.testing.assert_array_equal(read_numbers(write_czi(tmp_path / "l.czi", labels[None, None])), labels)


def test_colours_of_a_czi_file_are_red_green_and_blue(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    with czi.create_czi(str(tmp_path / "c.czi")) as file:
        file.write(colours[..., ::-1].copy(), plane={"C": 0})  # stored as blue, green, red
        file.write_metadata()
    np.testing.assert_array_equal(read_picture(tmp_path / "c.czi").pixels, np.moveaxis(colours, -1, 0))
    with pytest.raises(SegbenchError, match=r"c\.czi is a colour picture"):
        read_numbers(tmp_path / "c.czi")


def _without_multiscales(folder: Path) -> Path:
    write_zarr(folder / "plate.zarr" / "A1", PIXELS)
    zarr.open_group(str(folder / "plate.zarr"), mode="a").attrs["plate"] = {}
    return folder / "plate.zarr"


def _escaping(folder: Path) -> Path:
    path = write_zarr(folder / "a.zarr", PIXELS)
    write_zarr(folder / "other.zarr", PIXELS)
    group = zarr.open_group(str(path), mode="a")
    ome = group.attrs["ome"]
    ome["multiscales"][0]["datasets"][0]["path"] = "../other.zarr/0"
    group.attrs["ome"] = ome
    return path


def _cut_off(folder: Path) -> Path:
    path = write_czi(folder / "cut.czi", PIXELS)
    path.write_bytes(path.read_bytes()[:700])
    return path


def _broken_chunk(folder: Path) -> Path:
    path = write_zarr(folder / "a.zarr", PIXELS[0, 0], "yx")
    (path / "0" / "c" / "0" / "0").write_bytes(b"no chunk")
    return path


def _huge(folder: Path) -> Path:
    path = write_zarr(folder / "a.zarr", PIXELS[0, 0], "yx")
    text = (path / "0" / "zarr.json").read_text()
    (path / "0" / "zarr.json").write_text(text.replace("40,", "4000000,").replace("50\n", "5000000\n"))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_without_multiscales, r"plate\.zarr is no OME-Zarr image: .* name one of its images, such as .*A1"),
        (_escaping, r"a\.zarr cannot be read: .*\.\."),
        (_cut_off, r"cut\.czi cannot be read"),
        (_broken_chunk, r"a\.zarr cannot be read"),
        (_huge, r"a\.zarr is cut into 78,125,000,000 chunks"),
        (lambda folder: write_czi(folder / "s.czi", PIXELS[:, :1], scenes=2), r"s\.czi holds 2 scenes"),
        (lambda folder: write_zarr(folder / "a.zarr", PIXELS, "cqqx"), r"a\.zarr has the axes CQQX"),
        (lambda folder: write_zarr(folder / "a.zarr", PIXELS) / "0", "is a bare array"),
    ],
)
def test_what_is_no_image_is_told_in_one_line(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(SegbenchError, match=message) as error:
        read_picture(make(tmp_path))
    assert "\n" not in str(error.value)


def test_a_format_whose_reader_is_not_installed_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_zarr(tmp_path / "a.zarr", PIXELS), write_czi(tmp_path / "a.czi", PIXELS)]
    for name, head in (("a.nd2", b"\xda\xce\xbe\x0a"), ("a.lif", b"\x70\x00\x00\x00")):
        (tmp_path / name).write_bytes(head + bytes(60))
        paths.append(tmp_path / name)
    for module in ("zarr", "pylibCZIrw", "pylibCZIrw.czi", "nd2", "liffile"):
        monkeypatch.setitem(sys.modules, module, None)
    for path in paths:
        with pytest.raises(SegbenchError, match=r"install it with pip install 'segbench\[formats\]'"):
            read_picture(path)


def test_a_folder_dataset_can_hold_them_and_knows_when_one_changes(tmp_path: Path) -> None:
    labels = np.zeros((40, 50), np.uint16)
    labels[5:15, 5:15], labels[20:30, 20:35] = 1, 2
    for n, split in enumerate(("train", "test")):
        write_zarr(tmp_path / f"{split}.zarr", PIXELS[n, :1], "cyx")
        np.save(tmp_path / f"{split}.npy", labels)
    write_zarr(tmp_path / "labels.zarr", labels, "yx")
    rows = ["image,mask,split", "train.zarr,labels.zarr,train", "test.zarr,test.npy,test"]
    (tmp_path / "index.csv").write_text("\n".join(rows))
    spec = DatasetSpec("m", "folder", str(tmp_path))
    first = ensure_prepared(spec)
    assert first.channels == ("image",)
    shutil.rmtree(tmp_path / "train.zarr")
    write_zarr(tmp_path / "train.zarr", PIXELS[1, 1:2], "cyx")
    assert ensure_prepared(spec).fingerprint != first.fingerprint


def test_evaluate_reads_what_prepare_reads(tmp_path: Path) -> None:
    labels = np.zeros((40, 50), np.uint16)
    labels[5:15, 5:15], labels[20:30, 20:35] = 1, 2
    for folder in ("truth", "found"):
        (tmp_path / folder).mkdir()
        write_zarr(tmp_path / folder / "a.zarr", labels, "yx")
        write_czi(tmp_path / folder / "b.czi", labels[None, None])
    in_folders = segbench.evaluate(tmp_path / "truth", tmp_path / "found")
    assert (in_folders.pooled.n_images, in_folders.pooled.n_truth, in_folders.pooled.ap50) == (2, 4, 1.0)
    alone = segbench.evaluate(tmp_path / "truth" / "a.zarr", tmp_path / "found" / "b.czi")
    assert (alone.pooled.n_images, alone.pooled.ap50) == (1, 1.0)
