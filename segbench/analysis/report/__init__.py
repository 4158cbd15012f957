"""Turns a store into the dashboard: one self-contained HTML file."""

from segbench.analysis.report.page import Report, build_report, write_report, write_site

__all__ = ["Report", "build_report", "write_report", "write_site"]
