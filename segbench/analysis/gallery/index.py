"""Writes what programs read of a gallery: an index in the form of bioimage.io's, and what models were trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from segbench.analysis.gallery.entries import Entry

INDEX = "index.json"
LIKENESS = "likeness.json"
"""Beside the index: what some training windows of each model look like, for 'models recommend'."""
PACKAGES = "packages"
_MOST_ROWS = 24


def index_of(entries: Sequence[Entry], title: str) -> dict[str, Any]:
    """Return the index: ``items`` as bioimage.io's own index has them, with the facts that choose among models.

    Sources are relative to the index.
    """
    return {
        "title": title,
        "items": [_item(entry) for entry in entries],
        "total": len(entries),
        "count_per_type": {"model": len(entries)},
        "timestamp": max((entry.facts.made_at for entry in entries), default=""),
        "likeness": LIKENESS,
    }


def _item(entry: Entry) -> dict[str, Any]:
    facts, pooled = entry.facts, entry.facts.pooled
    return {
        "id": facts.name,
        "type": "model",
        "versions": [
            {
                "version": "1",
                "source": f"{PACKAGES}/{facts.name}.zip",
                "sha256": entry.sha256,
                "size_bytes": entry.size,
            }
        ],
        "name": facts.title,
        "tags": ["segbench", facts.method, facts.target, *facts.channels],
        "license": facts.licence,
        "data_license": facts.data.licence,
        "method": facts.method,
        "trained": facts.trained,
        "task": facts.task,
        "dataset": facts.data.name,
        "channels": list(facts.channels),
        "target": facts.target,
        "train_tissue": facts.train_tissue,
        "preparation": facts.preparation,
        "pixel_size_um": facts.pixel_size_um,
        "diameter_px": facts.diameter_px,
        "accuracy": None if pooled is None else pooled.accuracy,
        "accuracy_interval": None if pooled is None else [pooled.accuracy_low, pooled.accuracy_high],
        "accuracy_by_tissue": {
            score.test_tissue: score.accuracy for score in facts.scores if score.test_tissue != "all"
        },
        "page": f"model/{facts.name}.html",
    }


def likeness_of(entries: Sequence[Entry]) -> dict[str, list[list[float]]]:
    """Return, by name, rows that describe training windows of each model: 24 at most, spread over all it has."""
    found = {}
    for entry in entries:
        rows = entry.facts.likeness
        step = max(1, -(-len(rows) // _MOST_ROWS))
        found[entry.facts.name] = [[round(value, 3) for value in row] for row in rows[::step]]
    return found


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON."""
    return json.dumps(
        value, indent=indent, ensure_ascii=False, allow_nan=False, separators=(",", ":" if indent is None else ": ")
    )
