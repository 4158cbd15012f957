"""Half precision: what it changes of a training is rounding, for every method that PyTorch trains."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from segbench.engine.grid.cards import get_card, method_names
from segbench.errors import SegbenchError
from segbench.methods import Budget, Card, Setting
from segbench.methods.base import DivergedError
from segbench.methods.scaling import MOST_SKIPPED, SkippedSteps
from segbench.methods.setting import check_values

ROOT = Path(__file__).parents[2]
STEPS = 2
FIRST_STEP = {"float16": 0.02, "bfloat16": 0.03}
"""Share of a loss by which the first step's may differ, where weights and windows are the same. Numbers of float16 are
rounded by up to 2^-11 of themselves and those of bfloat16 by 2^-9, at each of some fifty layers one after the other:
where errors add up as independent ones do, by 0.4 % and 1.4 %. It is three times what was measured; a loss that
overflows or a part that is left out changes it by far more."""
LATER_STEPS = {"float16": 0.05, "bfloat16": 0.06}
"""The same for a step on other weights, those that the precision's own steps led to."""


def load_benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


CHECK = load_benchmark("precision_check")
HALF = {
    precision: [name for name in CHECK.METHODS if ("float16" in get_card(name).precisions) == (precision == "float16")]
    for precision in ("float16", "bfloat16")
}


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The losses of a few steps by method and precision, all of an environment in one process.

    In float16, which overflows, where a method declares it: processors without instructions for it take long, and
    ``benchmarks/precision_check.py`` tries the others, too.
    """
    found: dict[str, dict[str, Any]] = {}
    for precision, names in HALF.items():
        found |= CHECK.measure(names, STEPS, tmp_path_factory.mktemp(precision), (precision,))
    return found


def test_every_method_that_offers_half_precision_is_among_those_that_are_tried() -> None:
    cards = [get_card(name) for name in method_names()]
    torch = {card.name for card in cards if card.trained and "torch" in card.libraries and len(card.precisions) > 1}
    assert set(CHECK.METHODS) == torch
    assert len(torch) >= 14


@pytest.mark.heavy
@pytest.mark.parametrize("name", CHECK.METHODS)
def test_half_precision_has_the_losses_of_float32(losses: dict[str, dict[str, Any]], name: str) -> None:
    mine = losses[name]
    assert len(mine) == 2
    for precision, found in mine.items():
        assert isinstance(found, list), f"{precision}: {found}"
        assert len(found) == len(mine["float32"]) >= STEPS
        if precision == "float32":
            continue
        shares = np.abs(np.subtract(found, mine["float32"])) / np.abs(mine["float32"])
        assert shares[0] <= FIRST_STEP[precision], (precision, found, mine["float32"])
        assert shares.max() <= LATER_STEPS[precision], (precision, found, mine["float32"])
        assert found != mine["float32"], f"{precision} is float32"


@pytest.mark.parametrize(
    ("method", "precision", "said"),
    [
        ("mask-rcnn", "float64", "found 'float64'; allowed: auto or float32 or float16 or bfloat16"),
        ("cellpose", "float16", "found 'float16'; allowed: float32 or bfloat16"),
    ],
)
def test_a_precision_that_a_method_is_not_right_in_is_refused(method: str, precision: str, said: str) -> None:
    with pytest.raises(SegbenchError, match=said) as error:
        check_values(f"settings.{method}", get_card(method).settings, {"precision": precision})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("precisions", "choices", "said"),
    [
        (("float16",), None, "allowed: a tuple of float32, float16, bfloat16, float32 among them"),
        (("float32", "half"), None, "allowed: a tuple of"),
        (("float32", "float16"), None, "but the setting precision offers float32"),
        (("float32",), ("auto", "float32", "float16"), "but the setting precision offers float16, float32"),
    ],
)
def test_a_card_offers_the_precisions_that_it_declares(
    precisions: tuple[str, ...], choices: tuple[str, ...] | None, said: str
) -> None:
    settings = {} if choices is None else {"precision": Setting("float32", "of the training", choices=choices)}
    with pytest.raises(SegbenchError, match=said):
        Card(
            name="m", title="M", family="m", environment="engine", category="classical", trained=True, attention=False,
            budget=Budget(batch_size=1, epochs=1), precisions=precisions, settings=settings,
        )  # fmt: skip


def test_steps_that_a_scaler_skips_now_and_then_are_no_divergence() -> None:
    steps = SkippedSteps()
    for step in range(1, 1000):
        steps.note(step, skipped=step % (MOST_SKIPPED + 1) != 0)


def test_steps_that_are_skipped_at_every_scale_are_a_divergence() -> None:
    steps = SkippedSteps()
    for step in range(1, MOST_SKIPPED + 1):
        steps.note(step, skipped=True)
    with pytest.raises(DivergedError, match=rf"the gradients of {MOST_SKIPPED + 1} steps in a row, up to step 41"):
        steps.note(MOST_SKIPPED + 1, skipped=True)
