"""Tells the models from the images among a command's arguments, and fetches those that only a gallery has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segbench.engine.models.pulling import Gallery
from segbench.engine.models.trained import TrainedModel, find_model, is_named_model
from segbench.engine.results.folder import ResultsFolder
from segbench.errors import SegbenchError
from segbench.paths import cache_folder

_PULLED = "pulled"
"""In the cache: packages of galleries, by their checksums."""


def models_and_images(
    arguments: Sequence[str], out: ResultsFolder, gallery: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[list[TrainedModel], list[str]]:  # fmt: skip
    """Return the models that arguments begin with, the first always, and the images after them, as they were given.

    Parameters
    ----------
    arguments
        Models, then images.
    out
        The results folder of runs and imported models.
    gallery
        The address or folder of a gallery, in which a name that is none here is looked up; its package is fetched into
        the cache once, and checked.
    note
        Is told how much of a package has come.

    Raises
    ------
    SegbenchError
        There is no such model, none to fetch, or no image after them.
    """
    shelf = None if gallery is None else Gallery(gallery)

    def is_model(text: str) -> bool:
        return is_named_model(text, out) or (shelf is not None and text in shelf.models)

    first = next((n for n, text in enumerate(arguments[1:], start=1) if not is_model(text)), None)
    if first is None:
        raise SegbenchError("name the images after the model: files, folders, patterns, or a .txt file of paths")
    return [_model(text, out, shelf, note) for text in arguments[:first]], list(arguments[first:])


def _model(text: str, out: ResultsFolder, shelf: Gallery | None, note: Callable[[str], None]) -> TrainedModel:
    if shelf is None or text not in shelf.models:
        return find_model(text, out)
    kept = cache_folder() / _PULLED / shelf.models[text].sha256
    return find_model(shelf.pull(text, kept / f"{text}.zip", note), out)
