"""Which images are meant, which of their planes a model sees, and at which scale: found, or asked for in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segbench.engine.data.recipe import Recipe
from segbench.engine.data.rescaling import Rescaling
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.files.picture import Picture
from segbench.engine.models.channels import planes_for
from segbench.engine.models.images import image_files
from segbench.engine.models.scale import scale_of
from segbench.engine.models.segmenting import tiling
from segbench.engine.models.trained import TrainedModel
from segbench.errors import SegbenchError
from segbench.methods.card import Budget
from segbench.methods.job import Task

PLAIN = PreparationSettings()


def picture(n: int, *names: str) -> Picture:
    """Return a picture whose planes are their numbers."""
    return Picture(np.stack([np.full((3, 4), k) for k in range(n)]), names or None)


def seen(of: Picture, wanted: str, chosen: str = "", has: str = "nuclear membrane") -> list[int]:
    """Return the numbers of the planes that a model sees."""
    recipe = Recipe(tuple(has.split()), PLAIN)
    return [int(plane[0, 0]) for plane in planes_for(of, wanted.split(), recipe, chosen.split(), "a.tif").pixels]


def test_channels_are_found_by_name_then_by_order() -> None:
    assert seen(picture(3, "Membrane", "x", "NUCLEAR"), "nuclear membrane") == [2, 0]
    assert seen(picture(2), "membrane") == [1]
    assert seen(picture(2, "DAPI", "CD3"), "nuclear membrane") == [0, 1]
    assert seen(picture(1, "DAPI"), "nuclear") == [0]
    assert seen(picture(4, "a", "b", "c", "d"), "nuclear membrane", "d b") == [3, 1]
    assert seen(picture(4), "nuclear membrane", "2 1") == [1, 0]
    assert seen(picture(4), "a b c", "4 1 2", "a b c") == [3, 0, 1]


@pytest.mark.parametrize(
    ("of", "wanted", "chosen", "words"),
    [
        (
            picture(3, "DAPI", "CD3", "CD8"),
            "nuclear",
            "",
            r"a.tif has 3 channels \(DAPI, CD3, CD8\), the model sees nuc",
        ),
        (picture(1), "nuclear membrane", "", "has 1 channel, the model sees nuclear, membrane"),
        (picture(2, "DAPI", "CD3"), "nuclear", "DAPY", "unknown channel of a.tif 'DAPY'; did you mean DAPI"),
        (picture(2), "nuclear", "3", "has 2 channels, --channels says number 3"),
        (picture(2), "nuclear", "1 2", "--channels names 2, the model sees 1"),
    ],
)
def test_channels_that_are_missing_are_told(of: Picture, wanted: str, chosen: str, words: str) -> None:
    with pytest.raises(SegbenchError, match=words):
        seen(of, wanted, chosen)


def test_an_image_is_brought_to_the_pixel_size_of_the_model() -> None:
    half, by_factor = Recipe((), PLAIN, None, 0.5), Recipe((), PLAIN, Rescaling(factor=2.0))
    to_size = Recipe((), PLAIN, Rescaling(pixel_size_um=0.5), 0.5)
    assert scale_of(half, 1.0, None, "a").factor == scale_of(to_size, None, 1.0, "a").factor == 2.0
    assert scale_of(half, 0.501, None, "a").factor is None
    assert scale_of(half, 1.0, None, "a", rescale=False).factor is None
    assert "not known" in str(scale_of(half, None, None, "a").note)
    assert scale_of(by_factor, 1.0, None, "a").factor == 2.0
    assert scale_of(Recipe((), PLAIN), 1.0, None, "a").factor is None
    for recipe, own, told, words in (
        (to_size, None, None, "its pixel size is not known, say it with --pixel-size"),
        (half, 1.0, 0.9, "says that its pixels are 1 um, --pixel-size says 0.9"),
        (half, 100.0, None, "would be rescaled by 200"),
    ):
        with pytest.raises(SegbenchError, match=words):
            scale_of(recipe, own, told, "a")


def test_windows_overlap_as_the_cells_need_it() -> None:
    def overlap(step: int, diameter: float | None, chosen: int | None = None) -> int:
        recipe = Recipe(("x",), PreparationSettings(step=step, edge="drop"), diameters={"x": diameter or 0.0})
        model = TrainedModel("a", "watershed", Task("t", "d", ("x",), "x"), {}, Budget(batch_size=1), recipe)
        settings = tiling(model, chosen)
        assert settings.edge == "shift"
        return settings.window - settings.step

    assert [overlap(192, None), overlap(256, None), overlap(156, None), overlap(192, 40)] == [64, 64, 100, 80]
    assert [overlap(192, 300), overlap(192, 40, 30)] == [128, 30]


def test_images_are_files_folders_patterns_and_lists(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/y.png", "b/x.png", "b/x.bmp", "b/deep/z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3)).save(tmp_path / name)
    (tmp_path / "a" / "notes.csv").touch()
    (tmp_path / "list.txt").write_text("# mine\na/y.png\n\nb/x.png\n")

    def names(*given: str) -> list[str]:
        return [one.name for one in image_files([str(tmp_path / one) for one in given])]

    assert names("a") == ["x", "y"]
    assert names("a/x.png", "a/../a/x.png", "b/x.png") == ["a/x", "b/x"]
    assert names("b") == ["x.bmp", "x.png"]
    assert names("**/x.png") == ["a/x", "b/x"]
    assert names("list.txt", "b/deep") == ["a/y", "b/x", "b/deep/z"]
    for given, words in (("c", "does not exist"), ("*.tif", "no file fits"), (".", "holds no picture directly")):
        with pytest.raises(SegbenchError, match=words):
            names(given)
    (tmp_path / "list.txt").write_text("a/none.png\n")
    with pytest.raises(SegbenchError, match=r"list.txt, line 1: .*none.png does not exist"):
        names("list.txt")
    with pytest.raises(SegbenchError, match="name the images"):
        image_files([])
