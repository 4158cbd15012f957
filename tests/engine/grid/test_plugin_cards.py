"""Methods that other distributions bring: found one at a time, and told of where they are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.engine.grid.cards import all_cards, broken_methods, distribution_of, get_card, method_object, method_of
from segbench.errors import SegbenchError

Add = Callable[..., Path]
CARD = (
    "from segbench.methods import Budget, Card\n"
    "FANCY = Card(name='fancy', title='Fancy', family='acme', environment='engine', category='classical',\n"
    "             trained=False, attention=False, budget=Budget(batch_size=1))\n"
)


def test_a_third_partys_method_is_found(add_distribution: Add) -> None:
    add_distribution("acme", {"acme_methods.py": CARD}, "fancy = acme_methods:FANCY")
    assert get_card("fancy").title == "Fancy"
    assert method_object("fancy") == "acme_methods:FANCY"
    assert method_of("acme_methods:FANCY") == "fancy"
    assert distribution_of("fancy") == "acme"
    assert broken_methods() == []


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import no_such_library\n", "cannot be loaded from acme_methods:FANCY: ModuleNotFoundError: No module named"),
        ("raise SystemExit('bye')\n", "cannot be loaded from acme_methods:FANCY: SystemExit: bye"),
        ("def x(:\n", "cannot be loaded from acme_methods:FANCY: SyntaxError"),
        ("FANCI = 3\n", "cannot be loaded from acme_methods:FANCY: AttributeError"),
        ("FANCY = 3\n", "acme_methods:FANCY has no card"),
        (CARD.replace("'fancy'", "'plain'"), "the card of acme_methods:FANCY is named 'plain'"),
        (
            CARD.replace("'classical'", "'clasical'"),
            "card 'fancy': unknown category 'clasical'; did you mean classical",
        ),
    ],
)
def test_one_that_cannot_be_loaded_is_broken_and_stops_no_other(add_distribution: Add, module: str, said: str) -> None:
    add_distribution("acme", {"acme_methods.py": module}, "fancy = acme_methods:FANCY")
    (broken,) = broken_methods()
    assert (broken.name, broken.distribution) == ("fancy", "acme")
    assert broken.reason.startswith("method 'fancy' of distribution acme")
    assert said in broken.reason
    assert "\n" not in broken.reason
    assert "fancy" not in all_cards()
    assert method_object("stardist") == "segbench.methods.stardist:StarDist"
    with pytest.raises(SegbenchError) as error:
        get_card("fancy")
    assert str(error.value) == broken.reason


def test_a_card_loads_its_own_module_alone(add_distribution: Add, capfd: pytest.CaptureFixture[str]) -> None:
    noisy = "print('loaded', __name__)\n"
    files = {"acme_one.py": noisy + CARD, "acme_two.py": noisy + CARD.replace("'fancy'", "'plain'")}
    add_distribution("acme", files, "fancy = acme_one:FANCY\nplain = acme_two:FANCY")
    get_card("fancy")
    told = capfd.readouterr()
    assert told.err == "loaded acme_one\n"
    assert told.out == ""


def test_a_name_that_two_others_claim_is_broken_for_both(add_distribution: Add) -> None:
    add_distribution("acme", {"acme_one.py": CARD}, "fancy = acme_one:FANCY")
    add_distribution("umbrella", {"acme_two.py": CARD}, "fancy = acme_two:FANCY")
    (broken,) = broken_methods()
    assert sorted(broken.distribution.split(" and ")) == ["acme", "umbrella"]
    assert "two distributions bring a method 'fancy'" in broken.reason
    with pytest.raises(SegbenchError, match=r"two distributions bring a method 'fancy': .*uninstall one"):
        get_card("fancy")


def test_segbenchs_own_names_stay_segbenchs(add_distribution: Add) -> None:
    module = CARD.replace("'fancy'", "'stardist'")
    add_distribution("acme", {"acme_methods.py": module}, "stardist = acme_methods:FANCY")
    assert method_object("stardist") == "segbench.methods.stardist:StarDist"
    (broken,) = broken_methods()
    assert (broken.name, broken.distribution) == ("stardist", "acme")
    assert "the name stays with segbench" in broken.reason


def test_a_cards_own_usability_wins_over_none(add_distribution: Add) -> None:
    own = CARD.replace("Budget, Card\n", "Budget, Card, Usability\n").replace(
        "trained=False", "usability=Usability(ease_of_use=7, source='me'), trained=False"
    )
    add_distribution("acme", {"acme_methods.py": own}, "fancy = acme_methods:FANCY")
    assert get_card("fancy").usability.ease_of_use == 7
    assert get_card("stardist").usability.composite == 0.59
    assert get_card("watershed").usability.composite is None
