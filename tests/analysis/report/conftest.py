"""The results folder that the tests of the report share."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_samples import make_results

from segbench.analysis.report import Report, build_report
from segbench.engine.results.folder import ResultsFolder


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods on four tasks, one of them also trained on single tissues, one run failed."""
    return make_results(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="session")
def built(results: Path) -> Report:
    """The report of that folder."""
    return build_report(ResultsFolder(results))
