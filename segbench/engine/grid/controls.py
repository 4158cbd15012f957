"""The controls: what is compared with the truth to see where a metric's scale begins and ends, each with a card."""

from __future__ import annotations

from collections.abc import Mapping

from segbench.methods.card import CONTROL, Budget, Card, Resources

TRUTH, SHUFFLED, ONE_CELL, VORONOI, ANNOTATORS = (
    "control-truth", "control-shuffled", "control-one-cell", "control-voronoi", "control-annotators",
)  # fmt: skip


def _card(name: str, title: str, rule: str, libraries: tuple[str, ...] = ()) -> Card:
    return Card(
        name=name,
        title=title,
        family=CONTROL,
        environment="engine",
        category=CONTROL,
        trained=False,
        attention=False,
        budget=Budget(batch_size=1, note="a control: computed by the engine from the truth of the test images"),
        resources=Resources(num_gpus=0, num_cpus=1, memory_gb=1),
        libraries=libraries,
        score_rule=f"1 for every cell: {rule}",
    )


CONTROLS: Mapping[str, Card] = {
    card.name: card
    for card in (
        _card(TRUTH, "Truth", "the truth of each test window itself, the highest score that there is"),
        _card(SHUFFLED, "Shuffled truth", "the truth of another test image, so that cells lie by chance where they do"),
        _card(ONE_CELL, "One cell an image", "each window is one cell"),
        _card(
            VORONOI,
            "Random Voronoi cells",
            "as many cells as the window has, about random points, filling the window",
            ("numpy", "scipy"),
        ),
        _card(
            ANNOTATORS,
            "Another annotator",
            "where a picture was annotated more than once, each annotation against the next annotator's",
        ),
    )
}
"""By name. They know the truth of the test images, which no method does, so that no method's process makes them."""


def is_control(method: str) -> bool:
    """Return whether a name is a control's."""
    return method in CONTROLS
