"""Tells a gradient scaler that looks for its scale from a training that has diverged."""

from __future__ import annotations

from segbench.methods.base import DivergedError

FIRST_SCALE = 512.0
"""What a loss is multiplied by at first, as MMDetection's own configurations for half precision have it; it doubles
after 2,000 steps without an overflow. PyTorch's 65,536 skips the first steps of most methods here."""

MOST_SKIPPED = 40
"""Steps in a row. A scaler halves its scale at each step that it skips: after 40 even one of 65,536 is at 2^-24, the
smallest number that float16 has, and what overflows then, no scale can mend."""


class SkippedSteps:
    """Counts the steps in a row that a gradient scaler skipped, for their gradients were not finite.

    Examples
    --------
    >>> steps = SkippedSteps(most=2)
    >>> for step, skipped in enumerate([True, True, False, True, True], start=1):
    ...     steps.note(step, skipped=skipped)
    >>> steps.note(6, skipped=True)
    Traceback (most recent call last):
    ...
    segbench.methods.base.DivergedError: the gradients of 3 steps in a row, up to step 6, are not finite at any scale
    """

    def __init__(self, most: int = MOST_SKIPPED) -> None:
        self._most, self._in_a_row = most, 0

    def note(self, step: int, *, skipped: bool) -> None:
        """Take a step into account; raises DivergedError where too many in a row were skipped."""
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        if self._in_a_row > self._most:
            raise DivergedError(
                f"the gradients of {self._in_a_row} steps in a row, up to step {step}, are not finite at any scale"
            )
