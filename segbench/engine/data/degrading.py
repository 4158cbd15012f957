"""Makes windows worse in steps, as microscopes, cameras and files do."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from segbench.errors import SegbenchError, unknown_name

Image = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
ALL: Literal["all"] = "all"
"""Stands for every kind."""


@dataclass(frozen=True)
class Kind:
    """A way in which images become worse, and how much in each step."""

    amounts: tuple[float, ...]
    """Of the steps 1, 2, ...: each is worse than the one before."""
    unit: str
    """What the amounts are."""
    about: str


KINDS: Mapping[str, Kind] = {
    "blur": Kind((1.0, 2.0, 3.0, 4.0), "standard deviation in pixels", "blurred by a Gaussian: out of focus"),
    "noise": Kind(
        (0.05, 0.1, 0.2, 0.4),
        "standard deviation, of the windows' range of 1",
        "with Gaussian noise, and cut to the windows' range",
    ),
    "dim": Kind(
        (0.5, 0.25, 0.1, 0.05), "part of the light", "dimmer, and told in 256 levels: a weak stain, a short exposure"
    ),
    "smaller": Kind((0.8, 0.6, 0.45, 0.3), "scale", "seen with a weaker objective: cells are smaller"),
    "larger": Kind((1.25, 1.6, 2.2, 3.0), "scale", "seen with a stronger objective: the window's middle alone"),
    "swap": Kind((1.0,), "swapped or not", "with the channels in reversed order; for two channels and more"),
    "jpeg": Kind((50.0, 25.0, 10.0, 5.0), "quality", "written as JPEG and read again, each channel as a grey picture"),
}
"""By name; `robustness` of a grid names some of them, or ``all``."""
BIGGER, SMALLER, SWAP = "larger", "smaller", "swap"


@dataclass(frozen=True)
class Step:
    """A kind with its amount."""

    kind: str
    number: int
    """1, 2, ...: 0 stands for the images as they are."""

    @property
    def amount(self) -> float:
        """How much: see ``KINDS``."""
        return KINDS[self.kind].amounts[self.number - 1]

    @property
    def rescales(self) -> bool:
        """Whether cells lie elsewhere in it than in the window itself."""
        return self.kind in (BIGGER, SMALLER)


def check_kinds(names: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds that names stand for, in the order of ``KINDS`` and each once.

    Raises
    ------
    SegbenchError
        A name is none of a kind.

    Examples
    --------
    >>> check_kinds(["noise", "blur"]), len(check_kinds(["all"])) == len(KINDS)
    (('blur', 'noise'), True)
    """
    for name in names:
        if name not in (*KINDS, ALL):
            raise unknown_name("kind of robustness", name, (*KINDS, ALL))
    return tuple(KINDS) if ALL in names else tuple(name for name in KINDS if name in names)


def steps_of(kinds: Sequence[str], n_channels: int) -> list[Step]:
    """Return the steps of kinds for windows of so many channels: with one, nothing can be swapped.

    Examples
    --------
    >>> [step.number for step in steps_of(["blur", "swap"], n_channels=1)]
    [1, 2, 3, 4]
    """
    kinds = [kind for kind in kinds if kind != SWAP or n_channels > 1]
    return [Step(kind, number) for kind in kinds for number in range(1, len(KINDS[kind].amounts) + 1)]


def degraded(window: Image, step: Step, seed: int) -> Image:
    """Return a window (C, H, W), values 0..1, as it looks in a step; of the same shape.

    Parameters
    ----------
    window
        As methods see it.
    step
        What becomes of it.
    seed
        Of what is random: the window's number, so that every method gets the same.

    Examples
    --------
    >>> window = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    >>> degraded(window, Step("dim", 1), seed=0).max()
    np.float32(0.5019608)
    >>> bool((degraded(window, Step("smaller", 1), seed=0)[0, 6:] > 0).all())
    True
    """
    worse = _MAKERS[step.kind](np.asarray(window, np.float32), step.amount, seed)
    return np.ascontiguousarray(worse, dtype=np.float32)


def seen_part(size: tuple[int, int], step: Step) -> tuple[slice, slice]:
    """Return the rows and columns of a window (H, W) that are still to be seen in a step.

    Examples
    --------
    >>> seen_part((256, 256), Step("larger", 1)), seen_part((256, 256), Step("blur", 1))
    ((slice(25, 230, None), slice(25, 230, None)), (slice(0, 256, None), slice(0, 256, None)))
    """
    if step.kind != BIGGER:
        return slice(0, size[0]), slice(0, size[1])
    seen = [max(1, round(n / step.amount)) for n in size]
    starts = [(n - part) // 2 for n, part in zip(size, seen, strict=True)]
    return slice(starts[0], starts[0] + seen[0]), slice(starts[1], starts[1] + seen[1])


def brought_back(labels: Labels, step: Step) -> Labels:
    """Return labels (H, W) of a window in a step as they lie in the window itself, 0 where it was not seen.

    Examples
    --------
    >>> labels = np.zeros((10, 10), np.int32)
    >>> labels[:3, :3] = 1
    >>> brought_back(labels, Step("smaller", 4)).all(), brought_back(labels, Step("blur", 1)) is labels
    (np.True_, True)
    """
    if not step.rescales:
        return labels
    height, width = labels.shape
    back = np.zeros_like(labels)
    rows, columns = seen_part((height, width), step)
    filled = (height, width) if step.kind == BIGGER else _shrunk((height, width), step.amount)
    n_rows, n_columns = rows.stop - rows.start, columns.stop - columns.start
    back[rows, columns] = labels[_nearest(filled[0], n_rows)[:, None], _nearest(filled[1], n_columns)]
    return back


def _nearest(pixels: int, wanted: int) -> npt.NDArray[np.int64]:
    """Return for each of the wanted pixels that of the others whose middle is nearest."""
    return np.minimum(((np.arange(wanted) + 0.5) * pixels / wanted).astype(np.int64), pixels - 1)


def _shrunk(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(plane: Image, size: tuple[int, int]) -> Image:
    from skimage.transform import resize

    found: Image = resize(plane, size, order=1, mode="reflect", anti_aliasing=size[0] < plane.shape[0])
    return found


def _blur(window: Image, amount: float, seed: int) -> Image:  # noqa: ARG001
    # imported where it is used: grids know the kinds alone
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(window, (0, amount, amount), mode="reflect"))


def _noise(window: Image, amount: float, seed: int) -> Image:
    drawn = np.random.default_rng([seed, 7]).standard_normal(window.shape, np.float32)
    return np.clip(window + np.float32(amount) * drawn, 0, 1)


def _dim(window: Image, amount: float, seed: int) -> Image:  # noqa: ARG001
    return np.asarray(np.round(np.clip(window, 0, 1) * amount * 255) / 255, np.float32)


def _smaller(window: Image, amount: float, seed: int) -> Image:  # noqa: ARG001
    height, width = window.shape[1:]
    small = np.stack([_resized(plane, _shrunk((height, width), amount)) for plane in window])
    rest = (0, height - small.shape[1]), (0, width - small.shape[2])
    # mirrored beyond its edges: a network is given images of the size that it was trained on
    return np.pad(small, ((0, 0), *rest), mode="symmetric")


def _larger(window: Image, amount: float, seed: int) -> Image:  # noqa: ARG001
    height, width = window.shape[1:]
    rows, columns = seen_part((height, width), Step(BIGGER, KINDS[BIGGER].amounts.index(amount) + 1))
    return np.stack([_resized(plane[rows, columns], (height, width)) for plane in window])


def _swap(window: Image, amount: float, seed: int) -> Image:  # noqa: ARG001
    if window.shape[0] < 2:
        raise SegbenchError("one channel cannot be swapped with another")
    return window[::-1]


def _jpeg(window: Image, amount: float, seed: int) -> Image:  # noqa: ARG001
    from PIL import Image as Pictures

    planes = []
    for plane in np.round(np.clip(window, 0, 1) * 255).astype(np.uint8):
        file = io.BytesIO()
        Pictures.fromarray(plane).save(file, "JPEG", quality=int(amount))
        planes.append(np.asarray(Pictures.open(file), np.float32) / 255)
    return np.stack(planes)


_MAKERS: Mapping[str, Callable[[Image, float, int], Image]] = {
    "blur": _blur,
    "noise": _noise,
    "dim": _dim,
    "smaller": _smaller,
    "larger": _larger,
    "swap": _swap,
    "jpeg": _jpeg,
}
assert set(_MAKERS) == set(KINDS)
