"""What an OME-XML description says of the planes of its own file: axes, channel names and the size of a pixel.

Source: the OME data model, schema 2016-06 (Image, Pixels, Channel, TiffData, UUID).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

_MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_LONGEST = 64 * 2**20
"""Characters of a description that is looked at."""


@dataclass(frozen=True)
class OmePlanes:
    """One image's planes in one file."""

    axes: str
    """Of the planes, slowest first: ``TZC``."""
    shape: tuple[int, int, int]
    """Planes along each of these axes."""
    pages: tuple[int, ...]
    """The page of each plane, in the order of the axes."""
    channels: tuple[str, ...] | None
    """Names of the channels that lie in this file; None where they have none."""
    pixel_size_um: float | None
    """None where it is not told, or pixels are not square."""


def planes_of(description: str, file_name: str, n_pages: int) -> list[OmePlanes] | None:
    """Return the images of an OME-XML description that lie in one file; None where it is not OME-XML.

    Parameters
    ----------
    description
        Of the file's first page.
    file_name
        Of that file: where a set's description names several, only what lies in this one counts.
    n_pages
        Pages of the file; what the description tells beyond them is not there.
    """
    if "<OME" not in description[:4096] or len(description) > _LONGEST or "<!ENTITY" in description:
        return None
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError:
        return None
    own = root.get("UUID")
    found = []
    for pixels in root.iterfind("./{*}Image/{*}Pixels"):
        planes = dict(_planes(pixels, own, file_name))
        planes = {place: page for place, page in planes.items() if page < n_pages}
        if planes:
            found.append(_image(pixels, planes))
    return found


def _planes(pixels: ElementTree.Element, own: str | None, file_name: str) -> Iterator[tuple[tuple[int, int, int], int]]:
    """Yield ((t, z, c), page) of the planes that lie in this file."""
    sizes = {axis: _whole(pixels.get(f"Size{axis}"), 1) for axis in "CZT"}
    samples = [_whole(channel.get("SamplesPerPixel"), 1) for channel in pixels.iterfind("{*}Channel")]
    if samples and sum(samples) == sizes["C"]:
        sizes["C"] = len(samples)  # the samples of a page are one plane
    order = [axis for axis in (pixels.get("DimensionOrder") or "XYZCT")[2:] if axis in sizes]
    places = list(itertools.product(*(range(sizes[axis]) for axis in reversed(order))))
    index = {place: n for n, place in enumerate(places)}
    blocks = list(pixels.iterfind("{*}TiffData")) or [ElementTree.Element("TiffData")]
    for block in blocks:
        uuid = block.find("{*}UUID")
        if uuid is not None and not _is_own(uuid, own, file_name):
            continue
        first = tuple(_whole(block.get(f"First{axis}"), 0) for axis in reversed(order))
        page, start = _whole(block.get("IFD"), 0), index.get(first)
        if start is None:
            continue
        count = _whole(block.get("PlaneCount"), 1 if block.get("IFD") is not None else len(places))
        for n, place in enumerate(places[start : start + count]):
            at = dict(zip(reversed(order), place, strict=True))
            yield (at["T"], at["Z"], at["C"]), page + n


def _is_own(uuid: ElementTree.Element, own: str | None, file_name: str) -> bool:
    if own is not None and (uuid.text or "").strip():
        return (uuid.text or "").strip() == own
    return uuid.get("FileName") in (None, file_name)


def _image(pixels: ElementTree.Element, planes: dict[tuple[int, int, int], int]) -> OmePlanes:
    along = [sorted({place[axis] for place in planes}) for axis in range(3)]
    whole = list(itertools.product(*along))
    names = [channel.get("Name") or "" for channel in pixels.iterfind("{*}Channel")]
    here = [names[c] for c in along[2] if c < len(names)]
    named = len(here) == len(along[2]) and all(here) and len(set(here)) == len(here)
    return OmePlanes(
        axes="TZC",
        shape=(len(along[0]), len(along[1]), len(along[2])),
        # a plane that is missing leaves fewer pages than the shape has: the reader refuses that
        pages=tuple(planes[place] for place in whole if place in planes),
        channels=tuple(here) if named else None,
        pixel_size_um=square([_micrometres(pixels, axis) for axis in "XY"]),
    )


def _micrometres(pixels: ElementTree.Element, axis: str) -> float | None:
    factor = _MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit") or "µm")
    try:
        size = float(pixels.get(f"PhysicalSize{axis}") or "")
    except ValueError:
        return None
    return None if factor is None else size * factor


def square(sides: Sequence[float | None]) -> float | None:
    """Return the side of a pixel where both are known, positive and alike to a thousandth; else None.

    Examples
    --------
    >>> square([0.5, 0.5001]), square([0.5, 0.6]), square([0.5, None])
    (0.5, None, None)
    """
    across, down = sides
    if across is None or down is None or not 0 < across < 1e6:
        return None
    return across if abs(across - down) <= 1e-3 * across else None


def _whole(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.strip().isdigit() else default
