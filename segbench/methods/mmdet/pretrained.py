"""Finds the weights that a backbone starts from: none, a file, or the published ImageNet weights in the cache."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.methods.mmdet.zoo import Recipe
from segbench.paths import cache_folder

_TIMEOUT_S = 60


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
        Where there is no such file, it cannot be fetched, or it holds no weights of this backbone.
    """
    if setting == "none":
        return None
    path = Path(setting).expanduser()
    if setting == "imagenet":
        path = cache_folder() / "pretrained" / recipe.imagenet.rpartition("/")[2]
        if not path.is_file():
            _fetch(recipe.imagenet, path)
    elif not path.is_file():
        raise SegbenchError(f"setting pretrained of {name}: there is no file {setting}; give none, imagenet or a path")
    keys = _keys(path)
    if recipe.stem not in keys and f"backbone.{recipe.stem}" not in keys:
        raise SegbenchError(
            f"setting pretrained of {name}: {path} is not the weights of its backbone (it has no {recipe.stem!r}); "
            f"{recipe.imagenet} is"
        )
    return path


def _fetch(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")  # several processes may fetch it at once
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, part.open("wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
    except (OSError, urllib.error.URLError) as error:
        part.unlink(missing_ok=True)
        raise SegbenchError(
            f"the ImageNet weights cannot be fetched ({error}): put the file {url} at {path}, or set pretrained to none"
        ) from error
    part.replace(path)


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
