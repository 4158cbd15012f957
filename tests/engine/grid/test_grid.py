"""The grid: which runs there are, and what their ids depend on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from segbench.engine.data.tasks import tasks_of
from segbench.engine.grid import (
    Block,
    BudgetChange,
    Catalogue,
    DatasetFacts,
    Filters,
    GridSpec,
    ResourceChange,
    expand,
    preset,
    read_grid,
)
from segbench.engine.grid.starts import missing_weights
from segbench.engine.study.methods import STUDY_METHODS
from segbench.errors import SegbenchError

STUDY = Catalogue().with_study()
CELLS = DatasetFacts(tasks_of("cells", ("image",), ("cell",)), ("lung", "skin"), "f1")
CATALOGUE = Catalogue({"cells": CELLS})
SMALL = GridSpec(blocks=(Block(methods=("stardist", "watershed"), tasks=("cells-cell-1ch",), tissues=("all", "each")),))


def test_the_paper_is_138_runs_and_the_whole_grid_954() -> None:
    paper, full = expand(preset("paper"), STUDY), expand(preset("full"), STUDY)
    assert (len(paper), len(full)) == (138, 954)
    assert len({run.id for run in full}) == 954
    points = [{(run.method, run.task, run.train_tissue) for run in runs} for runs in (paper, full)]
    assert points[0] <= points[1]


def test_the_paper_trains_every_method_on_all_tissues_and_swin_s_on_each() -> None:
    runs = expand(preset("paper"), STUDY)
    per_method = Counter(run.method for run in runs)
    assert per_method == {**dict.fromkeys(STUDY_METHODS, 5), "swin-s": 5 + 4 * 10 + 8}
    assert {run.method for run in runs if run.train_tissue != "all"} == {"swin-s"}


def test_each_stands_for_every_tissue_and_is_known_only_when_the_tissues_are() -> None:
    assert [(r.method, r.train_tissue) for r in expand(SMALL, CATALOGUE)] == [
        (method, tissue) for method in ("stardist", "watershed") for tissue in ("all", "lung", "skin")
    ]
    with pytest.raises(SegbenchError, match="segbench data prepare"):
        expand(SMALL, Catalogue({"cells": replace(CELLS, tissues=())}))


def test_an_id_changes_with_everything_that_decides_the_result() -> None:
    def id_of(
        spec: GridSpec = SMALL, catalogue: Catalogue = CATALOGUE, versions: str = "0.9.2", **changes: object
    ) -> str:
        runs = expand(
            spec, catalogue, Filters(methods=("stardist",), tissues=("all",)),
            lock_versions={"tensorflow": {"stardist": versions}}, **changes,
        )  # type: ignore[arg-type]  # fmt: skip
        return runs[0].id

    seeded = GridSpec(blocks=(SMALL.blocks[0].model_copy(update={"seeds": (1,)}),))
    setting = GridSpec(blocks=SMALL.blocks, settings={"stardist": {"n_rays": 64}})
    ids = [
        id_of(),
        id_of(budget=BudgetChange(epochs=3)),
        id_of(versions="0.9.3"),
        id_of(seeded),
        id_of(setting),
        id_of(catalogue=Catalogue({"cells": replace(CELLS, fingerprint="f2")})),
    ]
    assert len(set(ids)) == len(ids)
    assert id_of() == id_of(resources=ResourceChange(num_gpus=0.25, num_cpus=7)) == ids[0]


def test_a_budget_changes_only_in_the_unit_that_the_method_counts() -> None:
    change = BudgetChange(scale=0.01, epochs=3)
    for run in expand(preset("paper"), STUDY, budget=change):
        if run.budget.epochs is not None:
            assert run.budget.epochs == 3
        elif run.budget.iterations is not None:
            assert 1 <= run.budget.iterations <= 4000


def test_a_block_s_budget_wins_over_the_grid_s_and_the_command_line_s_over_both() -> None:
    block = SMALL.blocks[0].model_copy(update={"budgets": {"stardist": BudgetChange(epochs=7)}})
    spec = GridSpec(blocks=(block,), budgets={"stardist": BudgetChange(epochs=5, steps_per_epoch=9)})
    only = Filters(methods=("stardist",), tissues=("all",))
    assert [(r.budget.epochs, r.budget.steps_per_epoch) for r in expand(spec, CATALOGUE, only)] == [(7, 9)]
    assert expand(spec, CATALOGUE, only, BudgetChange(epochs=2))[0].budget.epochs == 2


@pytest.mark.parametrize(
    ("spec", "filters", "message"),
    [
        (SMALL, Filters(methods=("stardst",)), "unknown method .* did you mean stardist"),
        (SMALL, Filters(tasks=("cells-cell-2ch",)), "did you mean cells-cell-1ch"),
        (SMALL, Filters(tissues=("sking",)), "did you mean skin"),
        (
            GridSpec(blocks=(Block(methods=("celpose",), tasks=("cells-cell-1ch",)),)),
            Filters(),
            "did you mean cellpose",
        ),
        (GridSpec(blocks=(Block(methods=("stardist",), tasks=("cells-cel-1ch",)),)), Filters(), "did you mean cells"),
        (
            GridSpec(blocks=(Block(methods=("stardist",), tasks=("cells-cell-1ch",), tissues=("Skin",)),)),
            Filters(),
            "did you mean skin",
        ),
        (GridSpec(blocks=SMALL.blocks, settings={"stardist": {"n_ray": 8}}), Filters(), "did you mean n_rays"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(spec: GridSpec, filters: Filters, message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        expand(spec, CATALOGUE, filters)


def test_a_grid_file_may_be_one_block_or_several(tmp_path: Path) -> None:
    one = tmp_path / "one.yaml"
    one.write_text("methods: [stardist]\ntasks: [cells-cell-1ch]\ntissues: [all, 256]\nbudget: {epochs: 5}\n")
    assert read_grid(one).blocks == (Block(methods=("stardist",), tasks=("cells-cell-1ch",), tissues=("all", "256")),)
    several = tmp_path / "several.yaml"
    several.write_text(
        "blocks:\n - {methods: [watershed], tasks: [a]}\n - {methods: [stardist], tasks: [b], seeds: [1, 2]}\n"
    )
    assert [block.seeds for block in read_grid(several).blocks] == [(0,), (1, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [stardist\n", "not YAML"),
        ("- stardist\n", "mapping"),
        ("methods: [stardist]\n", "field tasks"),
        ("blocks: [{methods: [], tasks: [a]}]\n", "field blocks.0.methods"),
        ("methods: [stardist]\ntasks: [a]\nsedes: [1]\n", "did you mean seeds"),
        ("methods: [stardist]\ntasks: [a]\nbudget: {epochs: -1}\n", "budget.epochs"),
        ("methods: [stardist]\ntasks: [a]\nseeds: [0, 3000000000, 1]\n", "seeds.1"),
        ("methods: [stardist]\ntasks: [a]\nbudget: {iterations: 3000000000}\n", "budget.iterations"),
        ("methods: [stardist]\ntasks: [a]\nresources: {stardist: {num_gpus: 1.5}}\n", "whole number"),
    ],
)
def test_a_grid_file_that_does_not_fit_is_refused_by_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(SegbenchError, match=message):
        read_grid(path)


def test_a_missing_grid_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match=r"absent\.yaml"):
        read_grid(tmp_path / "absent.yaml")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("methods: [watershed]\ntasks: [synthetic-nuclear-1ch]\nmethods: [stardist]\n")
    with pytest.raises(SegbenchError, match="the key 'methods' stands there twice"):
        read_grid(path)


def test_a_preset_is_run_with_the_seeds_that_are_given_and_stays_as_it_is_without() -> None:
    demo = preset("demo")
    assert demo.with_seeds(()) is demo
    once, four = expand(preset("paper"), STUDY), expand(preset("paper").with_seeds((0, 1, 2, 3)), STUDY)
    assert (len(once), len(four)) == (138, 4 * 138)
    assert {run.id for run in once} == {run.id for run in four if run.seed == 0}


def test_a_recipe_comes_before_what_is_said_of_a_method_and_cells_is_the_default() -> None:
    tasks = ("cells-cell-1ch",)
    block = Block(methods=("solov2", "mesmer", "watershed"), tasks=tasks)
    own = {"solov2": {"candidates": 700}}
    plain, study, cells = (
        {run.method: run for run in expand(GridSpec(blocks=(block,), recipe=recipe, settings=own), CATALOGUE)}
        for recipe in ("cards", "study", "cells")
    )
    assert plain["watershed"] == study["watershed"] == cells["watershed"]
    assert [runs["mesmer"].settings["postprocessing"] for runs in (plain, study, cells)] == [
        "upstream", "published", "tuned",
    ]  # fmt: skip
    solo = study["solov2"]
    assert (solo.settings["scale"], solo.settings["pretrained"], solo.settings["candidates"]) == (
        2.8125,
        "imagenet",
        700,
    )
    assert (solo.budget.batch_size, plain["solov2"].budget.batch_size) == (32, 8)
    assert cells["solov2"] == plain["solov2"]
    assert [run.id for run in expand(GridSpec(blocks=(block,), settings=own), CATALOGUE)] == [
        run.id for run in cells.values()
    ]
    (asked,) = expand(
        GridSpec(blocks=(block,)), CATALOGUE, Filters(methods=("solov2",)), recipe="study", start="random"
    )
    assert (asked.settings["pretrained"], asked.settings["scale"]) == ("none", 2.8125)


def test_the_preset_paper_asks_for_the_study_s_weights_which_are_told_as_missing() -> None:
    runs = expand(preset("paper"), STUDY)
    starting = {run.method for run in runs if run.settings.get("pretrained") == "imagenet"}
    assert len(starting) == 9
    assert "mask-rcnn" not in starting
    assert len(missing_weights(runs)) >= 5
