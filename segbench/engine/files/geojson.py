"""Reads cells from GeoJSON as QuPath exports it.

Source of the format: RFC 7946, and QuPath's documentation of its exports ("Exporting annotations"). Coordinates are
pixels of the full resolution; 0, 0 is the upper left corner of the upper left pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segbench.engine.files.json_files import load_json
from segbench.engine.files.outlines import Outlines, Rings, checked_ring
from segbench.errors import SegbenchError

_INNER = ("cell", "detection", "tile")
"""QuPath's objects that lie within annotations: where a file has them, annotations are regions around them."""


def read_geojson(path: Path, nuclei: bool = False) -> Outlines:
    """Return the cells of a GeoJSON file.

    Where a file has objects of the types cell or detection, its annotations are the regions around them and are left
    out; else the annotations are the cells. Points, lines and cores of tissue arrays are left out.

    Parameters
    ----------
    path
        A FeatureCollection, a list of features, or one feature.
    nuclei
        Take the nuclei of QuPath's cells instead of their borders; cells without a nucleus are left out.

    Raises
    ------
    SegbenchError
        It is no GeoJSON, an outline is broken, or the cells lie on several planes of a stack; one line.
    """
    features = list(_features(load_json(path), path))
    kinds = [_kind(feature) for _, feature in features]
    inner = bool({"cell", "detection"} & set(kinds))
    left_out: Counter[str] = Counter()
    cells: list[Rings] = []
    planes: set[tuple[int, int]] = set()
    for (where, feature), kind in zip(features, kinds, strict=True):
        if kind == "tmacore" or (inner and kind not in _INNER):
            left_out["regions around cells"] += 1
            continue
        geometry = feature.get("nucleusGeometry") if nuclei else feature.get("geometry")
        if nuclei and geometry is None:
            left_out["cells without a nucleus"] += 1
            continue
        rings, plane = _shape(geometry, where)
        if rings is None:
            left_out["points and lines"] += 1
            continue
        planes.add(plane)
        cells.append(rings)
    if len(planes) > 1:
        raise SegbenchError(
            f"{path} has cells on {len(planes)} planes of a stack: export each plane on its own, with its image"
        )
    return Outlines(tuple(cells), dict(left_out))


def _features(raw: Any, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(raw, Mapping) and raw.get("type") == "FeatureCollection":
        raw = raw.get("features")
    elif isinstance(raw, Mapping) and raw.get("type") == "Feature":
        raw = [raw]
    if not isinstance(raw, list):
        raise SegbenchError(f"{path} is no GeoJSON: it must be a FeatureCollection, or a list of features")
    for n, feature in enumerate(raw):
        where = f"{path}, feature {n}"
        if not isinstance(feature, Mapping) or feature.get("type") != "Feature":
            raise SegbenchError(f"{where} is no GeoJSON feature")
        yield where, feature


def _kind(feature: Mapping[str, Any]) -> str:
    """Return the type of QuPath's object, in lower case without blanks; old versions write it as the feature's id."""
    properties = feature.get("properties")
    told = properties.get("objectType", properties.get("object_type")) if isinstance(properties, Mapping) else None
    kind = str(told or feature.get("id") or "").lower().replace("path", "").replace("object", "").replace("_", "")
    return "".join(kind.split())


def _shape(geometry: Any, where: str) -> tuple[Rings | None, tuple[int, int]]:
    """Return the rings of a geometry, None where it encloses nothing, and its plane (Z, T)."""
    if geometry is None:
        return None, (0, 0)
    if not isinstance(geometry, Mapping):
        raise SegbenchError(f"{where}: its geometry is no object")
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "GeometryCollection":
        parts = geometry.get("geometries")
        found = [_shape(part, where) for part in parts] if isinstance(parts, list) else []
        rings = [ring for part, _ in found if part is not None for ring in part]
        return rings or None, found[0][1] if found else (0, 0)
    if kind not in ("Polygon", "MultiPolygon"):
        return None, (0, 0)
    polygons = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(polygons, list) or not all(isinstance(polygon, list) for polygon in polygons):
        raise SegbenchError(f"{where}: the coordinates of a {kind} are lists of rings")
    return [checked_ring(ring, where) for polygon in polygons for ring in polygon], _plane(geometry.get("plane"))


def _plane(raw: Any) -> tuple[int, int]:
    if not isinstance(raw, Mapping):
        return 0, 0
    z, t = (value if isinstance(value := raw.get(axis), int) else 0 for axis in "zt")
    return z, t
