"""The page of deviations is what its command writes, and recipes make of settings what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from segbench.engine.grid.cards import get_card
from segbench.engine.study.methods import STUDY_METHODS
from segbench.methods.deviations import CELLS, deviations
from segbench.methods.recipes import STUDY, changes

ROOT = Path(__file__).parent.parent


def test_the_page_is_what_its_command_writes() -> None:
    spec = importlib.util.spec_from_file_location("deviations_page", ROOT / "docs" / "deviations.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.page() == (ROOT / "docs" / "deviations.md").read_text(), "run: python docs/deviations.py"


@pytest.mark.parametrize("method", STUDY_METHODS)
def test_a_recipe_changes_settings_that_there_are_to_values_that_they_allow(method: str) -> None:
    card = get_card(method)
    for recipe in (STUDY, CELLS):
        for name, value in changes(recipe, method).settings.items():
            assert card.settings[name].problem(value) is None, name
    told = {one.what for one in deviations(card) if one.recipe == CELLS}
    study, cells = (changes(recipe, method).settings for recipe in (STUDY, CELLS))
    different = {
        name
        for name in {*study, *cells}
        if study.get(name, card.defaults[name]) != cells.get(name, card.defaults[name])
    }
    assert different <= told
    assert all(one.why for one in deviations(card))
