"""Questions to the store: SQL in, Polars frames out."""

from segbench.analysis.registry import ANALYSES, Analysis, Option, analyse

__all__ = ["ANALYSES", "Analysis", "Option", "analyse"]
