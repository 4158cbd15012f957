"""What a card and its settings say of themselves where something does not hold."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from segbench.errors import SegbenchError
from segbench.methods import Budget, Card, Resources, Setting, Usability
from segbench.methods.setting import check_values

GOOD: dict[str, Any] = {
    "name": "fancy",
    "title": "Fancy",
    "family": "acme",
    "environment": "engine",
    "category": "classical",
    "trained": True,
    "attention": False,
    "budget": Budget(batch_size=8, epochs=5),
    "settings": {"depth": Setting(4, "layers of the network", minimum=1)},
}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "Fancy Net", "field name is 'Fancy Net'; allowed: lower case letters"),
        ("name", "fancy--net", "field name is"),
        ("title", "", "field title is ''; allowed: a line of text"),
        ("family", "", "field family is ''"),
        ("environment", "my env", "field environment is 'my env'"),
        ("category", "two-stages", "unknown category 'two-stages'; did you mean two-stage"),
        ("trained", 1, "field trained is 1; allowed: True, False"),
        ("budget", 5, "field budget is 5; allowed: a Budget"),
        ("budget", Budget(batch_size=8), "neither epochs nor iterations"),
        ("budget", Budget(8, epochs=1, iterations=1), "has epochs and iterations"),
        ("budget", Budget(8, iterations=1, steps_per_epoch=2), "steps_per_epoch without epochs"),
        ("trained", False, "a method that is not trained has none"),
        ("data_parallel", "mpi", "field data_parallel is 'mpi'; allowed: None, 'torchrun', 'library'"),
        ("revision", 0, "field revision is 0; allowed: a whole number of at least 1"),
        ("libraries", "torch", "field libraries is 'torch'; allowed: a tuple"),
        ("settings", {"depth": 4}, r"depth is 4; declare it as Setting\(4, 'what it does'\)"),
        ("settings", {"my depth": Setting(4, "of it")}, "has the name 'my depth'"),
        ("check_settings", {"dept": 1}, "field check_settings: unknown setting 'dept'; did you mean depth"),
        ("check_settings", {"depth": 0}, "field check_settings.depth: found 0; allowed: a whole number of at least 1"),
    ],
)
def test_a_card_names_the_field_what_was_found_and_what_is_allowed(field: str, value: Any, said: str) -> None:
    Card(**GOOD)
    with pytest.raises(SegbenchError, match=said) as error:
        Card(**{**GOOD, field: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Budget, {"batch_size": 0}, "budget: field batch_size is 0; allowed: a whole number of at least 1"),
        (Budget, {"batch_size": 8, "epochs": -1}, "field epochs is -1"),
        (Budget, {"batch_size": 8, "iterations": 1.5}, "field iterations is 1.5"),
        (Resources, {"num_gpus": 1.5}, "field num_gpus is 1.5; allowed: 0 to 1, or a whole number above"),
        (Resources, {"num_gpus": -1}, "field num_gpus is -1"),
        (Resources, {"num_cpus": 0}, "field num_cpus is 0; allowed: a number above 0"),
        (Resources, {"gpu_memory_gb": float("nan")}, "field gpu_memory_gb is nan"),
        (Usability, {"composite": 1.2, "source": "me"}, "field composite is 1.2; allowed: None, or 0 to 1"),
        (Usability, {"ease_of_use": 0, "source": "me"}, "field ease_of_use is 0; allowed: None, or 1 to 10"),
        (Usability, {"ease_of_use": 5}, "field source is empty"),
    ],
)
def test_figures_that_cannot_be_are_refused(kind: type, values: dict[str, Any], said: str) -> None:
    with pytest.raises(SegbenchError, match=said):
        kind(**values)


FLAGS = Setting(True, "mirror")
RATE = Setting(0.1, "of the optimizer", above=0)
DEPTH = Setting(4, "layers", minimum=1, maximum=9)
RULE = Setting("auto", "what is kept", type=float, words=("auto", None), minimum=0)
KIND = Setting("sgd", "optimizer", choices=("sgd", "adamw"))
PAIR = Setting((0.0, 99.8), "percentiles", minimum=0, maximum=100, length=2)
STEPS = Setting([0.5], "falls", above=0, maximum=1, may_be_empty=True)
MORE = Setting({}, "options")


@pytest.mark.parametrize(
    ("setting", "right", "wrong"),
    [
        (FLAGS, [True, False], [1, 0, "yes", None]),
        (RATE, [1, 0.5, 10], [0, -1, float("nan"), float("inf"), True, "fast", None]),
        (DEPTH, [1, 9], [0, 10, 4.0, True, "4", None]),
        (RULE, ["auto", None, 0, 0.4], ["Auto", -1, True, [0.4]]),
        (KIND, ["adamw"], ["adam", 1, None]),
        (PAIR, [(1, 99), [0.5, 99.5]], [(1,), (1, 2, 3), (1, 101), 5, ["1", 2]]),
        (STEPS, [[], (0.2, 0.9)], [[0], [1.5], 0.5]),
        (MORE, [{}, {"a.b": [1]}], [[], "a", {"a": object()}]),
        (Setting("none", "a path"), ["imagenet", "/a/b"], [1, None, True]),
    ],
)
def test_a_setting_takes_what_its_declaration_says_and_nothing_else(
    setting: Setting, right: list[Any], wrong: list[Any]
) -> None:
    assert [value for value in right if setting.problem(value) is not None] == []
    assert [value for value in wrong if setting.problem(value) is None] == []


def test_a_number_that_yaml_takes_for_a_text_is_told_how_to_be_written() -> None:
    assert RATE.problem("1e-3") == (
        "found '1e-3' (a text: write 0.001; YAML takes 1e-3, without a point, for a text); allowed: a number above 0"
    )


def test_the_name_of_a_setting_and_its_meaning_stand_in_the_error() -> None:
    with pytest.raises(SegbenchError, match=r"^settings\.m: unknown setting 'dpth'; did you mean depth\? Known: depth"):
        check_values("settings.m", {"depth": DEPTH}, {"dpth": 3})
    with pytest.raises(SegbenchError, match=r"^settings\.m\.depth: found 'deep'; allowed: .* from 1 to 9 \(layers\)$"):
        check_values("settings.m", {"depth": DEPTH}, {"depth": "deep"})


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"default": 4, "doc": ""}, "field doc is ''"),
        ({"default": None, "doc": "x"}, "field default is None: give the type of the other values"),
        ({"default": 4, "doc": "x", "type": list}, "field type is .*list.*; allowed: bool, int, float, str, dict"),
        ({"default": "a", "doc": "x", "minimum": 1}, "a range is given, but the values are no numbers"),
        ({"default": 0, "doc": "x", "minimum": 1}, "field default: found 0; allowed: a whole number of at least 1"),
        ({"default": "c", "doc": "x", "choices": ("a", "b")}, "field default: found 'c'; allowed: a or b"),
    ],
)
def test_a_setting_that_contradicts_itself_cannot_be_declared(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(SegbenchError, match=said):
        Setting(**declared)


def test_cards_and_settings_need_the_standard_library_alone() -> None:
    code = (
        "import sys; import segbench.methods.card, segbench.methods.setting;"
        "sys.exit(bool({'numpy', 'pydantic', 'yaml', 'polars'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
