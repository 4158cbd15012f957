"""A part of the training images as a point of a grid: how many, and what becomes of the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from segbench.methods.card import Budget, Card


@dataclass(frozen=True)
class Part:
    """How many images of a training tissue a run is trained on.

    Examples
    --------
    >>> Part(5, of_images=50).budget(Budget(batch_size=8, epochs=8)).epochs
    80
    >>> Part(5, of_images=50).budget(Budget(batch_size=8, epochs=8, steps_per_epoch=100)).epochs
    8
    """

    images: int | None
    """None for all."""
    of_images: int | None
    """How many there are; None where that is not known."""
    notes: tuple[str, ...] = ()
    """What is to be told when it is planned."""

    def budget(self, budget: Budget) -> Budget:
        """Return the budget that takes about as many training steps as all the images would.

        Where an epoch is a pass over the images, there are as many more of them as there are fewer images: else a
        smaller part would be trained for a shorter time, and it were not the images that a comparison shows.
        """
        passes = budget.epochs is not None and budget.steps_per_epoch is None
        if not passes or budget.epochs is None or self.images is None or self.of_images is None:
            return budget
        return replace(budget, epochs=-(-budget.epochs * self.of_images // self.images))


def drawn_part(card: Card, of_images: int | None, where: str, wanted: int | Literal["all"]) -> Part:
    """Return the part that a grid's ``train_images`` stands for.

    Parameters
    ----------
    card
        Of the method; one that is not trained has no part.
    of_images
        How many images there are; None where that is not known yet.
    where
        Whose they are, in words.
    wanted
        As the grid has it; as many as there are, and more, is all of them, and is told.
    """
    if not card.trained:
        told = () if wanted == "all" else (f"{card.name} is not trained: train_images does not count for it",)
        return Part(None, None, told)
    if wanted == "all":
        return Part(None, of_images)
    if of_images is not None and wanted >= of_images:
        return Part(None, of_images, (f"{where} has {of_images} images: train_images {wanted} is all of them",))
    return Part(wanted, of_images)
