"""The cards of the study's methods, and how methods are found."""

from __future__ import annotations

import csv
import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest

from segbench.engine.grid.cards import all_cards, distribution_of, get_card, method_object
from segbench.engine.study.methods import STUDY_METHODS
from segbench.methods import Setting

STUDY = {
    "cellpose": 0.67, "mesmer": 0.38, "stardist": 0.59, "retinamask": 0.02, "featurenet": 0.01, "centermask2": 0.25,
    "mask-rcnn": 0.69, "resnest": 0.17, "ms-rcnn": 0.69, "mask2former": 0.69, "cascade-mask-rcnn-seesaw": 0.69,
    "swin-s": 0.69, "swin-t": 0.69, "solov2": 0.63, "rf-next": 0.69, "hrnet": 0.69, "res2net": 0.69,
    "segment-anything": 0.78,
}  # fmt: skip

MODERN = ("rtmdet-ins", "instanseg")


def test_all_methods_of_the_study_those_after_it_and_the_baseline_have_a_card() -> None:
    own = {name for name in all_cards() if distribution_of(name) == "segbench"}
    assert own == {*STUDY, "watershed", *MODERN}
    assert all(card.name == name and card.title for name, card in all_cards().items())


@pytest.mark.parametrize("name", sorted(STUDY))
def test_a_card_of_the_study_gives_its_budget_and_usability_with_sources(name: str) -> None:
    card = get_card(name)
    assert card.usability.composite == STUDY[name]
    assert card.usability.source
    assert "paper" in card.budget.note
    assert "b57865b" in card.budget.note
    assert card.trained == (name != "segment-anything")
    counted = [card.budget.epochs, card.budget.iterations]
    assert sum(each is not None for each in counted) == (1 if card.trained else 0)
    assert card.paper
    assert card.licence
    assert card.url


@pytest.mark.parametrize("name", MODERN)
def test_a_card_of_a_later_method_says_where_its_budget_comes_from_and_under_which_licence(name: str) -> None:
    card = get_card(name)
    assert name not in STUDY_METHODS
    assert "not in the study" in card.budget.note
    assert not card.usability.is_known
    assert card.paper
    assert card.licence
    assert card.url
    assert card.resources.memory_gb > 0


def test_usability_agrees_with_the_published_table(testdata: Path) -> None:
    with (testdata / "published" / "seggal_scores.csv").open() as file:
        published = {row["method"].lower().replace(" ", "-"): float(row["usability"]) for row in csv.DictReader(file)}
    assert set(published) == set(STUDY)
    assert published == {name: get_card(name).usability.composite for name in published}


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "iterations"),
    [
        ("cellpose", 8, 500, None), ("stardist", 4, 100, None), ("mesmer", 8, 200, None), ("featurenet", 16, 25, None),
        ("centermask2", 32, None, 100_000), ("resnest", 4, None, 50_000), ("mask-rcnn", 24, 100, None),
        ("swin-s", 8, 50, None), ("solov2", 8, 60, None), ("hrnet", 24, 200, None), ("res2net", 8, 20, None),
    ],
)  # fmt: skip
def test_budgets_are_the_papers(name: str, batch: int, epochs: int | None, iterations: int | None) -> None:
    budget = get_card(name).budget
    assert (budget.batch_size, budget.epochs, budget.iterations) == (batch, epochs, iterations)


def test_a_ready_method_names_its_class_and_every_setting() -> None:
    assert method_object("stardist") == "segbench.methods.stardist:StarDist"
    for card in all_cards().values():
        if card.implemented:
            assert card.score_rule
            assert card.settings
            assert all(isinstance(setting, Setting) for setting in card.settings.values())
            assert card.libraries


def test_reading_the_cards_loads_no_methods_library() -> None:
    code = (
        "import sys; from segbench.engine.grid.cards import all_cards; all_cards();"
        "sys.exit(bool({'torch', 'tensorflow', 'skimage', 'scipy', 'cellpose', 'stardist'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_card_or_lock_names_a_path_or_host_of_the_machine_it_was_made_on() -> None:
    locks = importlib.resources.files("segbench.engine.run") / "locks"
    texts = [lock.read_text() for lock in locks.iterdir()]
    assert texts
    assert not any("://" in text for text in texts)  # some pins are named http...
