"""Opens a dataset's originals by its kind."""

from __future__ import annotations

from pathlib import Path

from segbench.engine.data.source import Source
from segbench.engine.data.spec import DatasetSpec
from segbench.errors import SegbenchError


def open_source(spec: DatasetSpec) -> Source:
    """Open a dataset's original data; raises SegbenchError where it is missing or laid out wrongly."""
    if spec.source is not None and not Path(spec.source).exists():
        raise SegbenchError(f"dataset {spec.name!r}: there is nothing at {spec.source}")
    if spec.kind == "synthetic":
        from segbench.engine.data.synthetic import SyntheticSource

        return SyntheticSource(spec.options)
    path = Path(str(spec.source))
    if spec.kind == "folder":
        from segbench.engine.data.folder import FolderSource

        return FolderSource(path, spec.options)
    if spec.kind == "livecell":
        from segbench.engine.data.livecell import LivecellSource

        return LivecellSource(path, spec.options)
    from segbench.engine.data.tissuenet import TissuenetSource

    return TissuenetSource(path, spec.options)
