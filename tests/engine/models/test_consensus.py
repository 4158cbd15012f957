"""Several models on the same images: the cells that most of them have, and the images on which they disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile
from model_folders import model_of, threshold

from segbench.engine.models.applying import ApplyOptions
from segbench.engine.models.consensus import consensus_of
from segbench.engine.models.images import image_files
from segbench.engine.models.several import agree, apply_several, model_folders
from segbench.errors import SegbenchError


def squares(*places: tuple[int, int, int]) -> np.ndarray:
    """Return a label map of squares: top, left, side."""
    labels = np.zeros((40, 60), np.int32)
    for number, (top, left, side) in enumerate(places, start=1):
        labels[top : top + side, left : left + side] = number
    return labels


def test_a_cell_that_most_models_have_is_of_the_consensus() -> None:
    one = squares((2, 2, 10), (20, 20, 10))
    two = squares((20, 20, 10), (2, 3, 10))
    three = squares((2, 2, 10), (4, 40, 10))
    found = consensus_of([one, two, three])
    assert found.labels.max() == 2
    # the pixels that two of the three give it
    assert np.array_equal(found.labels == 1, one == 1)
    assert np.array_equal(found.labels == 2, one == 2)
    shifted = 90 / 110
    assert found.agreement == pytest.approx([(1 + 2 * shifted) / 3, 1 / 3])
    pairs = [(1 + shifted) / 2, 1 / 2, shifted / 2]
    assert found.image_agreement == pytest.approx(sum(pairs) / 3)


def test_models_that_agree_or_find_nothing_agree_wholly() -> None:
    cells = squares((2, 2, 10), (20, 20, 10))
    same = consensus_of([cells, cells])
    assert np.array_equal(same.labels > 0, cells > 0)
    assert (same.agreement.tolist(), same.image_agreement) == ([1.0, 1.0], 1.0)
    none = np.zeros_like(cells)
    assert consensus_of([none, none]).image_agreement == 1.0
    assert consensus_of([none, cells]).image_agreement == 0.0
    assert consensus_of([none, cells]).labels.max() == 0


@pytest.mark.usefixtures("plugin")
def test_images_are_ranked_by_how_far_the_models_disagree(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    rng = np.random.default_rng(0)
    for name, faint in (("clear", 200), ("faint", 120)):
        pixels = 100 + 100 * (squares((2, 2, 12), (20, 20, 12)) > 0) + rng.integers(0, 3, (40, 60))
        pixels[4:16, 40:52] = faint
        tifffile.imwrite(tmp_path / "i" / f"{name}.tif", pixels.astype(np.uint16))
    (tmp_path / "i" / "broken.tif").write_bytes(b"x")
    models = [threshold(tmp_path / "low", 0.15), threshold(tmp_path / "high", 0.6)]
    models = [type(model)(**{**vars(model), "name": name}) for model, name in zip(models, ("low", "high"), strict=True)]
    images, options = image_files([str(tmp_path / "i")]), ApplyOptions(write=("table",))
    done = list(apply_several(models, images, tmp_path / "out", options))
    assert [one.cells for one in done] == [None, 3, 3, None, 3, 2]
    table = agree(models, images, tmp_path / "out", options)
    assert table["name"].to_list() == ["faint", "clear"]
    assert table["agreement"].to_list() == pytest.approx([0.8, 1.0])
    assert table["consensus_cells"].to_list() == [2, 3]
    assert pl.read_csv(tmp_path / "out" / "agreement.csv").equals(table)
    cells = pl.read_parquet(tmp_path / "out" / "consensus" / "faint.cells.parquet")
    assert cells["score"].to_list() == [1.0, 1.0]
    assert tifffile.imread(tmp_path / "out" / "consensus" / "clear.labels.tif").max() == 3


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(SegbenchError, match="two models are called watershed"):
        model_folders([model_of("watershed")] * 2)
