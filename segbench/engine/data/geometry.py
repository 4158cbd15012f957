"""Shapes of synthetic tissue: where cells and nuclei lie in an image, as label maps."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

Field = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Shape:
    """How the cells of a tissue are shaped and arranged. Lengths are in pixels."""

    diameter: float
    """Mean diameter of a cell."""
    spread: float
    """Standard deviation of the diameter's logarithm."""
    aspect: float
    """Mean ratio of a cell's long to its short axis."""
    rough: float
    """How far outlines are bent, as a share of the diameter."""
    lobes: float
    """How far cells reach out in arms, as a share of the radius; 0 for none."""
    cover: float
    """Share of the image that holds tissue."""
    packing: float
    """How close cells are seeded: 1 leaves room, 0.7 packs them so that all their edges touch."""
    nucleus: float
    """Diameter of the nucleus as a share of the cell's."""
    architecture: str = "sheet"
    """``sheet``, ``glands``, ``layers``, ``septa``, ``follicles`` or ``islands``."""


def noise(rng: np.random.Generator, size: int, scale: float) -> Field:
    """Return smooth noise (size, size) of mean 0 and deviation 1, with features of ``scale`` pixels."""
    if scale < 4:
        field = ndimage.gaussian_filter(rng.standard_normal((size, size)), scale / 2, mode="wrap")
    else:
        coarse = rng.standard_normal((int(np.ceil(2 * size / scale)) + 5,) * 2)
        factor = scale / 2
        positions = np.arange(size) / factor + 1.5
        field = _bicubic(coarse, positions)
    spread = float(field.std())
    result: Field = (field - field.mean()) / (spread if spread > 0 else 1.0)
    return result


def _bicubic(coarse: Field, positions: Field) -> Field:
    """Sample a coarse grid at the same positions along both axes with cubic B-splines (smooth, not interpolating)."""
    first = np.floor(positions).astype(int) - 1
    t = positions - np.floor(positions)
    weights = (1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6
    # every position lies at least one and a half points inside the grid
    rows = sum(w[:, None] * coarse[first + k] for k, w in enumerate(weights))
    columns = np.ascontiguousarray(rows.T)
    result: Field = sum(w[:, None] * columns[first + k] for k, w in enumerate(weights))
    return result


def grow_cells(rng: np.random.Generator, size: int, shape: Shape) -> tuple[Labels, Labels]:
    """Return the label maps of whole cells and of their nuclei, (size, size) int32 each.

    Cells are seeded by dart throwing with a distance in each dart's own stretched metric, then every pixel goes to the
    nearest seed within its reach (an anisotropic, multiplicatively weighted Voronoi diagram in bent coordinates), so
    that neighbours share an edge where they meet. A nucleus has its cell's number and lies inside it; a few cells have
    none in the plane of the image. Labels are not without gaps.
    """
    field = _architecture(rng, size, shape)
    seeds = _sow(rng, size, shape, field)
    bend = [
        shape.rough
        * shape.diameter
        * (0.6 * noise(rng, size, shape.diameter) + 0.12 * noise(rng, size, shape.diameter / 2.2))
        for _ in range(2)
    ]
    cells = _main_pieces(_grow(seeds, bend[0], bend[1], size), 0.12 * shape.diameter**2)
    depth = ndimage.distance_transform_edt(interior(cells))
    nuclei = _place_nuclei(rng, cells, depth, seeds, shape, size)
    return cells, nuclei


def interior(labels: Labels) -> npt.NDArray[np.bool_]:
    """Return True where all four neighbours carry a pixel's label; the image's own border does not count."""
    padded = np.pad(labels, 1, mode="edge")
    same = np.ones(labels.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        same &= padded[dy : dy + labels.shape[0], dx : dx + labels.shape[1]] == labels
    return same


@dataclass(frozen=True)
class _Fields:
    density: Field
    """Chance that a seed may lie here, 0..1."""
    angle: Field
    """Direction of cells' long axes, in radians."""
    scale: Field
    """Factor on the diameter."""
    aspect: Field
    """Factor on how far the aspect differs from 1."""


def _architecture(rng: np.random.Generator, size: int, shape: Shape) -> _Fields:
    d = shape.diameter
    y, x = np.mgrid[:size, :size].astype(float)
    one = np.ones((size, size))
    angle = np.pi * noise(rng, size, 8 * d) * 0.6 + rng.uniform(0, np.pi)
    scale, aspect = 1 + 0.1 * noise(rng, size, 5 * d), one

    def covered(field: Field) -> Field:
        return (field > np.quantile(field, 1 - shape.cover)).astype(float)

    if shape.architecture == "glands":
        density, angle, scale, aspect = _glands(rng, size, shape, angle)
        density = density * (0.12 + 0.88 * covered(noise(rng, size, 9 * d)))
    elif shape.architecture == "layers":
        tilt = rng.uniform(-0.4, 0.4)
        height = (y + tilt * x) / size + 0.08 * noise(rng, size, 8 * d)
        height = (height - height.min()) / (height.max() - height.min())
        angle = tilt * -1.0 + 0.35 * noise(rng, size, 5 * d)
        scale, aspect = 0.7 + 0.6 * height, 0.4 + 1.3 * height
        density = (height < np.quantile(height, shape.cover)).astype(float)
    elif shape.architecture == "septa":
        wall = np.abs(noise(rng, size, 7 * d))
        density = (wall < np.quantile(wall, shape.cover)).astype(float)
        gy, gx = np.gradient(ndimage.gaussian_filter(wall, d / 3))
        angle = np.arctan2(gy, gx) + np.pi / 2
    elif shape.architecture == "follicles":
        core = noise(rng, size, 10 * d)
        density = covered(noise(rng, size, 3 * d)) * np.clip(0.75 + 0.35 * core, 0.25, 1)
        scale = np.clip(1 + 0.12 * core, 0.75, 1.3)
    elif shape.architecture == "islands":
        density = covered(noise(rng, size, 6 * d) + 0.25 * noise(rng, size, 2 * d))
        density = 0.03 + 0.97 * density
    else:
        density = covered(noise(rng, size, 4 * d))
    return _Fields(density, angle, np.clip(scale, 0.5, 1.8), aspect)


def _glands(rng: np.random.Generator, size: int, shape: Shape, angle: Field) -> tuple[Field, Field, Field, Field]:
    """Rings of cells that point at a lumen, with thin cells of the stroma between the rings."""
    d = shape.diameter
    reach = rng.uniform(2.6, 4.0) * d
    centres = _darts(rng.uniform(-reach, size + reach, (400, 2)), np.full(400, reach * 0.95))
    y, x = np.mgrid[:size, :size].astype(float)
    y += 0.5 * d * noise(rng, size, 3 * d)
    x += 0.5 * d * noise(rng, size, 3 * d)
    nearest = np.full((size, size), np.inf)
    radial = angle.copy()
    for cy, cx in centres:
        distance = np.hypot(y - cy, x - cx) / (reach * rng.uniform(0.75, 1.1))
        closer = distance < nearest
        nearest[closer] = distance[closer]
        radial[closer] = np.arctan2(y - cy, x - cx)[closer]
    lumen = rng.uniform(0.15, 0.3)
    epithelium = (nearest > lumen) & (nearest < 1)
    stroma = nearest >= 1
    density = np.where(epithelium, 1.0, np.where(stroma, 0.55, 0.0))
    return (
        density,
        np.where(stroma, radial + np.pi / 2, radial),
        np.where(stroma, 0.72, 1.0),
        np.where(stroma, 2.0, 1.0),
    )


def _darts(points: Field, radius: Field) -> Field:
    """Return the points of a list that keep their distance from all before them."""
    kept: list[int] = []
    for i, point in enumerate(points):
        if not kept or np.min(np.hypot(*(points[kept] - point).T) - radius[kept] - radius[i]) > 0:
            kept.append(i)
    return points[kept]


def _sow(rng: np.random.Generator, size: int, shape: Shape, fields: _Fields) -> Field:
    """Return the seeds (n, 8): y, x, long radius, short radius, angle, arm count, arm phase, arm length."""
    n = int(14 * (size / shape.diameter) ** 2)
    at = rng.uniform(0, size, (n, 2))
    pixel = tuple(at.astype(int).T)
    allowed = rng.random(n) < fields.density[pixel]
    at, pixel, n = at[allowed], tuple(axis[allowed] for axis in pixel), int(allowed.sum())
    radius = 0.5 * shape.diameter * fields.scale[pixel] * np.exp(shape.spread * rng.standard_normal(n))
    aspect = 1 + (shape.aspect - 1) * fields.aspect[pixel] * rng.gamma(6, 1 / 6, n)
    angle = fields.angle[pixel] + rng.normal(0, 0.25, n)
    seeds = np.column_stack(
        [
            at, radius * np.sqrt(aspect), radius / np.sqrt(aspect), angle,
            rng.integers(2, 5, n), rng.uniform(0, 2 * np.pi, n), shape.lobes * rng.uniform(0.3, 1.0, n),
        ]
    )  # fmt: skip
    result: Field = seeds[_accept(seeds, shape.packing, float(size))]
    return result


@numba.njit(cache=True, nogil=True)
def _accept(seeds, packing, size):  # type: ignore[no-untyped-def]
    """Return which darts stay: those outside the stretched reach of every dart before them."""
    n = seeds.shape[0]
    kept = np.zeros(n, np.bool_)
    if n == 0:
        return kept
    bucket = 2 * seeds[:, 2].max() * packing + 1
    side = int(size / bucket) + 1
    heads = np.full((side, side), -1, np.int64)
    following = np.full(n, -1, np.int64)
    for i in range(n):
        by, bx = int(seeds[i, 0] / bucket), int(seeds[i, 1] / bucket)
        free = True
        for cy in range(max(0, by - 1), min(side, by + 2)):
            for cx in range(max(0, bx - 1), min(side, bx + 2)):
                j = heads[cy, cx]
                while j >= 0 and free:
                    dy, dx = seeds[i, 0] - seeds[j, 0], seeds[i, 1] - seeds[j, 1]
                    free = _stretched(seeds[i], dy, dx) + _stretched(seeds[j], dy, dx) > 4 * packing
                    j = following[j]
        if free:
            kept[i] = True
            following[i] = heads[by, bx]
            heads[by, bx] = i
    return kept


@numba.njit(cache=True, nogil=True)
def _stretched(seed, dy, dx):  # type: ignore[no-untyped-def]
    c, s = np.cos(seed[4]), np.sin(seed[4])
    return np.hypot((dy * s + dx * c) / seed[2], (dy * c - dx * s) / seed[3])


@numba.njit(cache=True, nogil=True)
def _grow(seeds, bend_y, bend_x, size):  # type: ignore[no-untyped-def]
    labels = np.zeros((size, size), np.int32)
    nearest = np.full((size, size), np.inf)
    for i in range(seeds.shape[0]):
        seed = seeds[i]
        reach = int(seed[2] * 1.9 + 12)
        y0, x0 = int(seed[0]), int(seed[1])
        cos, sin = np.cos(seed[4]), np.sin(seed[4])
        for y in range(max(0, y0 - reach), min(size, y0 + reach + 1)):
            for x in range(max(0, x0 - reach), min(size, x0 + reach + 1)):
                dy, dx = y + bend_y[y, x] - seed[0], x + bend_x[y, x] - seed[1]
                along, across = (dy * sin + dx * cos) / seed[2], (dy * cos - dx * sin) / seed[3]
                q = np.sqrt(along * along + across * across)
                if seed[7] > 0 and 0 < q < 2.4:
                    arm = np.cos(seed[5] * np.arctan2(dy, dx) + seed[6])
                    q /= 1 + seed[7] * arm
                if q < 1.18 and q < nearest[y, x]:
                    nearest[y, x] = q
                    labels[y, x] = i + 1
    return labels


@numba.njit(cache=True, nogil=True)
def _main_pieces(labels, least):  # type: ignore[no-untyped-def]
    """Keep the largest four-connected piece of every label, and no label smaller than ``least`` pixels."""
    height, width = labels.shape
    piece = np.zeros((height, width), np.int32)
    largest = np.zeros(labels.max() + 1, np.int64)
    owner = np.zeros(labels.max() + 1, np.int32)
    stack = np.empty((height * width, 2), np.int32)
    n_pieces = 0
    for y in range(height):
        for x in range(width):
            value = labels[y, x]
            if value == 0 or piece[y, x]:
                continue
            n_pieces += 1
            area = _flood(labels, y, x, n_pieces, piece, stack)
            if area > largest[value]:
                largest[value], owner[value] = area, n_pieces
    result = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            value = labels[y, x]
            if value and piece[y, x] == owner[value] and largest[value] >= least:
                result[y, x] = value
    return result


@numba.njit(cache=True, nogil=True)
def _flood(labels, y, x, number, piece, stack):  # type: ignore[no-untyped-def]
    """Number the four-connected piece of a label that a pixel belongs to, and return its area."""
    height, width = labels.shape
    value = labels[y, x]
    piece[y, x] = number
    stack[0, 0], stack[0, 1] = y, x
    filled, area = 1, 0
    while filled:
        filled -= 1
        cy, cx = stack[filled]
        area += 1
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            ny, nx = cy + dy, cx + dx
            if 0 <= ny < height and 0 <= nx < width and labels[ny, nx] == value and piece[ny, nx] == 0:
                piece[ny, nx] = number
                stack[filled, 0], stack[filled, 1] = ny, nx
                filled += 1
    return area


def _place_nuclei(
    rng: np.random.Generator, cells: Labels, depth: Field, seeds: Field, shape: Shape, size: int
) -> Labels:
    n = seeds.shape[0]
    area = np.bincount(cells.ravel(), minlength=n + 1)[1:].astype(float)
    there = area > 0
    # the deep part of a cell is where its nucleus has room
    weight = depth.ravel() ** 1.5 + 1e-3
    y, x = np.divmod(np.arange(cells.size), size)
    mass = np.bincount(cells.ravel(), weight, minlength=n + 1)[1:]
    centre = np.zeros((n, 2))
    for axis, coordinate in enumerate((y, x)):
        moment = np.bincount(cells.ravel(), weight * coordinate, minlength=n + 1)[1:]
        centre[there, axis] = moment[there] / mass[there]
    radius = shape.nucleus * np.sqrt(area / np.pi) * np.exp(0.1 * rng.standard_normal(n))
    centre += rng.normal(0, 0.12, (n, 2)) * radius[:, None]
    aspect = np.clip((seeds[:, 2] / seeds[:, 3]) ** 0.6 * np.exp(0.08 * rng.standard_normal(n)), 1, 3)
    placed = np.column_stack([centre, radius * np.sqrt(aspect), radius / np.sqrt(aspect), seeds[:, 4]])
    margin = rng.choice([0.0, 1.0, 2.0], n, p=[0.25, 0.4, 0.35])
    absent = ~there | (rng.random(n) < 0.03)
    bend = [
        0.07 * shape.nucleus * shape.diameter * noise(rng, size, shape.nucleus * shape.diameter / 2) for _ in range(2)
    ]
    nuclei = _draw_nuclei(cells, depth, placed, margin, absent, bend[0], bend[1])
    kept: Labels = _main_pieces(nuclei, max(9.0, 0.1 * (shape.nucleus * shape.diameter) ** 2))
    return kept


@numba.njit(cache=True, nogil=True)
def _draw_nuclei(cells, depth, placed, margin, absent, bend_y, bend_x):  # type: ignore[no-untyped-def]
    nuclei = np.zeros(cells.shape, np.int32)
    for y in range(cells.shape[0]):
        for x in range(cells.shape[1]):
            n = cells[y, x] - 1
            if n < 0 or absent[n] or depth[y, x] < margin[n]:
                continue
            if _stretched(placed[n], y + bend_y[y, x] - placed[n, 0], x + bend_x[y, x] - placed[n, 1]) < 1:
                nuclei[y, x] = n + 1
    return nuclei
