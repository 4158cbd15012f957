"""Divides images into train, val and test: by the folders they lie in, or by shares, seeded, stratified and grouped."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from segbench.engine.data.spec import SPLITS
from segbench.errors import SegbenchError

_SYNONYMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_WORDS = {word: split for split, words in _SYNONYMS.items() for word in words}


def split_named(*places: PurePosixPath | str) -> str | None:
    """Return the split that the folders of files name as a word of their own, the innermost first; None for none.

    Examples
    --------
    >>> split_named(PurePosixPath("stage1_train/abc/a.png")), split_named(PurePosixPath("latest/a.png"))
    ('train', None)
    """
    for place in places:
        parts = place.parent.parts if isinstance(place, PurePosixPath) else (place,)
        for part in reversed(parts):
            words = re.split(r"[^a-z]+", part.lower())
            found = {_WORDS[word] for word in words if word in _WORDS}
            if len(found) == 1:
                return found.pop()
    return None


def kept_split(named: Sequence[str | None], places: Sequence[PurePosixPath]) -> list[str] | None:
    """Return the split that every image's folders name; None where no image, or all by one name, have one.

    Raises
    ------
    SegbenchError
        Some images have one and others none.
    """
    if len({one for one in named if one is not None}) < 2:
        return None
    without = [place for place, one in zip(places, named, strict=True) if one is None]
    if without:
        raise SegbenchError(
            f"{len(without):,} images lie in no folder of a split ({without[0]}), others do: move them, or divide all "
            "anew with --split 0.7,0.15,0.15"
        )
    return [str(one) for one in named]


def divided(groups: Sequence[str], tissues: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """Return a split for each image, such that images of one group share theirs and tissues are spread alike.

    Groups are placed in the order of their size, of equal ones in an order that the seed decides, each where its tissue
    and all images together lack most. The order of the images does not matter.

    Parameters
    ----------
    groups, tissues
        Of each image.
    shares
        Of the images, by split; they sum to 1.
    seed
        Another one is another split.

    Examples
    --------
    >>> divided(list("aabbcc"), ["lung"] * 6, {"train": 0.5, "test": 0.5}, seed=0)
    ['train', 'train', 'train', 'train', 'test', 'test']
    """
    members: dict[str, list[int]] = {}
    for n, group in enumerate(groups):
        members.setdefault(group, []).append(n)
    tissue = {
        group: min(Counter(tissues[n] for n in own).items(), key=lambda item: (-item[1], item[0]))[0]
        for group, own in members.items()
    }
    sizes = Counter(tissue[group] for group in groups)
    lacking = {
        split: {None: share * len(groups)} | {t: share * n for t, n in sizes.items()} for split, share in shares.items()
    }
    order = sorted(members, key=lambda group: (-len(members[group]), _drawn(seed, group), group))
    placed: dict[str, str] = {}
    for group in order:
        split = max(shares, key=lambda one: lacking[one][None] + lacking[one][tissue[group]])
        placed[group] = split
        for part in (None, tissue[group]):
            lacking[split][part] -= len(members[group])
    _fill_empty(placed, order, list(shares))
    return [placed[group] for group in groups]


def check_groups(groups: Sequence[str], splits: Sequence[str], option: str) -> None:
    """Raise SegbenchError where a group stands in two splits."""
    first: dict[str, str] = {}
    for group, split in zip(groups, splits, strict=True):
        if first.setdefault(group, split) != split:
            raise SegbenchError(
                f"{option}: {group!r} stands in {first[group]} and in {split}; divide the images anew with "
                "--split 0.7,0.15,0.15"
            )


def missing_splits(splits: Sequence[str]) -> list[str]:
    """Return what an index needs and has no image of."""
    return [split for split in SPLITS if split in ("train", "test") and split not in set(splits)]


def _fill_empty(placed: dict[str, str], order: Sequence[str], splits: Sequence[str]) -> None:
    """Give every split a group, the smallest of the split that has most, where there are groups enough."""
    for split in (s for s in ("train", "test", "val") if s in splits):
        counts = Counter(placed.values())
        most = max(counts, key=lambda one: counts[one])
        if not counts[split] and counts[most] > 1:
            placed[next(group for group in reversed(order) if placed[group] == most)] = split


def _drawn(seed: int, group: str) -> bytes:
    # a hash is the same in every version of Python and numpy
    return hashlib.sha256(f"{seed}:{group}".encode()).digest()
