"""Measure how often images are closest to the training images of their own tissue, as ``models recommend`` tells it.

Run ``python benchmarks/bench_likeness.py``. The synthetic datasets are prepared (minutes, the first time); a
tissue's training windows, 16 at most, stand for a model of that tissue, and test images are compared with all of them:
each alone, and those of a tissue together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segbench.engine.data import ensure_prepared
from segbench.engine.data.prepared import PreparedDataset
from segbench.engine.data.spec import DatasetSpec
from segbench.engine.models.likeness import describe_windows, distances

_MOST = 16


def described(data: PreparedDataset, split: str, channels: list[int]) -> dict[str, npt.NDArray[np.float64]]:
    """Return rows that describe the windows of a split, by tissue."""
    windows, tissues = np.load(data.images_path(split), mmap_mode="r"), data.index(split)["tissue"].to_list()
    most = _MOST if split == "train" else len(tissues)
    return {
        tissue: describe_windows(
            windows[row][channels] for row in [n for n, t in enumerate(tissues) if t == tissue][:most]
        )
        for tissue in sorted(set(tissues))
    }


def main() -> None:
    """Print a row a layout and number of channels."""
    print("| layout | channels | tissues | chance | one image: first | among three | all images of a tissue: first |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for layout, channels in (("tissuenet", [0]), ("tissuenet", [0, 1]), ("livecell", [0])):
        options = {"layout": layout, "train": 4, "val": 1, "test": 6}
        data = ensure_prepared(DatasetSpec(f"likeness-{layout}", "synthetic", None, options))
        train, test = described(data, "train", channels), described(data, "test", channels)
        names, models = list(train), list(train.values())
        places = [
            [names[n] for n in np.argsort(distances(row[None], models))].index(tissue)
            for tissue, rows in test.items()
            for row in rows
        ]
        together = [names[int(np.argmin(distances(rows, models)))] == tissue for tissue, rows in test.items()]
        alone = np.asarray(places)
        first, three = (alone == 0).mean(), (alone < 3).mean()
        print(
            f"| {layout} | {len(channels)} | {len(names)} | {1 / len(names):.0%} | "
            f"{first:.0%} of {alone.size} | {three:.0%} | {sum(together)} of {len(together)} |"
        )


if __name__ == "__main__":
    main()
