"""Annotations of other tools become a folder dataset: pictures, label maps, and an index with a split."""

from __future__ import annotations

from segbench.engine.data.importing.importing import Imported, import_annotations
from segbench.engine.data.importing.options import KINDS, ImportOptions

__all__ = ["KINDS", "ImportOptions", "Imported", "import_annotations"]
