"""Which of the declared methods can be run, and which environments names stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.engine.run.installed import environments_of, installed_methods
from segbench.errors import SegbenchError

CARD = (
    "from segbench.methods import Budget, Card\n"
    "CARD = Card(name='fancy', title='Fancy', family='acme', environment='{environment}', category='classical',\n"
    "            trained=False, attention=False, budget=Budget(batch_size=1))\n"
)


@pytest.mark.parametrize(
    ("environment", "declared", "reason"),
    [
        ("engine", "", ""),
        ("torch", "", ""),
        ("acme", "acme = acme_net:locks", ""),
        ("acme", "", "unknown environment 'acme'"),
        ("torch", "torch = acme_net:locks", "it brings an environment 'torch', which is the name of one of segbench's"),
    ],
)
def test_a_method_is_ready_where_its_environment_can_be_had(
    add_distribution: Callable[..., Path], environment: str, declared: str, reason: str
) -> None:
    files = {"acme_net/__init__.py": CARD.format(environment=environment), "acme_net/locks/acme.txt": "numpy==2.0.0\n"}
    add_distribution("acme", files, "fancy = acme_net:CARD", declared)
    (found,) = (one for one in installed_methods() if one.name == "fancy")
    assert found.state == ("broken" if reason else "ready")
    assert found.reason.startswith(f"method 'fancy' of distribution acme: {reason}" if reason else "")
    assert {one.state for one in installed_methods() if one.distribution == "segbench"} == {"ready"}


def test_an_interpreter_of_the_users_own_is_an_environment(
    add_distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    add_distribution("acme", {"acme_net/__init__.py": CARD.format(environment="mine")}, "fancy = acme_net:CARD")
    monkeypatch.setenv("SEGBENCH_ENV_MINE", sys.executable)
    assert {one.state for one in installed_methods() if one.name == "fancy"} == {"ready"}
    assert environments_of(["fancy", "mine"]) == ["mine"]


def test_names_of_methods_and_environments_stand_for_environments() -> None:
    assert environments_of(["stardist", "mesmer", "torch"]) == ["tensorflow", "torch"]
    assert sorted(environments_of()) == ["cellpose", "engine", "instanseg", "tensorflow", "torch"]
    with pytest.raises(SegbenchError, match="unknown environment or method 'stardst'; did you mean stardist"):
        environments_of(["stardst"])
