"""Questions to the store: SQL in, Polars frames out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from segbench.errors import unknown_name

if TYPE_CHECKING:
    from segbench.analysis.result import Result
    from segbench.analysis.source import Source

ANALYSES = {
    "ranking": "ranking:rank_methods",
    "runtime": "runtime:measure_runtime",
    "usability": "usability:score_usability",
    "channels": "channels:compare_channels",
    "morphology": "morphology:describe_tissues",
    "regression": "regression:fit_regressions",
    "transfer": "transfer:measure_transfer",
    "modality": "modality:compare_modalities",
    "dilation": "dilation:measure_dilation",
    "recommend": "recommend:recommend_methods",
}
"""Every analysis that needs nothing but a source, by its name on the command line: ``module:function``."""


def analyse(name: str, source: Source) -> Result:
    """Return the result of an analysis with its default options; raises SegbenchError for an unknown name."""
    if name not in ANALYSES:
        raise unknown_name("analysis", name, ANALYSES)
    module, function = ANALYSES[name].split(":")
    # Imported when asked for: SciPy and statsmodels take a second
    result: Result = getattr(importlib.import_module(f"segbench.analysis.{module}"), function)(source)
    return result
