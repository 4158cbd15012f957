"""A part of the training images in a grid: which runs there are, what is told, and what their ids depend on."""

from __future__ import annotations

import pytest

from segbench.engine.data.tasks import tasks_of
from segbench.engine.grid import Catalogue, DatasetFacts, Run, expand, grid_of, run_from_dict, run_to_dict
from segbench.errors import SegbenchError

TASK = "cells-cell-1ch"
CELLS = DatasetFacts(
    tasks_of("cells", ("image",), ("cell",)), ("lung", "skin"), "f1", {"all": 40, "lung": 32, "skin": 8}
)


def runs(catalogue: Catalogue | None = None, **grid: object) -> list[Run]:
    spec = grid_of({"methods": ["cellpose"], "tasks": [TASK], **grid}, "grid")
    return expand(spec, catalogue or Catalogue({"cells": CELLS}))


def test_all_is_the_run_that_it_was_and_each_part_is_another() -> None:
    plain, parts = runs(), runs(train_images=[5, 10, "all"])
    assert [run.train_images for run in parts] == [5, 10, None]
    assert parts[-1] == plain[0]
    assert "train_images" not in run_to_dict(plain[0])
    assert len({run.id for run in parts}) == 3


def test_a_part_keeps_the_steps_of_a_method_whose_epochs_are_passes_unless_it_is_told_otherwise() -> None:
    budget = {"epochs": 8}
    assert [run.budget.epochs for run in runs(train_images=[5, 40], budget=budget)] == [64, 8]
    kept = runs(train_images=[5, 40], budget=budget, train_images_keep="epochs")
    assert [run.budget.epochs for run in kept] == [8, 8]
    fixed = runs(train_images=[5, 40], budget=budget, methods=["stardist"])
    assert [run.budget.epochs for run in fixed] == [8, 8]


def test_as_many_images_as_there_are_and_more_are_all_of_them_which_is_told() -> None:
    found = runs(train_images=[5, 8, 20, "all"], tissues=["all", "skin"])
    assert [(run.train_tissue, run.train_images) for run in found] == [
        ("all", 5), ("all", 8), ("all", 20), ("all", None), ("skin", 5), ("skin", None),
    ]  # fmt: skip
    skin = "training tissue skin of cells has 8 images: train_images"
    assert found[-1].notes == (f"{skin} 8 is all of them", f"{skin} 20 is all of them")
    assert not any(run.notes for run in found[:-1])


def test_a_method_that_is_not_trained_has_one_run_and_says_so() -> None:
    found = runs(methods=["watershed"], train_images=[5, 10])
    assert [(run.train_images, run.notes) for run in found] == [
        (None, ("watershed is not trained: train_images does not count for it",))
    ]


def test_where_the_data_are_not_prepared_the_parts_are_planned_as_they_are_asked_for() -> None:
    unknown = Catalogue({"cells": DatasetFacts(CELLS.tasks, CELLS.tissues)})
    assert [(run.train_images, run.final) for run in runs(unknown, train_images=[5, 99])] == [(5, False), (99, False)]


def test_a_run_on_a_part_comes_out_of_a_launch_s_file_as_it_went_in() -> None:
    for run in runs(train_images=[5, "all"]):
        again = run_from_dict(run_to_dict(run))
        assert (again.id, again.train_images) == (run.id, run.train_images)


@pytest.mark.parametrize("wrong", [[0], [-5], ["some"], [], [1.5], "all"])
def test_what_is_no_number_of_images_is_refused_by_field(wrong: object) -> None:
    with pytest.raises(SegbenchError, match="field train_images"):
        runs(train_images=wrong)
