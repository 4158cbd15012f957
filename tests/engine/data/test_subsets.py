"""Parts of the training images: nested, drawn by a seed, mixed as the whole is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from segbench.engine.data import DatasetSpec, ensure_prepared
from segbench.engine.data.prepared import PreparedDataset
from segbench.engine.data.subsets import in_drawn_order, pictures_of, training_pictures, training_rows

TISSUES = {"gut": 60, "lung": 30, "skin": 10}
PICTURES = {f"{tissue}-{n:02d}": tissue for tissue, many in TISSUES.items() for n in range(many)}


@pytest.fixture(scope="module")
def data() -> PreparedDataset:
    return ensure_prepared(DatasetSpec("parts", "synthetic", None, {"layout": "livecell", "seed": 3, "scale": 0.03}))


@pytest.mark.parametrize("seed", range(20))
def test_every_part_has_of_each_tissue_its_share_within_one_image(seed: int) -> None:
    drawn = in_drawn_order(PICTURES, seed)
    assert sorted(drawn) == sorted(PICTURES)
    for n in range(1, len(PICTURES) + 1):
        held = Counter(PICTURES[picture] for picture in drawn[:n])
        for tissue, many in TISSUES.items():
            assert abs(held[tissue] - n * many / len(PICTURES)) <= 1


def test_seeds_draw_others_and_one_seed_draws_the_same_again_whatever_the_order_of_the_index() -> None:
    assert in_drawn_order(PICTURES, 1) == in_drawn_order(dict(reversed(PICTURES.items())), 1)
    assert len({tuple(in_drawn_order(PICTURES, seed)[:10]) for seed in range(10)}) == 10


def test_windows_of_a_part_are_those_of_whole_images_and_parts_are_nested(data: PreparedDataset) -> None:
    images = data.index("train")["image"].to_list()
    every = training_pictures(data)["all"]
    before: set[int] = set()
    for n in range(1, every + 1):
        rows = training_rows(data, "all", n, seed=5)
        assert pictures_of(data, rows) == n
        assert set(rows) == {row for row, image in enumerate(images) if image in {images[row] for row in rows}}
        assert before < set(rows)
        before = set(rows)
    assert training_rows(data, "all", every, seed=5) == training_rows(data, "all", None, seed=0) == data.rows("train")


def test_a_tissue_has_parts_of_its_own_and_more_than_it_has_is_all_of_it(data: PreparedDataset) -> None:
    tissue = data.tissues("train")[0]
    whole, tissues = data.rows("train", tissue), data.index("train")["tissue"].to_list()
    assert training_rows(data, tissue, 10_000, seed=0) == whole
    assert {tissues[row] for row in training_rows(data, tissue, 1, seed=0)} == {tissue}


def test_a_picture_that_was_annotated_twice_is_one_image(tmp_path: Path, data: PreparedDataset) -> None:
    import shutil

    import polars as pl

    folder = tmp_path / "twice"
    shutil.copytree(data.folder, folder)
    index = data.index("train").with_columns(origin=pl.lit("the same picture"))
    index.write_parquet(folder / "index-train.parquet")
    twice = PreparedDataset.read(folder, data.spec)
    assert training_pictures(twice)["all"] == 1
    assert training_rows(twice, "all", 1, seed=0) == twice.rows("train")
