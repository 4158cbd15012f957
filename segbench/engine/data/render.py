"""Synthetic microscopy: pixels of fluorescence and phase-contrast images from label maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segbench.engine.data.geometry import Field, Labels, interior, noise


@dataclass(frozen=True)
class Stain:
    """How a tissue looks under the fluorescence microscope."""

    photons: float
    """Photons of a bright pixel: few give much Poisson noise."""
    blur: float
    """Standard deviation of the point-spread function, in pixels."""
    cytoplasm: float
    """Brightness of the cytoplasm relative to the membrane in the membrane channel."""
    evenness: float
    """Share of cells that carry the membrane marker well; the others are dim."""


@dataclass(frozen=True)
class Culture:
    """How a cell type looks in phase contrast."""

    contrast: float
    """How much it differs from the background: little for flat cells, much for thick ones."""
    halo: float
    """Reach of the bright halo around a cell, in pixels."""
    edge: float
    """Width of the dark edge inside a cell, in pixels."""
    grain: float
    """Strength of the granules around the nucleus."""
    shine: float
    """How bright the middle is: 0 for flat cells, 1 for round ones."""


def render_fluorescence(
    rng: np.random.Generator, cells: Labels, nuclei: Labels, stain: Stain, diameter: float
) -> npt.NDArray[np.uint16]:
    """Return (2, H, W): the nuclear and the membrane channel, as counts of a 16-bit camera."""
    size = cells.shape[0]
    n = int(cells.max()) + 1
    blur = stain.blur * rng.uniform(0.85, 1.2)
    nuclear = _nuclear(rng, nuclei, n, diameter)
    membrane = _membrane(rng, cells, nuclei, n, stain, diameter)

    # what lies above and below the plane: blurred, shifted, without labels
    shift = tuple(int(v) for v in rng.integers(size // 4, 3 * size // 4, 2))
    haze = ndimage.gaussian_filter(np.roll(nuclear, shift, (0, 1)), 0.22 * diameter + 1)
    nuclear = nuclear + rng.uniform(0.12, 0.3) * haze + 0.06 * ndimage.gaussian_filter(nuclear, 0.8 * diameter)
    haze = ndimage.gaussian_filter(np.roll(membrane, shift, (0, 1)), 0.18 * diameter + 1)
    membrane = membrane + rng.uniform(0.1, 0.25) * haze + 0.03 * nuclear

    channels = []
    for signal in (nuclear, membrane):
        light = 1 + 0.16 * noise(rng, size, size / 1.5)
        background = 0.03 + 0.012 * np.abs(noise(rng, size, 3 * diameter))
        seen = ndimage.gaussian_filter((signal + background) * np.clip(light, 0.4, 1.8), blur)
        photons = stain.photons * rng.uniform(0.8, 1.25)
        counts = rng.poisson(np.maximum(seen, 0) * photons) + rng.normal(0, 1.3, seen.shape)
        # the camera's own blur of neighbouring pixels, gain and offset
        counts = ndimage.gaussian_filter(counts, 0.45)
        channels.append(np.clip(40 * counts + 300, 0, 65535))
    return np.stack(channels).astype(np.uint16)


def _nuclear(rng: np.random.Generator, nuclei: Labels, n: int, diameter: float) -> Field:
    size = nuclei.shape[0]
    inside = nuclei > 0
    depth = ndimage.distance_transform_edt(inside & interior(nuclei))
    level = np.exp(0.38 * rng.standard_normal(n))
    coarse = rng.uniform(0.5, 1.5, n)
    body = 0.55 + 0.45 * (1 - np.exp(-depth / 2.2))
    chromatin = 1 + coarse[nuclei] * (0.20 * noise(rng, size, 2.2) + 0.16 * noise(rng, size, 5.0))
    nucleolus = 1 - 0.45 * (noise(rng, size, max(3.0, diameter / 5)) > 1.5)
    signal: Field = inside * level[nuclei] * body * np.clip(chromatin, 0.2, 2.5) * nucleolus
    return signal


def _membrane(rng: np.random.Generator, cells: Labels, nuclei: Labels, n: int, stain: Stain, diameter: float) -> Field:
    size = cells.shape[0]
    inside = cells > 0
    depth = ndimage.distance_transform_edt(interior(cells))
    well = rng.random(n) < stain.evenness
    level = np.where(well, 1.0, 0.35) * np.exp(0.25 * rng.standard_normal(n))
    width = rng.uniform(1.0, 1.6)
    patches = np.clip(1 + 0.35 * noise(rng, size, 0.6 * diameter) + 0.28 * noise(rng, size, 2.5), 0.1, 3)
    ring = np.exp(-((depth / width) ** 2)) * patches
    grain = np.clip(1 + 0.30 * noise(rng, size, 2.5) + 0.25 * noise(rng, size, 0.5 * diameter), 0.1, 3)
    plasm = stain.cytoplasm * grain * np.where(nuclei > 0, 0.5, 1.0) * (1 - np.exp(-depth / 1.5))
    signal: Field = inside * level[cells] * (ring + plasm)
    # fibres and debris between the cells
    ridge = np.exp(-((noise(rng, size, 1.2 * diameter) / 0.09) ** 2)) * (noise(rng, size, 5 * diameter) > 0.3)
    signal += (~inside) * 0.35 * ridge * np.clip(1 + 0.4 * noise(rng, size, 3.0), 0, 3)
    specks = ndimage.gaussian_filter((rng.random((size, size)) < 2e-4) * rng.exponential(14.0, (size, size)), 1.0)
    return signal + specks


def render_phase(
    rng: np.random.Generator, cells: Labels, nuclei: Labels, culture: Culture, diameter: float
) -> npt.NDArray[np.uint8]:
    """Return (1, H, W): an 8-bit phase-contrast image, bodies with dark edges and bright halos on grey."""
    size = cells.shape[0]
    n = int(cells.max()) + 1
    inside = cells > 0
    thick = culture.contrast * np.exp(0.25 * rng.standard_normal(n))
    depth = ndimage.distance_transform_edt(interior(cells))
    outside, nearest = ndimage.distance_transform_edt(~inside, return_indices=True)

    image = _body(rng, cells, nuclei, depth, culture, thick, diameter)
    # light that the cell's edge bends outwards; it wavers along the edge
    waver = np.clip(1 + 0.30 * noise(rng, size, 0.7 * diameter), 0.2, 2)
    glow = 0.62 * np.exp(-((outside - 1) / 1.6)) + 0.38 * np.exp(-outside / culture.halo)
    image += np.where(inside, 0.0, 0.42 * thick[cells[tuple(nearest)]] * glow * waver)
    touching = inside & (depth < 1) & (outside == 0) & (ndimage.minimum_filter(cells, 3) > 0)
    image += 0.30 * thick[cells] * touching * waver

    specks = (rng.random((size, size)) < 6e-4) * rng.exponential(1.0, (size, size)) * (outside > 2)
    specks = 3.5 * ndimage.gaussian_filter(specks, 1.1) - 3.2 * ndimage.gaussian_filter(specks, 1.9)
    image += 0.45 - 0.6 * specks + 0.025 * noise(rng, size, size / 1.6) + 0.006 * noise(rng, size, 2.5)
    image = ndimage.gaussian_filter(image, rng.uniform(0.55, 0.85)) + rng.normal(0, 0.010, image.shape)
    result: npt.NDArray[Any] = np.clip(255 * image, 0, 255).astype(np.uint8)[None]
    return result


def _body(
    rng: np.random.Generator,
    cells: Labels,
    nuclei: Labels,
    depth: Field,
    culture: Culture,
    thick: Field,
    diameter: float,
) -> Field:
    """Return what a cell adds to the grey of the background: dark edge, grain, nucleus, the shine of round cells."""
    size = cells.shape[0]
    inside, within = cells > 0, nuclei > 0
    body = -0.04 - 0.30 * np.exp(-depth / culture.edge)
    body += 0.06 * noise(rng, size, 0.35 * diameter) + 0.05 * noise(rng, size, 5.0) + 0.03 * noise(rng, size, 2.2)
    to_nucleus = ndimage.distance_transform_edt(~within)
    dots = [
        ndimage.gaussian_filter((rng.random((size, size)) < 0.035) * rng.exponential(1.0, (size, size)), width)
        for width in (0.7, 1.0)
    ]
    crowd = 0.35 + np.exp(-to_nucleus / (0.18 * diameter)) * ~within
    body += culture.grain * crowd * (1.3 * dots[0] - 2.0 * dots[1])
    rim = ndimage.distance_transform_edt(within)
    body += within * (0.05 - 0.13 * np.exp(-rim / 1.1) - 0.16 * (noise(rng, size, max(4.0, 0.15 * diameter)) > 1.6))
    # a round cell gathers light like a lens, by as much as it stands up
    shine = culture.shine * rng.beta(1.2, 1.2, thick.size)
    deepest = ndimage.maximum(depth, cells, np.arange(thick.size))
    body += shine[cells] * np.clip(depth / np.maximum(deepest, 1)[cells] - 0.25, 0, None) * 0.9
    result: Field = inside * thick[cells] * body
    return result
