"""Which planes of an image a model sees: by the channels' names, by their order, or as the user says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.files import is_colour, to_grey
from segbench.engine.data.recipe import Recipe
from segbench.engine.files.picture import Picture
from segbench.errors import SegbenchError, unknown_name


@dataclass(frozen=True)
class Seen:
    """The planes of an image that a model sees."""

    pixels: npt.NDArray[Any]
    """(C, H, W), in the model's order."""
    note: str | None = None
    """What the user should know of the choice."""


def planes_for(picture: Picture, wanted: Sequence[str], recipe: Recipe, chosen: Sequence[str], image: str) -> Seen:
    """Return the planes of an image that a model sees, in its order.

    They are those that the user names; else those of the same names; else, of an image with as many channels as the
    model sees or its dataset has, those at the same places. A colour picture becomes grey for a model of one channel,
    as in training.

    Parameters
    ----------
    picture
        The image.
    wanted
        The channels that the model sees, in its order.
    recipe
        Of the model.
    chosen
        For each of them a channel of the image, by its name or its number from 1; empty for none.
    image
        What an error calls it.

    Raises
    ------
    SegbenchError
        A channel is missing, or it is not plain which is meant.
    """
    n, names = picture.pixels.shape[0], picture.channels
    if chosen:
        return Seen(_taken(picture.pixels, _as_told(chosen, wanted, names, n, image)))
    lower = [name.lower() for name in names or ()]
    if names is not None and all(name.lower() in lower for name in wanted):
        return Seen(_taken(picture.pixels, [lower.index(name.lower()) for name in wanted]))
    if n == len(wanted):
        note = f"channels {', '.join(names)} taken for {', '.join(wanted)}" if names is not None and n > 1 else None
        return Seen(picture.pixels, note)
    if len(wanted) == 1 and n == 3 and names is None:
        note = "colours made grey" if is_colour(picture.pixels) else None
        return Seen(to_grey(picture.pixels) if note else picture.pixels[:1], note)
    if n == len(recipe.channels) and names is None:
        places = [recipe.channels.index(name) for name in wanted]
        told = ", ".join(f"{name} is number {place + 1}" for name, place in zip(wanted, places, strict=True))
        return Seen(_taken(picture.pixels, places), f"channels by their order: {told}")
    named = f" ({', '.join(names)})" if names else ""
    has = f"{n} channel{'s' if n > 1 else ''}{named}"
    stack = "" if names or n == 1 else "; of a stack of planes --plane Z=0 takes one, --project max joins them"
    raise SegbenchError(
        f"{image} has {has}, the model sees {', '.join(wanted)}: say which they are with --channels, by name or number "
        f"from 1{stack}"
    )


def _as_told(
    chosen: Sequence[str], wanted: Sequence[str], names: Sequence[str] | None, n: int, image: str
) -> list[int]:
    if len(chosen) != len(wanted):
        raise SegbenchError(
            f"--channels names {len(chosen)}, the model sees {len(wanted)}: one each for {', '.join(wanted)}"
        )
    lower = [name.lower() for name in names or ()]
    places = []
    for one in chosen:
        if one.lower() in lower:
            places.append(lower.index(one.lower()))
        elif one.isdigit() and 1 <= int(one) <= n:
            places.append(int(one) - 1)
        elif one.isdigit():
            raise SegbenchError(f"{image} has {n} channels, --channels says number {one}")
        else:
            raise unknown_name(f"channel of {image}", one, names or [str(k) for k in range(1, n + 1)])
    return places


def _taken(pixels: npt.NDArray[Any], places: Sequence[int]) -> npt.NDArray[Any]:
    """Return some planes: of one or two a view, so that what lies on the disk stays there."""
    if len(places) == 1:
        return pixels[places[0] : places[0] + 1]
    step = places[1] - places[0]
    if step and list(places) == list(range(places[0], places[0] + step * len(places), step)):
        stop = places[-1] + step
        return pixels[places[0] : stop if stop >= 0 else None : step]
    return np.stack([pixels[place] for place in places])
