"""The results folder that the tests of the report share."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_samples import make_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods on two tasks, one of them also trained on a single tissue, one run failed."""
    return make_results(tmp_path_factory.mktemp("report") / "results")
