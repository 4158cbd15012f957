"""A model is applied to images: whole cells whatever their size, in every form, and nothing done twice or half."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import tifffile
from model_folders import PLAIN, model_of, threshold
from skimage.measure import label

from segbench.engine.data.prepare import normalize
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.files import spool
from segbench.engine.models.applying import Applied, ApplyOptions, Progress, apply
from segbench.engine.models.images import image_files
from segbench.engine.models.outputs import writable_forms
from segbench.engine.models.predictor import BrokenModelError
from segbench.engine.models.trained import TrainedModel
from segbench.errors import SegbenchError

ALL = ApplyOptions(write=writable_forms())


def blobs(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint16]:
    """Return an image of bright cells of many shapes and sizes, some longer than a window."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(height, width)), 5)
    field[height // 2, :] = field.max()  # a cell as long as the image
    return np.asarray(1000 + 10000 * (field - field.min()) / np.ptp(field), np.uint16)


def write_images(folder: Path, **images: npt.NDArray[Any]) -> list[str]:
    """Write images as TIFF and return the folder's argument."""
    folder.mkdir(exist_ok=True)
    for name, pixels in images.items():
        tifffile.imwrite(folder / f"{name}.tif", pixels)
    return [str(folder)]


def applied(
    model: TrainedModel, given: Sequence[str], to: Path, options: ApplyOptions | None = None
) -> dict[str, Applied]:
    """Apply a model and return what became of each image, by its name."""
    return {one.name: one for one in apply(model, image_files(given), to, options)}


def same(found: npt.NDArray[Any], truth: npt.NDArray[Any]) -> bool:
    """Say whether two label maps show the same cells, whatever their numbers."""
    pairs = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(found)) == len(np.unique(truth))


@pytest.mark.usefixtures("plugin")
def test_cells_are_whole_whichever_windows_cut_them(tmp_path: Path) -> None:
    image = blobs(230, 310)
    given = write_images(tmp_path / "i", a=image)
    found = applied(threshold(tmp_path / "m", 0.7), given, tmp_path / "out")["a"]
    labels = tifffile.imread(tmp_path / "out" / "a.labels.tif")
    truth = label(normalize(image, PLAIN) > 0.7)
    assert np.ptp(np.nonzero(truth == truth[115, 0])[1]) == 309
    assert found.cells == truth.max() > 30
    assert same(labels, truth)


@pytest.mark.usefixtures("plugin")
def test_what_lies_on_the_disk_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = write_images(tmp_path / "i", a=blobs(200, 150))
    model = threshold(tmp_path / "m")
    applied(model, given, tmp_path / "memory", ALL)
    monkeypatch.setattr(spool, "LARGE_BYTES", 1000)
    applied(model, given, tmp_path / "disk", ALL)
    first, second = (tifffile.imread(tmp_path / to / "a.labels.tif") for to in ("memory", "disk"))
    assert np.array_equal(first, second)
    for name in ("a.cells.csv", "a.geojson", "a.coco.json", "a.rois.zip", "a_seg.npy", "a.outlines.png"):
        assert (tmp_path / "memory" / name).read_bytes() == (tmp_path / "disk" / name).read_bytes()


@pytest.mark.usefixtures("plugin")
def test_all_forms_hold_the_same_cells_to_their_own_readers(tmp_path: Path) -> None:
    import zarr
    from matplotlib.path import Path as Outline
    from pycocotools.coco import COCO
    from roifile import roiread

    image = blobs(120, 100)
    options = ApplyOptions(write=writable_forms(), pixel_size_um=0.5)
    found = applied(threshold(tmp_path / "m", 0.6), write_images(tmp_path / "i", a=image), tmp_path / "o", options)["a"]
    out, k = tmp_path / "o", found.cells
    assert k is not None
    with tifffile.TiffFile(out / "a.labels.tif") as file:
        labels = file.asarray()
        assert 'PhysicalSizeX="0.5"' in str(file.ome_metadata)
    assert (labels.dtype, labels.shape, labels.max()) == (np.uint16, image.shape, k)
    areas = np.bincount(labels.ravel())[1:]

    group = zarr.open_group(str(out / "a.labels.zarr"), mode="r")
    (scales,) = group.attrs["ome"]["multiscales"]
    assert scales["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [0.5, 0.5]}]
    assert np.array_equal(group["0"][:], labels)

    coco = COCO(out / "a.coco.json")
    for one in coco.loadAnns(coco.getAnnIds()):
        assert np.array_equal(coco.annToMask(one).astype(bool), labels == one["id"])

    saved = np.load(out / "a_seg.npy", allow_pickle=True).item()
    assert np.array_equal(saved["masks"], labels)
    assert saved["filename"] == "a.tif"

    centres = np.stack(np.meshgrid(np.arange(100) + 0.5, np.arange(120) + 0.5), axis=-1).reshape(-1, 2)
    features = json.loads((out / "a.geojson").read_text())["features"]
    table = pl.read_parquet(out / "a.cells.parquet")
    assert table["label"].to_list() == [int(one["properties"]["name"]) for one in features] == list(range(1, k + 1))
    for feature, area in zip(features, areas, strict=True):
        pieces = feature["geometry"]["coordinates"]
        pieces = [pieces] if feature["geometry"]["type"] == "Polygon" else pieces
        inside = sum(
            (1 if n == 0 else -1) * int(Outline(ring).contains_points(centres).sum())
            for piece in pieces
            for n, ring in enumerate(piece)
        )
        assert inside == area == feature["properties"]["measurements"]["area_px"]
    rois = roiread(out / "a.rois.zip")
    assert [roi.name for roi in rois] == [str(n) for n in range(1, k + 1)]
    boxes = [(roi.top, roi.left, roi.bottom, roi.right) for roi in rois]
    places = [np.nonzero(labels == n) for n in range(1, k + 1)]
    assert boxes == [(y.min(), x.min(), y.max() + 1, x.max() + 1) for y, x in places]

    assert table["area_px"].to_list() == areas.tolist()
    assert pl.read_csv(out / "a.cells.csv", schema=table.schema).equals(table)
    first = places[0]
    row = table.row(0, named=True)
    assert (row["y"], row["x"], row["area_um2"]) == pytest.approx((first[0].mean(), first[1].mean(), areas[0] / 4))
    assert row["mean_1"] == pytest.approx(image[first].mean())
    assert table["at_border"].to_list() == [
        bool((y == 0).any() or (x == 0).any() or (y == 119).any() or (x == 99).any()) for y, x in places
    ]


@pytest.mark.usefixtures("plugin")
def test_an_image_of_another_pixel_size_is_brought_to_the_models_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.kron(blobs(100, 90), np.ones((2, 2), np.uint16))
    given = write_images(tmp_path / "i", a=image)
    plain = threshold(tmp_path / "m")
    model = TrainedModel(**{**vars(plain), "recipe": model_of("watershed", pixel_size_um=0.5).recipe})
    applied(model, given, tmp_path / "fine", ApplyOptions(pixel_size_um=0.25))
    one = applied(model, given, tmp_path / "own", ApplyOptions(pixel_size_um=0.25, rescale=False))["a"]
    fine, own = (tifffile.imread(tmp_path / to / "a.labels.tif") for to in ("fine", "own"))
    assert fine.shape == own.shape == image.shape
    assert (fine.max(), own.max()) == (len(np.unique(fine)) - 1, one.cells)
    assert ((fine > 0) == (own > 0)).mean() > 0.95
    assert not np.array_equal(fine, own)
    monkeypatch.setattr(spool, "LARGE_BYTES", 1000)
    applied(model, given, tmp_path / "disk", ApplyOptions(pixel_size_um=0.25))
    assert np.array_equal(tifffile.imread(tmp_path / "disk" / "a.labels.tif"), fine)


@pytest.mark.usefixtures("plugin")
def test_a_call_that_is_cut_off_goes_on_where_it_stood(tmp_path: Path) -> None:
    given = write_images(tmp_path / "i", **{name: blobs(70, 80, n) for n, name in enumerate("abc")})
    (tmp_path / "i" / "b.tif").write_bytes(b"II*\x00 no more")
    model, to = threshold(tmp_path / "m"), tmp_path / "out"
    told: list[Progress] = []
    going = apply(model, image_files(given), to, progress=told.append)
    assert next(going).name == "a"
    with pytest.raises(SegbenchError, match="another call is writing"):
        applied(model, given, to)
    going.close()
    kept = (to / "a.labels.tif").stat().st_mtime_ns
    (to / "half.tif").write_bytes(b"")
    done = applied(model, given, to)
    assert [(one.earlier, one.error is None) for one in done.values()] == [(True, True), (False, False), (False, True)]
    assert (to / "a.labels.tif").stat().st_mtime_ns == kept
    assert (told[0].n_images, told[-1].share > 0) == (3, True)
    # what was broken, changed or lost is done again, nothing else
    tifffile.imwrite(tmp_path / "i" / "b.tif", blobs(70, 80, 5))
    (to / "c.cells.csv").unlink()
    assert [one.earlier for one in applied(model, given, to).values()] == [True, False, False]
    applied(model, [str(tmp_path / "i" / "b.tif")], to)
    table = pl.read_csv(to / "images.csv")
    assert (table["name"].to_list(), table["status"].to_list()) == (["a", "c", "b"], ["done"] * 3)


@pytest.mark.usefixtures("plugin")
def test_nothing_is_written_over(tmp_path: Path) -> None:
    given, to = write_images(tmp_path / "i", a=blobs(70, 80)), tmp_path / "out"
    model = threshold(tmp_path / "m")
    applied(model, given, to)
    with pytest.raises(SegbenchError, match=r"another overlap \(none, not 20\)"):
        applied(model, given, to, ApplyOptions(overlap=20))
    with pytest.raises(SegbenchError, match="another model"):
        applied(model_of("watershed"), given, to)
    with pytest.raises(SegbenchError, match="by the name of a, which those of"):
        applied(model, write_images(tmp_path / "other", a=blobs(70, 80)), to)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    with pytest.raises(SegbenchError, match="is not empty"):
        applied(model, given, full)
    with pytest.raises(SegbenchError, match="is a file"):
        applied(model, given, full / "mine.txt")
    with pytest.raises(SegbenchError, match="cannot write results to"):
        applied(model, given, Path("/proc/none/out"))


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((40, 40), np.nan, np.float32), "holds NaN"),
        (np.zeros((5, 40, 40), np.uint16), "has 5 channels, the model sees nuclear"),
        (np.zeros((4, 6, 40, 40), np.uint16), "not plain which of them are channels"),
    ],
    ids=["NaN", "five channels", "a stack"],
)
def test_images_that_cannot_be_meant_are_told_and_left(tmp_path: Path, pixels: Any, words: str) -> None:
    given = write_images(tmp_path / "i", bad=pixels, good=blobs(70, 80))
    done = applied(model_of("watershed"), given, tmp_path / "out")
    assert done["good"].cells is not None
    assert re.search(words, str(done["bad"].error))


def test_small_empty_and_coloured_images_are_segmented(tmp_path: Path) -> None:
    colours = np.stack([blobs(80, 70), blobs(80, 70), blobs(80, 70, 1)], axis=-1)
    given = write_images(tmp_path / "i", none=np.zeros((90, 90), np.uint8), tiny=blobs(9, 5), colours=colours)
    for clahe in (0, 128):
        model = model_of("watershed", PreparationSettings(window=64, step=48, clahe_kernel=clahe))
        done = applied(model, given, tmp_path / f"out-{clahe}", ALL)
        assert [one.error for one in done.values()] == [None] * 3
        assert done["none"].cells == 0
        assert "colours made grey" in done["colours"].notes
        assert tifffile.imread(tmp_path / f"out-{clahe}" / "tiny.labels.tif").shape == (9, 5)


@pytest.mark.usefixtures("plugin")
def test_a_method_that_fails_is_told(tmp_path: Path) -> None:
    obstacle = tmp_path / "obstacle"
    given = write_images(tmp_path / "i", a=blobs(70, 80), b=blobs(70, 80, 1))
    obstacle.write_text("raise")
    done = applied(threshold(tmp_path / "m", obstacle=str(obstacle)), given, tmp_path / "out")
    assert "told to fail in prediction" in str(done["a"].error)
    obstacle.write_text("kill")
    with pytest.raises(BrokenModelError, match="was ended by signal 9"):
        applied(threshold(tmp_path / "m", obstacle=str(obstacle)), given, tmp_path / "out")
    obstacle.unlink()
    assert applied(threshold(tmp_path / "m", obstacle=str(obstacle)), given, tmp_path / "out")["a"].error is None
