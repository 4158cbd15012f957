"""A results folder with small finished runs, for what is done with their models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.grid import cards
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.scheduler import GridRequest, LaunchOptions, launch

PLUGIN = Path(__file__).parents[2] / "plugin"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResultsFolder]:
    """Return a results folder with a finished run of ``threshold``, which is trained, and one of the watershed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN))
        patch.setenv("PYTHONPATH", str(PLUGIN))
        cards.forget()
        register(DatasetSpec("models", "synthetic", None, {"layout": "livecell", "seed": 9, "scale": 0.01}))
        out = ResultsFolder(tmp_path_factory.mktemp("results"))
        grid = {"methods": ["threshold", "watershed"], "tasks": ["models-wholecell"], "tissues": ["BV2"]}
        launch(GridRequest.of(grid=grid), out, LaunchOptions(executor="inline", cpu=True))
        yield out
    cards.forget()
    sys.modules.pop("segbench_plugin", None)
