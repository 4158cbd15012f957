"""Skips this folder's tests where there is no GPU, and tells how each went where a report is asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gpu_jobs import HERE, ON_CPU, why_not
from xdist.scheduler import LoadScopeScheduling

from segbench.paths import cache_folder

took: dict[str, float] = {}
"""Seconds of each test so far."""


class MethodsTogether(LoadScopeScheduling):
    """Gives the tests of one method's story to one worker, and every other test to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("[")[2] if "test_gpu_training" in nodeid else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> MethodsTogether | None:
    """Choose the order above for ``--dist loadscope``; the groups of xdist 3.8 are lost on pytest 9.2."""
    return MethodsTogether(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip them, with the reason; those that a processor cannot show also where they are run on one."""
    mine = [item for item in items if item.path.parent == HERE]
    if len(mine) == len(items):  # the longest first
        items.sort(key=lambda item: item.path.name != "test_gpu_training.py")
    reason = why_not() if mine else None
    for item in mine:
        item.add_marker(pytest.mark.gpu)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif ON_CPU and item.get_closest_marker("only_gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="only a GPU can show it"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Append a line for each finished test to the file that ``SEGBENCH_GPU_REPORT`` names.

    It is there also where the tests are ended before the last.
    """
    path = os.environ.get("SEGBENCH_GPU_REPORT")
    took[report.nodeid] = took.get(report.nodeid, 0.0) + report.duration  # setting up is where jobs are run
    ended = report.when == "call" or (report.when == "setup" and report.outcome != "passed")
    if path is None or not ended or "PYTEST_XDIST_WORKER" in os.environ:
        return
    reason = ""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = str(crash.message if crash is not None else report.longrepr)
    line = {
        "test": report.nodeid.rpartition("/")[2].replace(".py::test_", ": ").replace("_", " "),
        "outcome": report.outcome, "seconds": round(took[report.nodeid], 1), "reason": reason,
        "measured": dict(report.user_properties),
    }  # fmt: skip
    with Path(path).open("a") as file:
        file.write(json.dumps(line) + "\n")


@pytest.fixture
def own_environments(tmp_path: Path) -> Path:
    """Return a new cache folder in which only the built environments of the user's are."""
    real = cache_folder() / "environments"
    real.mkdir(parents=True, exist_ok=True)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "environments").symlink_to(real.resolve())
    return cache
