"""How the budget of a training is spent in the epochs that upstream's schedule of rates is made for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochPlan:
    """How ``train_seg`` is told to spend a budget."""

    epochs: int
    """Its ``n_epochs``, which shape the learning rate's schedule."""
    windows_per_epoch: int | None
    """Its ``nimg_per_epoch``; None for every window once."""
    steps_per_epoch: int
    val_windows: int
    """Its ``nimg_test_per_epoch``: every tenth epoch has a validation loss."""


def plan_epochs(windows: int, batch_size: int, epochs: int) -> EpochPlan:
    """Return how to spend ``epochs`` passes over ``windows`` so that upstream's schedule keeps its shape.

    Upstream warms up over 10 epochs (the first at rate 0) and lets the rate fall over the last 50 of more than 100 or
    the last 100 of more than 300. A budget of more than 100 epochs is trained as it is. A shorter one would end before
    the rate has fallen, or even before it has risen: the same number of windows is then cut into 200 to 399 short
    epochs of whole batches, or one epoch a step where there are fewer than 200 steps.

    Examples
    --------
    >>> plan_epochs(windows=1000, batch_size=8, epochs=500)
    EpochPlan(epochs=500, windows_per_epoch=None, steps_per_epoch=125, val_windows=1000)
    >>> plan_epochs(windows=1000, batch_size=8, epochs=4)
    EpochPlan(epochs=250, windows_per_epoch=16, steps_per_epoch=2, val_windows=8)
    """
    if epochs > 100:
        return EpochPlan(epochs, None, -(-windows // batch_size), windows)
    steps = epochs * -(-windows // batch_size)
    per_epoch = max(1, steps // 200)
    seen = per_epoch * batch_size
    # upstream takes "as many as there are windows" to mean "each once": both read the same where they are equal
    return EpochPlan(max(1, steps // per_epoch), seen, per_epoch, max(batch_size, seen // 4))
