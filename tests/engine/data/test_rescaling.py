"""The size of cells is told, and can be mended: images are brought to a diameter or a pixel size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segbench.engine.data import DatasetSpec, PreparationSettings, PreparedDataset, ensure_prepared
from segbench.engine.data.diameters import diameter_lines, diameters, median_diameters
from segbench.engine.data.resample import resample_labels, resample_large, resample_pixels, rescale
from segbench.engine.data.rescaling import Rescaling
from segbench.engine.data.source import RawImage
from segbench.engine.study.diameters import DIAMETERS
from segbench.errors import SegbenchError

WriteFolder = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("cache")


def _squares(side: int, step: int, size: int = 320) -> npt.NDArray[np.uint16]:
    """Return a label map of squares on a grid."""
    labels = np.zeros((size, size), np.uint16)
    corners = [(y, x) for y in range(8, size - side, step) for x in range(8, size - side, step)]
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + side, x : x + side] = number
    return labels


def _dataset(folder: Path, sides: dict[str, tuple[int, float | None]], **options: Any) -> DatasetSpec:
    """Write a folder of images train, test, ... of squares of a side, in TIFFs that tell a pixel size."""
    folder.mkdir()
    lines = ["image,mask,split,tissue"]
    for number, (name, (side, size)) in enumerate(sides.items()):
        labels = _squares(side, side + 12)
        image = 200 + 1000 * (labels > 0) + np.random.default_rng(number).integers(0, 50, labels.shape)
        told = {} if size is None else {"PhysicalSizeX": size, "PhysicalSizeY": size}
        tifffile.imwrite(folder / f"{name}.ome.tif", image.astype(np.uint16), metadata={"axes": "YX", **told})
        tifffile.imwrite(folder / f"{name}-mask.tif", labels)
        lines.append(f"{name}.ome.tif,{name}-mask.tif,{name.split('-')[0]},liver")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return DatasetSpec("squares", "folder", str(folder), {"target": "cell", "channels": ["image"], **options})


def _with(spec: DatasetSpec, **settings: float) -> PreparedDataset:
    return ensure_prepared(replace(spec, preparation=PreparationSettings(**settings)))  # type: ignore[arg-type]


def test_a_diameter_is_that_of_the_disc_of_the_cells_area() -> None:
    np.testing.assert_allclose(diameters(_squares(20, 40)), 20 * np.sqrt(4 / np.pi), rtol=1e-6)
    assert diameters(np.zeros((4, 5), int)).size == 0


def test_every_family_of_methods_has_a_range_with_its_source() -> None:
    from segbench.engine.grid.cards import all_cards

    assert {card.family for card in all_cards().values() if card.implemented} <= set(DIAMETERS)
    assert all(fit.source and (fit.largest is None or fit.smallest < fit.largest) for fit in DIAMETERS.values())


def test_cells_that_fit_are_told_and_nothing_else(tmp_path: Path) -> None:
    prepared = ensure_prepared(_dataset(tmp_path / "fit", {"train": (26, 0.5), "test": (26, 0.5)}))
    told = list(diameter_lines(prepared))
    assert len(told) == 1
    assert told[0].endswith("training cells (cell): 29.3 pixels (14.7 um)")
    assert prepared.notes == ()


def test_cells_that_are_too_large_are_told_with_the_option_that_mends_it(tmp_path: Path) -> None:
    spec = _dataset(tmp_path / "large", {"train": (98, None), "test": (98, None)})
    told = "\n".join(diameter_lines(ensure_prepared(spec)))
    assert "111 pixels\n" in told
    assert "windows overlap by 64 pixels" in told
    assert "detectron2 (2 to 52)" in told
    assert "mmdet" not in told
    assert "--rescale-to-diameter 30" in told
    assert "--rescale-to-pixel-size" not in told, "no pixel size is known"

    mended = _with(spec, rescale_to_diameter=30)
    median, n = median_diameters(mended)["cell"]
    assert (round(median), n) == (30, 4)
    assert mended.rescaling == Rescaling(factor=pytest.approx(30 / (98 * np.sqrt(4 / np.pi))))
    assert not any("outside" in line for line in diameter_lines(mended))
    assert np.load(mended.images_path("train"), mmap_mode="r").shape[0] == 1, "87 pixels are one window"
    assert [_labels(mended, split).max() for split in ("train", "test")] == [4, 4]


def test_each_image_is_brought_to_one_pixel_size(tmp_path: Path) -> None:
    sizes = {"train-a": (64, 0.25), "train-b": (32, 0.5), "test": (64, 0.25)}
    spec = _dataset(tmp_path / "mixed", sizes)
    plain = ensure_prepared(spec)
    assert any("pixel sizes differ: 0.25 um in 2 images, 0.5 um in 1 images" in note for note in plain.notes)
    assert plain.pixel_size_um is None

    prepared = _with(spec, rescale_to_pixel_size=0.5)
    assert prepared.pixel_size_um == 0.5
    assert prepared.index("train").group_by("image", maintain_order=True).len()["len"].to_list() == [1, 4]
    for cells in (diameters(window) for window in _labels(prepared, "train")[:2]):
        assert np.median(cells) == pytest.approx(32 * np.sqrt(4 / np.pi), rel=0.02)
    assert median_diameters(prepared)["cell"][0] == pytest.approx(36.1, abs=0.2)
    assert prepared.rescaling is not None
    assert prepared.rescaling.factor_of(0.25, "a") == 0.5

    with pytest.raises(SegbenchError, match=r"pixels of 0.25 um and of 0.5 um .*--rescale-to-pixel-size"):
        _with(spec, rescale_to_diameter=30)


def test_a_pixel_size_is_needed_and_must_agree(tmp_path: Path) -> None:
    unknown = _dataset(tmp_path / "unknown", {"train": (32, None), "test": (32, None)})
    with pytest.raises(SegbenchError, match=r"train.ome.tif: its pixel size is not known, say it with --pixel-size"):
        _with(unknown, rescale_to_pixel_size=0.5)
    told = replace(unknown, options={**unknown.options, "pixel_size_um": 0.25})
    half = _with(told, rescale_to_pixel_size=0.5)
    other = _with(replace(told, options={**told.options, "pixel_size_um": 0.5}), rescale_to_pixel_size=0.5)
    assert half.fingerprint != other.fingerprint, "the pixel size that is told decides the content here"

    known = _dataset(tmp_path / "known", {"train": (32, 0.3), "test": (32, 0.3)}, pixel_size_um=0.6)
    with pytest.raises(SegbenchError, match=r"says that its pixels are 0.3 um, --pixel-size says 0.6"):
        _with(known, rescale_to_pixel_size=0.5)
    with pytest.raises(SegbenchError, match="would be rescaled by 300"):
        _with(replace(known, options={**known.options, "pixel_size_um": 0.3}), rescale_to_pixel_size=0.001)


def test_without_the_option_nothing_changes_and_with_it_the_fingerprint_does(write_folder: WriteFolder) -> None:
    spec = DatasetSpec("cells", "folder", str(write_folder()), {"target": "cell", "channels": ["image"]})
    # what was hashed before images could be rescaled
    hashed = {"window", "step", "edge", "percentiles", "clahe_kernel", "clahe_clip", "keep_empty"}
    assert set(PreparationSettings().to_dict()) == hashed
    plain = ensure_prepared(spec)
    assert plain.rescaling is None
    mended = _with(spec, rescale_to_diameter=12)
    assert mended.fingerprint != plain.fingerprint
    assert PreparationSettings.from_dict(mended.spec.preparation.to_dict()) == mended.spec.preparation
    assert ensure_prepared(spec).fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"rescale_to_diameter": 30, "rescale_to_pixel_size": 0.5}, "not to both"),
        ({"rescale_to_diameter": 1}, "2 to 1000 pixels"),
        ({"rescale_to_pixel_size": float("nan")}, "above 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(settings: dict[str, float], why: str) -> None:
    with pytest.raises(SegbenchError, match=why):
        PreparationSettings(**settings)  # type: ignore[arg-type]


def test_shrinking_smooths_what_the_new_pixels_cannot_show() -> None:
    stripes = np.tile(np.array([0, 1000], np.uint16), 128)[None, None].repeat(64, axis=1)
    small = resample_pixels(stripes, (16, 64))
    assert small.dtype == np.float32
    assert small[..., 1:-1].std() < 1, "every fourth column alone would be black or white"
    assert small.mean() == pytest.approx(500, rel=0.01)
    ramp = np.arange(100, dtype=np.float64)[None, None].repeat(10, axis=1)
    np.testing.assert_allclose(resample_pixels(ramp, (10, 200))[0, 0, 1:-1], np.arange(1, 199) / 2 - 0.25, atol=1e-3)


def test_labels_are_never_mixed_and_come_back_to_their_place() -> None:
    labels = _squares(24, 40).astype(np.int32)
    small = resample_labels(labels, (160, 160))
    assert set(np.unique(small)) == set(np.unique(labels))
    back = resample_labels(small, labels.shape)
    assert np.mean(back != labels) < 0.01
    raw = RawImage("a", "liver", labels[None].astype(np.float32), {"cell": labels})
    assert rescale(raw, 0.5).pixels.shape == (1, 160, 160)


def test_cells_without_a_pixel_left_are_counted(tmp_path: Path) -> None:
    spec = _dataset(tmp_path / "dust", {"train": (2, 1.0), "test": (2, 1.0)})
    prepared = _with(spec, rescale_to_pixel_size=8)
    lost = next(note for note in prepared.notes if "no pixel left" in note)
    assert int(lost.split()[0].replace(",", "")) > 100


def _labels(prepared: PreparedDataset, split: str) -> npt.NDArray[np.int32]:
    labels: npt.NDArray[np.int32] = np.load(prepared.labels_path(split, "cell"))
    return labels


@pytest.mark.parametrize(
    ("size", "shape"),
    [((2, 613, 200), (306, 100)), ((1, 300, 90), (611, 177)), ((1, 5, 900), (1, 300)), ((1, 1, 1), (3, 3))],
    ids=["half", "twice", "a thin one", "a pixel"],
)
def test_large_images_are_rescaled_some_rows_at_a_time(size: tuple[int, ...], shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 60_000, size).astype(np.uint16)
    whole, rows = resample_pixels(pixels, shape), resample_large(pixels, shape, "a")
    assert (rows.shape, rows.dtype) == (whole.shape, whole.dtype)
    np.testing.assert_allclose(rows, whole, rtol=1e-6)
