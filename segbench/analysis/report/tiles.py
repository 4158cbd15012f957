"""Makes the pictures of the examples: microscopy as small WebP tiles, outlines as transparent ones laid over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics import faults as rules
from segbench.engine.metrics.diagnosis import label_faults

NOTHING, FOUND, LOOSE, MISSED, SPLIT, MERGED, SPURIOUS, TRUTH = range(8)
"""What a pixel of an overlay says of the cell whose outline it is."""
KINDS = {
    "found": (FOUND, "#56b4ff", "an overlap (IoU) of 0.5 or more"),
    "loose": (LOOSE, "#b9a6ff", "the right cell, but an overlap below 0.5"),
    "missed": (MISSED, "#fff13d", "a true cell that no prediction shows"),
    "split": (SPLIT, "#ff6fae", "pieces of one true cell"),
    "merged": (MERGED, "#35e08d", "several true cells in one prediction"),
    "spurious": (SPURIOUS, "#ff8c1a", "a prediction with no true cell"),
    "truth": (TRUTH, "#ffffff", "the outline that people drew"),
}
"""The one colour key: each kind's number in an overlay, its colour (light enough for any microscopy), its meaning."""
PALETTE = np.array([(0, 0, 0, 0), *((*bytes.fromhex(colour[1:]), 255) for _, colour, _ in KINDS.values())], np.uint8)
"""(8, 4), the colours (RGBA) by number."""
# Two channels as grey and purple: apart from each other for every kind of colour vision, and from the outlines above
# them
_TWO_CHANNELS = np.array([[0.62, 0.62, 0.62], [0.5, 0.08, 0.5]])
_ONE, _TWO, _THREE = ("#d0d0d0",), ("#d0d0d0", "#e060e0"), ("#ff6060", "#60e060", "#8080ff")
_AS_SHOWN = np.empty(6, np.uint8)
_AS_SHOWN[[rules.RIGHT, rules.LOOSE, rules.MISSED, rules.SPLIT, rules.MERGED, rules.SPURIOUS]] = range(FOUND, TRUTH)


@dataclass(frozen=True)
class Overlay:
    """One prediction against the truth."""

    picture: str
    """Base64 of a WebP (H, W) with transparent ground."""
    counts: Mapping[str, int]
    """True cells that are ``found``, ``loose``, ``missed``, ``split`` and ``merged``; predictions that are
    ``spurious``."""


def picture(image: npt.NDArray[np.uint8]) -> str:
    """Return base64 of a WebP of display channels (C, H, W): grey for one, colours for two, else the first three."""
    from PIL import Image

    planes = image.astype(np.float64)
    if planes.shape[0] == 1:
        shown = Image.fromarray(image[0])
    elif planes.shape[0] == 2:
        mixed = np.einsum("chw,cr->hwr", planes, _TWO_CHANNELS)
        shown = Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
    else:
        shown = Image.fromarray(np.moveaxis(image[:3], 0, -1).copy())
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=75, method=4)
    return base64.b64encode(buffer.getvalue()).decode()


def truth_overlay(truth: npt.NDArray[np.int32]) -> str:
    """Return base64 of a WebP with the outlines of a label map (H, W)."""
    return _overlay(np.where(boundary(truth), np.uint8(TRUTH), np.uint8(0)))


def channel_key(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the channels that `picture` shows, each with the colour that a key gives it.

    Examples
    --------
    >>> channel_key(["nuclear", "membrane"])
    [('nuclear', '#d0d0d0'), ('membrane', '#e060e0')]
    """
    colours = {1: _ONE, 2: _TWO}.get(len(names), _THREE)
    return list(zip(names, colours, strict=False))


def told(counts: Mapping[str, int]) -> str:
    """Return an overlay's counts in words; kinds that there are none of are left out, but for found and missed.

    Examples
    --------
    >>> told({"found": 5, "loose": 0, "missed": 0, "split": 1, "merged": 0, "spurious": 2})
    '5 found, 0 missed, 1 split, 2 spurious'
    """
    return ", ".join(f"{n} {kind}" for kind, n in counts.items() if n or kind in ("found", "missed"))


def prediction_overlay(truth: npt.NDArray[np.int32], prediction: npt.NDArray[np.int32]) -> Overlay:
    """Return the outlines of a predicted label map (H, W), coloured by what the truth says of each.

    Predictions are drawn where they are; missed cells, and the cells that a prediction merges, where they are in truth,
    dashed, so that they can be told apart without their colour.
    """
    of_truth, of_predictions = faults(truth, prediction)
    diagonals = np.add.outer(np.arange(truth.shape[0]), np.arange(truth.shape[1]))
    dashed = np.where(boundary(truth) & (diagonals // 3 % 2 == 0), of_truth[truth], NOTHING)
    drawn = np.where(np.isin(dashed, (MISSED, MERGED)), dashed, NOTHING)
    drawn = np.where(boundary(prediction), of_predictions[prediction], drawn).astype(np.uint8)
    true_kinds = np.bincount(of_truth, minlength=len(PALETTE))
    counts = {name: int(true_kinds[number]) for name, (number, _, _) in KINDS.items() if name != "truth"}
    counts["spurious"] = int(np.count_nonzero(of_predictions == SPURIOUS))
    return Overlay(_overlay(drawn), counts)


def faults(
    truth: npt.NDArray[np.int32], prediction: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return what is right or wrong with each instance of two label maps (H, W), by label, as a diagnosis tells it.

    Returns
    -------
    of_truth, of_predictions
        (largest label + 1,) each: the kinds by label; ``NOTHING`` for labels that no pixel has.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 1, 0, 2, 3]], np.int32)
    >>> of_truth, of_predictions = faults(truth, np.array([[1, 2, 2, 0, 0, 4, 4]], np.int32))
    >>> [int(kind) for kind in of_truth] == [NOTHING, FOUND, MERGED, FOUND]
    True
    """
    of_truth, of_predictions = label_faults(truth, prediction)
    return _by_label(truth, of_truth), _by_label(prediction, of_predictions)


def _by_label(labels: npt.NDArray[np.int32], kinds: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    pixels = np.bincount(labels.ravel())
    pixels[0] = 0
    found = np.full(pixels.size, NOTHING, np.uint8)
    found[np.flatnonzero(pixels)] = _AS_SHOWN[kinds]
    return found


def boundary(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return the pixels of instances (H, W) that touch another label or the ground above, below, left or right."""
    edge = np.zeros(labels.shape, bool)
    vertical, horizontal = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    return edge & (labels > 0)


def _overlay(indices: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    # Lossless, and a third smaller than the same as PNG
    Image.fromarray(PALETTE[indices]).save(buffer, "WEBP", lossless=True, method=1, quality=20)
    return base64.b64encode(buffer.getvalue()).decode()
