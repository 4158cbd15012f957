"""Parts of a dataset's training images: nested, drawn by a seed, and as mixed as the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from segbench.engine.data.prepared import PreparedDataset
from segbench.engine.study.tissues import ALL_TISSUES

TRAIN = "train"


def in_drawn_order(tissue_of: Mapping[str, str], seed: int) -> list[str]:
    """Return pictures in the order in which they are drawn: the first n are the part of n.

    Parts of one seed are nested. Of each length, the part has of every tissue as near its share of the whole as whole
    numbers allow (Sainte-Lague's rule); parts shorter than the number of tissues have those with the most pictures.
    The order depends on the names and the seed alone, on every machine and with every library.

    Parameters
    ----------
    tissue_of
        Each picture's tissue.
    seed
        Of the run.

    Examples
    --------
    >>> tissue_of = {f"{tissue}{n}": tissue for tissue, many in (("gut", 6), ("lung", 3)) for n in range(many)}
    >>> drawn = in_drawn_order(tissue_of, seed=0)
    >>> [sorted(tissue_of[picture] for picture in drawn[:n]) for n in (1, 3)]
    [['gut'], ['gut', 'gut', 'lung']]
    """
    drawn = {picture: hashlib.sha256(f"{seed} {picture}".encode()).digest() for picture in tissue_of}
    sizes: dict[str, int] = {}
    for tissue in tissue_of.values():
        sizes[tissue] = sizes.get(tissue, 0) + 1
    seen: dict[str, int] = {}
    places: list[tuple[float, bytes, str]] = []
    for picture in sorted(tissue_of, key=drawn.__getitem__):
        tissue = tissue_of[picture]
        seen[tissue] = seen.get(tissue, 0) + 1
        places.append(((seen[tissue] - 0.5) / sizes[tissue], drawn[picture], picture))
    return [picture for _, _, picture in sorted(places)]


def training_pictures(data: PreparedDataset) -> dict[str, int]:
    """Return how many pictures the training windows of each tissue, and of ``all``, are cut from.

    Images that are the same picture, annotated twice, are one.
    """
    tissues = data.index(TRAIN)["tissue"].to_list()
    pairs = set(zip(data.origins(TRAIN), tissues, strict=True))
    counts = {ALL_TISSUES: len({picture for picture, _ in pairs})}
    for _, tissue in pairs:
        counts[tissue] = counts.get(tissue, 0) + 1
    return counts


def training_rows(data: PreparedDataset, tissue: str, pictures: int | None, seed: int) -> tuple[int, ...]:
    """Return the training windows of a tissue that come from so many of its pictures.

    Parameters
    ----------
    data
        The dataset.
    tissue
        A training tissue, or ``all``.
    pictures
        How many; None, and more than there are, for every one.
    seed
        Draws them.

    Raises
    ------
    SegbenchError
        There is no such tissue.
    """
    rows = data.rows(TRAIN, tissue)
    if pictures is None:
        return rows
    tissues, origins = data.index(TRAIN)["tissue"].to_list(), data.origins(TRAIN)
    tissue_of: dict[str, str] = {}
    for row in rows:
        tissue_of.setdefault(origins[row], tissues[row])
    chosen = set(in_drawn_order(tissue_of, seed)[:pictures])
    return tuple(row for row in rows if origins[row] in chosen)


def pictures_of(data: PreparedDataset, rows: tuple[int, ...]) -> int:
    """Return how many pictures these training windows are cut from."""
    origins = data.origins(TRAIN)
    return len({origins[row] for row in rows})
