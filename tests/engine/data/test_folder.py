"""A user's own folder is read in every format that it may have, and its faults are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from cell_images import discs
from PIL import Image

from segbench.engine.data import DatasetSpec, dataset_tasks, dataset_tissues, ensure_prepared
from segbench.engine.data.files import read_image, read_labels
from segbench.engine.data.folder import FolderSource
from segbench.errors import SegbenchError

WriteFolder = Callable[..., Path]
ROWS = [
    {"image": "a.png", "mask": "ma.png", "split": "train", "tissue": "liver"},
    {"image": "b.png", "mask": "mb.png", "split": "test", "tissue": "liver"},
]


def _changed(row: int, **values: str) -> list[dict[str, str]]:
    return [{**r, **(values if n == row else {})} for n, r in enumerate(ROWS)]


def _first(folder: Path, **options: Any) -> Any:
    source = FolderSource(folder, options)
    return source, next(source.images("train"))()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("layout", ["YX", "CYX", "YXC"])
def test_tiff_and_npy_keep_their_pixels(tmp_path: Path, dtype: type, layout: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (3, 40, 50)).astype(dtype)
    stored = {"YX": pixels[0], "CYX": pixels, "YXC": np.moveaxis(pixels, 0, -1)}[layout]
    expected = pixels[:1] if layout == "YX" else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack")
    np.save(tmp_path / "a.npy", stored)
    for name in ("a.tif", "a.npy"):
        found = read_image(tmp_path / name)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == dtype


def test_a_named_channel_axis_decides_where_the_shape_does_not(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (20, 16, 18)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(read_image(tmp_path / "a.ome.tif"), pixels)


def test_pictures_of_every_mode_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([rgb, rgb[..., :1]]), "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.bmp")
    tifffile.imwrite(tmp_path / "rgba.tif", np.dstack([rgb, rgb[..., :1]]), photometric="rgb")
    planes = np.moveaxis(rgb, -1, 0)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), planes)
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), planes)
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.tif"), planes)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), planes[:1])
    np.testing.assert_array_equal(read_image(tmp_path / "grey.bmp"), planes[:1])
    np.testing.assert_array_equal(read_image(tmp_path / "grey16.png"), planes[:1].astype(np.uint16) * 257)


def test_a_palette_masks_labels_are_its_indices(tmp_path: Path) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    picture = Image.fromarray(labels, "P")
    picture.putpalette([7, 8, 9] * 256)
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), labels)


def test_one_channel_is_named_image_and_several_by_number(write_folder: WriteFolder) -> None:
    stack = np.stack([discs(300, 280, 3)[0]] * 2)
    two = write_folder(
        [{**r, "image": r["image"].replace("png", "tif")} for r in ROWS], {"a.tif": stack, "b.tif": stack}, "two"
    )
    assert FolderSource(write_folder(ROWS), {}).channels == ("image",)
    assert FolderSource(two, {}).channels == ("ch0", "ch1")
    assert _first(two, channels=["dapi", "cd45"])[1].pixels.shape == (2, 300, 280)


def test_grey_stored_as_colour_is_one_channel_and_colour_three(write_folder: WriteFolder) -> None:
    grey = discs(300, 280, 3)[0].astype(np.uint8)
    colour = np.dstack([grey, grey // 2, grey // 4])
    as_grey = write_folder(ROWS, {"a.png": np.dstack([grey] * 3), "b.png": grey}, "grey")
    as_colour = write_folder(ROWS, {"a.png": colour, "b.png": colour}, "colour")
    source, image = _first(as_grey)
    assert source.channels == ("image",)
    np.testing.assert_array_equal(image.pixels, grey[None])
    assert FolderSource(as_colour, {}).channels == ("ch0", "ch1", "ch2")
    luminance = _first(as_colour, channels=["image"])[1].pixels
    np.testing.assert_allclose(luminance[0], 0.299 * grey + 0.587 * (grey // 2) + 0.114 * (grey // 4))


def test_channel_columns_add_a_file_a_channel(write_folder: WriteFolder) -> None:
    rows = [{**r, "channel:membrane": f"x{n}.tif"} for n, r in enumerate(ROWS)]
    membrane = discs(300, 280, 4, seed=9)[0]
    folder = write_folder(rows, {"x0.tif": membrane, "x1.tif": membrane})
    source, image = _first(folder, target="wholecell")
    assert source.channels == ("image", "membrane")
    np.testing.assert_array_equal(image.pixels[1], membrane)
    spec = DatasetSpec("m", "folder", str(folder), {"target": "nuclear", "channels": ["nuclear", "membrane"]})
    assert [task.name for task in dataset_tasks(spec)] == ["m-nuclear-1ch", "m-nuclear-2ch"]


def test_images_without_tissue_are_of_tissue_unknown(write_folder: WriteFolder) -> None:
    rows = [{key: value for key, value in row.items() if key != "tissue"} for row in ROWS]
    spec = DatasetSpec("m", "folder", str(write_folder(rows)))
    assert dataset_tissues(spec) == ("unknown",)
    assert [task.name for task in dataset_tasks(spec)] == ["m-cell-1ch"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (_changed(1, split="train"), "no row of split 'test'"),
        (_changed(0, split="test"), "no row of split 'train'"),
        (_changed(1, split="tst"), "line 3: unknown split 'tst'; did you mean test"),
        (_changed(1, image="a.png"), "line 3: image 'a.png' is listed twice"),
        (_changed(1, mask=""), "line 3: column 'mask' is empty"),
        (_changed(0, tissue="all"), "no tissue can be named 'all'"),
        (_changed(1, image="../b.png"), r"line 3: \.\./b.png leaves the folder; put index.csv into"),
        (_changed(1, mask="masks/../../mb.png"), "line 3: .* leaves the folder"),
        ([{"image": "a.png", "split": "train"}], "lacks column 'mask'; it has image, split"),
    ],
)  # fmt: skip
def test_a_wrong_index_is_told(write_folder: WriteFolder, rows: list[dict[str, str]], why: str) -> None:
    with pytest.raises(SegbenchError, match=why):
        FolderSource(write_folder(rows), {})


def test_a_missing_file_or_index_is_told(write_folder: WriteFolder, tmp_path: Path) -> None:
    folder = write_folder(ROWS)
    (folder / "mb.png").unlink()
    with pytest.raises(SegbenchError, match=r"lists mb.png, which does not exist"):
        FolderSource(folder, {})
    (folder / "index.csv").unlink()
    with pytest.raises(SegbenchError, match=r"index.csv does not exist; a folder dataset needs it"):
        FolderSource(folder, {})
    with pytest.raises(SegbenchError, match="there is nothing at"):
        ensure_prepared(DatasetSpec("m", "folder", str(tmp_path / "nowhere")))


def test_a_wrong_number_of_channels_is_told(write_folder: WriteFolder) -> None:
    with pytest.raises(SegbenchError, match=r"a.png has 1 channels, this dataset has 2"):
        _first(write_folder(ROWS), channels=["a", "b"])
    with pytest.raises(SegbenchError, match="different names"):
        FolderSource(write_folder(ROWS, name="again"), {"channels": ["a", "a"]})
    with pytest.raises(SegbenchError, match="unknown target 'nuclei'; did you mean nuclear"):
        FolderSource(write_folder(ROWS, name="third"), {"target": "nuclei"})


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.jpg"])
def test_a_truncated_file_is_told(tmp_path: Path, name: str) -> None:
    image = discs(200, 200, 4)[0]
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, image)
    elif name == "a.tif":
        tifffile.imwrite(path, image)
    else:
        Image.fromarray(image.astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SegbenchError, match=rf"{name} cannot be read: "):
        read_image(path)
    path.write_bytes(b"not an image at all")
    with pytest.raises(SegbenchError, match=rf"{name} cannot be read: "):
        read_image(path)


def test_a_pickled_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SegbenchError, match="cannot be read"):
        read_image(tmp_path / "a.npy")


def test_the_real_nuclei_are_all_there(testdata: Path, cache: Path) -> None:  # noqa: ARG001
    folder = testdata / "dsb2018-fluorescence"
    index = pl.read_csv(folder / "index.csv")
    spec = DatasetSpec("dsb2018", "folder", str(folder), {"target": "nuclear"})
    prepared = ensure_prepared(spec)
    assert dataset_tasks(spec)[0].name == "dsb2018-nuclear-1ch"
    source = FolderSource(folder, spec.options)
    assert dict(source.counts()) == {"train": 353, "val": 79, "test": 109}
    for split in prepared.splits:
        of_split = index.filter(pl.col("split") == split)
        windows = prepared.index(split)
        assert set(windows["image"]) <= set(of_split["image"])
        # an image that is one window keeps all its cells
        single = of_split.filter((pl.col("height") <= 256) & (pl.col("width") <= 256))
        joined = single.join(windows, on="image")
        assert joined.height > 10
        assert joined["n_cells"].to_list() == joined["n_cells_nuclear"].to_list()
    pixels = np.load(prepared.images_path("test"), mmap_mode="r")
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_an_index_is_read_as_spreadsheets_write_it(write_folder: Callable[..., Path], delimiter: str) -> None:
    folder = write_folder(ROWS)
    text = (folder / "index.csv").read_text().replace(",", delimiter).replace("\n", "\r\n")
    (folder / "index.csv").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert sum(FolderSource(folder, {}).counts().values()) == len(ROWS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,image,mask,split\na,b,c,train\n", "has the column 'image' twice"),
        ("image,mask,split\n\u00e9,b,train\n".encode("latin-1"), "not UTF-8"),
        ("image,mask,split\na,b,train\n".encode("utf-16"), "not UTF-8"),
        (b"image,mask,split\na\0,b,train\n", "NUL"),
    ],
)
def test_an_index_that_is_none_is_told(write_folder: Callable[..., Path], content: bytes, message: str) -> None:
    folder = write_folder(ROWS)
    (folder / "index.csv").write_bytes(content)
    with pytest.raises(SegbenchError, match=message):
        FolderSource(folder, {})


def test_an_image_listed_by_two_names_is_listed_twice(write_folder: Callable[..., Path]) -> None:
    folder = write_folder([*ROWS, {**ROWS[0], "image": f"./{ROWS[0]['image']}"}])
    with pytest.raises(SegbenchError, match="listed twice"):
        FolderSource(folder, {})


def test_images_without_a_cell_are_counted(write_folder: WriteFolder) -> None:
    empty = np.zeros((300, 280), np.uint8)
    one = {**ROWS[0], "image": "c.png", "mask": "mc.png"}
    folder = write_folder([*ROWS, one], {"mb.png": empty, "mc.png": empty, "c.png": discs(300, 280, 7)[0]})
    notes = ensure_prepared(DatasetSpec("m", "folder", str(folder))).notes
    assert "train: 1 of 2 images have no cell" in notes
    assert any(note.startswith("test: none of the 1 images has a cell: nothing can be scored") for note in notes)
