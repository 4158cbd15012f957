"""By how much an image is enlarged or shrunk before a model sees it."""

from __future__ import annotations

from dataclasses import dataclass

from segbench.engine.data.recipe import Recipe
from segbench.engine.data.rescaling import Rescaling
from segbench.errors import SegbenchError

_SAME_SIZE = 0.01
"""Pixel sizes that differ by less, relatively, are the same."""


@dataclass(frozen=True)
class Scale:
    """The scale at which a model sees an image."""

    factor: float | None
    """None where the image stays as it is."""
    pixel_size_um: float | None
    """Side of the image's own pixels, where it is known."""
    note: str | None = None
    """What the user should know of it."""


def scale_of(recipe: Recipe, own_um: float | None, told_um: float | None, image: str, *, rescale: bool = True) -> Scale:
    """Return the scale at which a model sees an image.

    Where the pixel sizes of the image and of the model's windows are known and differ, one becomes the other. Where the
    training images were rescaled to one pixel size, it must be known.

    Parameters
    ----------
    recipe
        Of the model.
    own_um
        Side of the image's pixels as its file tells it, in micrometres.
    told_um
        As the user tells it, which goes for all images.
    image
        What an error calls the image.
    rescale
        False leaves every image as it is.

    Raises
    ------
    SegbenchError
        File and user differ, a pixel size that is needed is not known, or the factor is absurd.

    Examples
    --------
    >>> from segbench.engine.data.spec import PreparationSettings
    >>> half_um = Recipe(("nuclear",), PreparationSettings(), pixel_size_um=0.5)
    >>> scale_of(half_um, 0.25, None, "a.tif").factor, scale_of(half_um, None, 0.502, "a.tif").factor
    (0.5, None)
    """
    if own_um is not None and told_um is not None and abs(own_um - told_um) > _SAME_SIZE * told_um:
        raise SegbenchError(
            f"{image} says that its pixels are {own_um:g} um, --pixel-size says {told_um:g}: leave --pixel-size out, "
            "or mend the file"
        )
    size = told_um if own_um is None else own_um
    if not rescale:
        return Scale(None, size)
    wanted, done = recipe.pixel_size_um, recipe.rescaling
    if size is not None and wanted is not None:
        if abs(size - wanted) <= _SAME_SIZE * wanted:
            return Scale(None, size)
        return Scale(Rescaling(pixel_size_um=wanted).factor_of(size, image), size)
    if done is not None:
        factor = done.factor_of(size, image)
        return Scale(factor, size, f"rescaled by {factor:.3g} as the training images were: no pixel size is known")
    if wanted is not None:
        return Scale(None, size, f"its pixel size is not known: taken for {wanted:g} um, as in training (--pixel-size)")
    return Scale(None, size)
