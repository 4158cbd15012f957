"""Contrast-limited adaptive histogram equalisation, equal to scikit-image's ``equalize_adapthist`` and much faster."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

_N_GRAY = 2**14
_N_BINS = 256
_BIN_SIZE = 1 + _N_GRAY // _N_BINS


def equalize(
    image: npt.NDArray[np.float64], kernel: int = 128, clip_limit: float = 0.01
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Return CLAHE of an image, as ``skimage.exposure.equalize_adapthist(image, kernel, clip_limit)`` gives it.

    Parameters
    ----------
    image
        (H, W), float64, values in 0..1.
    kernel
        Side of the square tiles in pixels.
    clip_limit
        Highest share of a tile's pixels in one of the 256 grey bins; 0 for no limit.

    Returns
    -------
    (H, W) float64 in 0..1: lowest value 0, highest 1. A constant image gives what scikit-image gives for it.

    References
    ----------
    scikit-image 0.26, ``skimage/exposure/_adapthist.py``: the same arithmetic step by step (integer grey levels,
    clipped histograms, float32 interpolation), for two dimensions, without its per-pixel temporaries.

    Examples
    --------
    >>> from skimage.exposure import equalize_adapthist
    >>> x = np.random.default_rng(0).gamma(2.0, size=(300, 200))
    >>> x /= x.max()
    >>> float(np.abs(equalize(x) - equalize_adapthist(x, kernel_size=128)).max())
    0.0
    """
    grey = np.rint(image * 65535.0)
    bins = bins_of(grey, float(grey.min()), float(grey.max()))
    levels = interpolate(bins, maps_of(bins, kernel, clip_limit), kernel, 0)

    result: npt.NDArray[np.float64] = levels.astype(np.float64)
    low, high = float(result.min()), float(result.max())
    if low == high:
        result.clip(0.0, 1.0, out=result)
        return result
    result -= low
    result /= high - low
    return result


def bins_of(grey: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Return the bin of each pixel of an image, or of some rows of it, changing ``grey``.

    Parameters
    ----------
    grey
        Rounded 65,535ths of the image.
    low, high
        The least and the largest of the whole image.
    """
    if low != high:
        grey -= low
        grey /= high - low
        grey *= _N_GRAY - 1
    else:
        np.clip(grey, 0, _N_GRAY - 1, out=grey)
    return (np.rint(grey).astype(np.uint16) // _BIN_SIZE).astype(np.uint8)


def maps_of(bins: npt.NDArray[np.uint8], kernel: int, clip_limit: float) -> npt.NDArray[np.int64]:
    """Return what each tile makes of each bin, (n_y + 2, n_x + 2, 256): the outer tiles stand there twice."""
    before = kernel // 2
    rows, columns = (
        np.pad(np.arange(n), (before, (kernel - n % kernel) % kernel + -(-kernel // 2)), mode="reflect")
        for n in bins.shape
    )
    n_tiles = rows.size // kernel - 1, columns.size // kernel - 1
    limit = max(int(clip_limit * kernel * kernel), 1) if clip_limit > 0 else kernel * kernel
    maps = _tile_maps(bins, rows, columns, kernel, n_tiles[0], n_tiles[1], limit)
    return np.pad(maps, [(1, 1), (1, 1), (0, 0)], mode="edge")


@numba.njit(cache=True, nogil=True)
def _tile_maps(bins, rows, columns, kernel, n_y, n_x, limit):  # type: ignore[no-untyped-def]
    """Return each tile's mapping from bin to grey level, (n_y, n_x, 256) int64."""
    maps = np.zeros((n_y, n_x, _N_BINS), np.int64)
    start = kernel // 2
    scale = (_N_GRAY - 1) / (kernel * kernel)
    for ty in range(n_y):
        for tx in range(n_x):
            hist = np.zeros(_N_BINS, np.int64)
            for y in range(start + ty * kernel, start + (ty + 1) * kernel):
                for x in range(start + tx * kernel, start + (tx + 1) * kernel):
                    hist[bins[rows[y], columns[x]]] += 1
            _clip(hist, limit)
            total = 0
            for b in range(_N_BINS):
                total += hist[b]
                maps[ty, tx, b] = int(min(total * scale, float(_N_GRAY - 1)))
    return maps


@numba.njit(cache=True, nogil=True)
def _clip(hist, limit):  # type: ignore[no-untyped-def]
    """Clip a histogram in place and spread the excess as scikit-image's ``clip_histogram`` does, in its order."""
    excess = 0
    for b in range(hist.size):
        if hist[b] > limit:
            excess += hist[b] - limit
            hist[b] = limit
    increment = excess // hist.size
    upper = limit - increment
    for b in range(hist.size):
        if hist[b] < upper:
            excess -= increment
            hist[b] += increment
    # scikit-image takes this mask after the increment, so raised bins can be filled up here too
    for b in range(hist.size):
        if upper <= hist[b] < limit:
            excess += hist[b] - limit
            hist[b] = limit
    _spread_excess(hist, limit, excess)


@numba.njit(cache=True, nogil=True)
def _spread_excess(hist, limit, excess):  # type: ignore[no-untyped-def]
    """Spread what is left over the bins under the limit, one by one, until nothing is left or no bin has room."""
    while excess > 0:
        before = excess
        for first in range(hist.size):
            under = 0
            for b in range(hist.size):
                under += hist[b] < limit
            step = max(1, under // excess)
            for b in range(first, hist.size, step):
                if hist[b] < limit:
                    hist[b] += 1
                    excess -= 1
            if excess <= 0:
                break
        if excess == before:
            break


@numba.njit(cache=True, nogil=True)
def interpolate(bins, maps, kernel, first):  # type: ignore[no-untyped-def]
    """Return the grey levels, (H, W) uint16: each pixel's bin through the mappings of the four nearest tiles.

    ``bins`` are the rows of the image from row ``first`` on.
    """
    height, width = bins.shape
    levels = np.empty((height, width), np.uint16)
    start = kernel // 2
    for y in range(height):
        ty, fy = (y + first + start) // kernel, ((y + first + start) % kernel) / kernel
        for x in range(width):
            tx, fx = (x + start) // kernel, ((x + start) % kernel) / kernel
            b = bins[y, x]
            # float32 sums in scikit-image's order: rounding decides which level a pixel gets
            value = np.float32(maps[ty, tx, b] * ((1 - fx) * (1 - fy)))
            value += np.float32(maps[ty, tx + 1, b] * (fx * (1 - fy)))
            value += np.float32(maps[ty + 1, tx, b] * ((1 - fx) * fy))
            value += np.float32(maps[ty + 1, tx + 1, b] * (fx * fy))
            levels[y, x] = np.uint16(value)
    return levels
