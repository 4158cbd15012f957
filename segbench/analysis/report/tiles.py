"""Makes the pictures of the examples: microscopy as small WebP tiles, outlines as transparent ones laid over them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IOU = 0.5
"""Overlap from which a predicted instance counts as the true one (AP50's threshold)."""

PALETTE = np.array(
    [(0, 0, 0, 0), (0x56, 0xD4, 0xFF, 255), (0xFF, 0x8C, 0x1A, 255), (0xFF, 0xF1, 0x3D, 255), (255, 255, 255, 255)],
    np.uint8,
)
"""Colours (RGBA) of an overlay: nothing, found, false positive, missed, truth; light enough for any microscopy."""
FOUND, FALSE, MISSED, TRUTH = 1, 2, 3, 4
# Two channels as grey and purple: apart from each other for every kind of colour vision, and from the outlines above
# them
_TWO_CHANNELS = np.array([[0.62, 0.62, 0.62], [0.5, 0.08, 0.5]])


@dataclass(frozen=True)
class Overlay:
    """One prediction against the truth."""

    picture: str
    """Base64 of a WebP (H, W) with transparent ground."""
    found: int
    """True instances with a predicted one of IoU 0.5 or more."""
    false: int
    """Predicted instances with no true one."""
    missed: int
    """True instances with no predicted one."""


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


def prediction_overlay(truth: npt.NDArray[np.int32], prediction: npt.NDArray[np.int32]) -> Overlay:
    """Return the outlines of a predicted label map (H, W), coloured by what the truth says.

    Found and false instances are drawn where they were predicted, missed ones where they are, dashed, so that they can
    be told apart without their colour.
    """
    found_true, found_predicted = matched(truth, prediction)
    drawn = np.zeros(truth.shape, np.uint8)
    missed = boundary(truth) & ~_is_one_of(truth, found_true)
    diagonals = np.add.outer(np.arange(truth.shape[0]), np.arange(truth.shape[1]))
    drawn[missed & (diagonals // 3 % 2 == 0)] = MISSED
    edges = boundary(prediction)
    right = _is_one_of(prediction, found_predicted)
    drawn[edges & right] = FOUND
    drawn[edges & ~right] = FALSE
    n_true, n_predicted = _count(truth), _count(prediction)
    return Overlay(_overlay(drawn), found_true.size, n_predicted - found_predicted.size, n_true - found_true.size)


def matched(
    truth: npt.NDArray[np.int32], prediction: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the labels of the true and of the predicted instances that overlap by IoU 0.5 or more, pair by pair.

    Within label maps an instance has at most one partner above 0.5; at exactly 0.5 each keeps its first.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 2]], np.int32)
    >>> matched(truth, np.array([[5, 5, 5, 0]], np.int32))
    (array([1]), array([5]))
    """
    area_true, area_predicted = np.bincount(truth.ravel()), np.bincount(prediction.ravel())
    both = (truth > 0) & (prediction > 0)
    # A pair of labels as one number: sorting numbers is much faster than sorting pairs
    pairs, overlap = np.unique(
        truth[both].astype(np.int64) * area_predicted.size + prediction[both], return_counts=True
    )
    true, predicted = np.divmod(pairs, area_predicted.size)
    alike = overlap / (area_true[true] + area_predicted[predicted] - overlap) >= IOU
    true, first = np.unique(true[alike], return_index=True)
    predicted, second = np.unique(predicted[alike][first], return_index=True)
    return true[second], predicted


def _is_one_of(labels: npt.NDArray[np.int32], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    table = np.zeros(int(labels.max(initial=0)) + 1, bool)
    table[wanted] = True
    return table[labels]


def boundary(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return the pixels of instances (H, W) that touch another label or the ground above, below, left or right."""
    edge = np.zeros(labels.shape, bool)
    vertical, horizontal = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    return edge & (labels > 0)


def _count(labels: npt.NDArray[np.int32]) -> int:
    return int(np.count_nonzero(np.bincount(labels.ravel())[1:]))


def _overlay(indices: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    # Lossless, and a third smaller than the same as PNG
    Image.fromarray(PALETTE[indices]).save(buffer, "WEBP", lossless=True, method=1, quality=20)
    return base64.b64encode(buffer.getvalue()).decode()
