"""A picture of a prepared dataset: one window a tissue, without and with the outlines of its cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segbench.engine.data.geometry import interior
from segbench.engine.data.prepared import PreparedDataset

Rgb = npt.NDArray[np.float32]

_CHANNEL_COLOURS = ((0.30, 0.45, 1.0), (0.15, 1.0, 0.25), (1.0, 0.25, 0.20), (1.0, 0.85, 0.2), (0.2, 0.9, 0.9))
_OUTLINES = {"nuclear": (255, 90, 160), "wholecell": (255, 215, 60), "cell": (255, 215, 60)}
_CAPTION = 18


def mosaic(prepared: PreparedDataset, split: str = "test", side: int = 192, columns: int = 5) -> Image.Image:
    """Return a picture of one window of each tissue, its outlines below it.

    The window is the one with the median number of cells; its upper left ``side`` x ``side`` pixels
    are shown. One channel is grey, several are coloured and added (nuclear blue, membrane green).
    Outlines: nuclei pink, whole cells yellow.

    Parameters
    ----------
    prepared
        The dataset.
    split
        Where the windows are taken from.
    side
        Pixels of a tile.
    columns
        Most tiles in a row.
    """
    images = np.load(prepared.images_path(split), mmap_mode="r")
    labels = {target: np.load(prepared.labels_path(split, target), mmap_mode="r") for target in prepared.targets}
    index = prepared.index(split)
    tissues = prepared.tissues(split)
    side = min(side, images.shape[-1])
    rows = -(-len(tissues) // columns)
    columns = -(-len(tissues) // rows)
    picture = Image.new("RGB", (columns * side, rows * (2 * side + _CAPTION)), (24, 24, 24))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    for number, tissue in enumerate(tissues):
        of_tissue = index.filter(index["tissue"] == tissue).sort(f"n_cells_{prepared.targets[-1]}")
        window = of_tissue["window"][of_tissue.height // 2]
        plain = to_rgb(np.asarray(images[window, :, :side, :side]))
        outlined = plain.copy()
        for target in sorted(prepared.targets, key=lambda t: t == "nuclear"):
            plane = np.asarray(labels[target][window, :side, :side])
            outlined[~interior(plane) & (plane > 0)] = np.array(_OUTLINES.get(target, (255, 255, 255))) / 255
        x, y = number % columns * side, number // columns * (2 * side + _CAPTION)
        draw.text((x + 5, y + 1), tissue, fill=(235, 235, 235), font=font)
        for offset, tile in ((0, plain), (side, outlined)):
            picture.paste(Image.fromarray((tile * 255).astype(np.uint8)), (x, y + _CAPTION + offset))
    return picture


def save_small(picture: Image.Image, path: Path) -> None:
    """Save a picture as PNG with 128 colours, a third of its full size; raises OSError where it cannot be written."""
    picture.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)


def to_rgb(pixels: npt.NDArray[Any]) -> Rgb:
    """Return (C, H, W) in 0..1 as (H, W, 3) in 0..1: grey for one channel, else the channels' colours added."""
    if pixels.shape[0] == 1:
        return np.repeat(pixels[0][..., None], 3, axis=2).astype(np.float32)
    colours = np.array([_CHANNEL_COLOURS[i % len(_CHANNEL_COLOURS)] for i in range(pixels.shape[0])])
    rgb: Rgb = np.clip(np.tensordot(pixels, colours, axes=(0, 0)), 0, 1).astype(np.float32)
    return rgb
