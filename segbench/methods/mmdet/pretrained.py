"""Finds the weights that a backbone starts from: none, a file, or the published ImageNet weights in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.methods.mmdet.zoo import Recipe
from segbench.methods.weights import download


def find_weights(setting: str, recipe: Recipe, name: str) -> Path | None:
    """Return the file that a setting ``pretrained`` means, fetched into the cache folder where needed.

    Parameters
    ----------
    setting
        ``none``, ``imagenet``, or a path.
    recipe, name
        The method's row of the table and its name.

    Raises
    ------
    SegbenchError
        Where there is no such file, it cannot be fetched, is not the published one, or holds other weights.
    """
    if setting == "none":
        return None
    path = Path(setting).expanduser()
    if setting == "imagenet":
        if recipe.imagenet is None:
            raise SegbenchError(
                f"setting pretrained of {name}: upstream's configuration has no ImageNet weights; give none or a path"
            )
        if not recipe.imagenet.there():
            download(recipe.imagenet)
        path = recipe.imagenet.verified()
    elif not path.is_file():
        raise SegbenchError(f"setting pretrained of {name}: there is no file {setting}; give none, imagenet or a path")
    keys = _keys(path)
    if recipe.stem not in keys and f"backbone.{recipe.stem}" not in keys:
        raise SegbenchError(
            f"setting pretrained of {name}: {path} is not the weights of its backbone (it has no {recipe.stem!r}); "
            + (f"{recipe.imagenet.url} is" if recipe.imagenet else "give another")
        )
    return path


def prefix(path: Path, recipe: Recipe) -> str | None:
    """Return what stands before the names of the backbone's weights in a file: ``backbone.`` in that of a detector."""
    return None if recipe.stem in _keys(path) else "backbone."


def _keys(path: Path) -> set[str]:
    import pickle

    import torch

    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise SegbenchError(
            f"{path} does not load as plain weights (torch.load with weights_only): {str(error).splitlines()[0]}"
        ) from error
    for inner in ("state_dict", "model"):
        if isinstance(state, dict) and inner in state:
            state = state[inner]
    return set(state) if isinstance(state, dict) else set()
