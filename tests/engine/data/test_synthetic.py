"""Synthetic images are reproducible, labelled exactly, and differ by tissue."""

from __future__ import annotations

import numpy as np
import pytest

from segbench.engine.data.morphology import measure
from segbench.engine.data.source import RawImage
from segbench.engine.data.synthetic import CELL_TYPES, TISSUES, SyntheticSource, make_image
from segbench.engine.data.windows import check_labels
from segbench.engine.study.tissues import LIVECELL_TISSUES, TISSUENET_TISSUES
from segbench.errors import SegbenchError


@pytest.fixture(scope="module")
def tissue_images() -> dict[str, RawImage]:
    return {name: make_image("x", name, tissue, 256, [0, 9, n]) for n, (name, tissue) in enumerate(TISSUES.items())}


def test_tissues_are_the_studys() -> None:
    assert tuple(TISSUES) == TISSUENET_TISSUES
    assert tuple(CELL_TYPES) == LIVECELL_TISSUES


@pytest.mark.slow
def test_images_are_the_same_in_any_order_and_differ_by_seed() -> None:
    def images(seed: int) -> list[RawImage]:
        source = SyntheticSource({"layout": "livecell", "seed": seed, "train": 1, "val": 1, "test": 1})
        loads = list(source.images("test"))
        return [load() for load in reversed(loads)][::-1]

    first, again, other = (
        images(0),
        [load() for load in SyntheticSource({"layout": "livecell", "test": 1}).images("test")],
        images(1),
    )
    for a, b, c in zip(first, again, other, strict=True):
        assert (a.image, a.tissue) == (b.image, b.tissue) == (c.image, c.tissue)
        np.testing.assert_array_equal(a.pixels, b.pixels)
        np.testing.assert_array_equal(a.labels["wholecell"], b.labels["wholecell"])
        assert not np.array_equal(a.labels["wholecell"], c.labels["wholecell"])


def test_every_nucleus_lies_in_its_cell(tissue_images: dict[str, RawImage]) -> None:
    for image in tissue_images.values():
        nuclei, cells = image.labels["nuclear"], image.labels["wholecell"]
        assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()
        n_cells, n_nuclei = np.unique(cells).size - 1, np.unique(nuclei).size - 1
        assert 0.75 * n_cells < n_nuclei <= n_cells
        assert (nuclei > 0).sum() < 0.8 * (cells > 0).sum()


def test_cells_touch(tissue_images: dict[str, RawImage]) -> None:
    for image in tissue_images.values():
        cells = image.labels["wholecell"]
        touching = (cells[:, 1:] != cells[:, :-1]) & (cells[:, 1:] > 0) & (cells[:, :-1] > 0)
        assert touching.sum() > 100


def test_stain_is_where_it_belongs(tissue_images: dict[str, RawImage]) -> None:
    for image in tissue_images.values():
        nuclear, membrane = image.pixels.astype(float)
        nuclei, cells = image.labels["nuclear"] > 0, image.labels["wholecell"] > 0
        assert nuclear[nuclei].mean() > 2 * nuclear[~cells].mean() - 300
        assert nuclear[nuclei].mean() > 1.5 * nuclear[cells & ~nuclei].mean() - 150
        assert membrane[cells & ~nuclei].mean() > 1.2 * membrane[~cells].mean()


def test_tissues_differ_in_size_elongation_and_density(tissue_images: dict[str, RawImage]) -> None:
    found = {}
    for name, image in tissue_images.items():
        shapes = measure(check_labels(image.labels["wholecell"], name))
        inner = ~shapes.cut
        found[name] = (shapes.area[inner].mean(), shapes.elongation[inner].mean(), shapes.area.size)
    area, elongation, number = (dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True))
    assert area["Esophagus"] > 2.5 * area["Lymph Node"]
    assert elongation["Colon"] < 0.75 * elongation["Lymph Node"]
    assert number["Lymph Node"] > 3 * number["Lung"]


def test_phase_contrast_has_dark_bodies_in_bright_halos() -> None:
    for n, (name, tissue) in enumerate(CELL_TYPES.items()):
        image = make_image("x", name, tissue, 256, [0, 9, n])
        assert image.pixels.dtype == np.uint8
        pixels, inside = image.pixels[0].astype(float), image.labels["wholecell"] > 0
        from scipy.ndimage import distance_transform_edt

        outside, depth = distance_transform_edt(~inside), distance_transform_edt(inside)
        halo, rim, far = (
            pixels[(outside > 0) & (outside <= 2)],
            pixels[(depth > 0.5) & (depth <= 2)],
            pixels[outside > 12],
        )
        assert halo.mean() > rim.mean() + 25
        assert far.size == 0 or halo.mean() > far.mean() + 8


def test_lung_and_spleen_are_scarce_in_training_only() -> None:
    source = SyntheticSource({})
    tissues = [load.args[1] for load in source.images("train")]  # type: ignore[attr-defined]
    assert tissues.count("Lung") == tissues.count("Spleen") == 2
    assert tissues.count("Breast") == 6
    assert source.counts() == {"train": 52, "val": 20, "test": 50}
    assert SyntheticSource({"scale": 0.5}).counts() == {"train": 26, "val": 10, "test": 20}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"sed": 1}, "did you mean seed"),
        ({"layout": "livecel"}, "did you mean livecell"),
        ({"seed": -1}, "whole number from 0"),
        ({"scale": 0}, "above 0"),
        ({"train": 0}, "1 to 10000"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(SegbenchError, match=why):
        SyntheticSource(options)
