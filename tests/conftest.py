"""What every test shares: a cache of its own, the real data's folder, and a third party's method."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segbench.paths import cache_folder

PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the tests a cache folder of their own, in which only the built environments are those of the user's cache."""
    real = cache_folder()
    (real / "environments").mkdir(parents=True, exist_ok=True)
    own = tmp_path_factory.mktemp("cache")
    (own / "environments").symlink_to(real / "environments")
    before = os.environ.get("SEGBENCH_CACHE")
    os.environ["SEGBENCH_CACHE"] = str(own)
    yield own
    if before is None:
        del os.environ["SEGBENCH_CACHE"]
    else:
        os.environ["SEGBENCH_CACHE"] = before


@pytest.fixture(scope="session")
def testdata() -> Path:
    """Return the folder of real data that ``SEGBENCH_TESTDATA`` names; skips where it is unset."""
    folder = os.environ.get("SEGBENCH_TESTDATA")
    if not folder:
        pytest.skip("SEGBENCH_TESTDATA is not set: the real data are not here")
    return Path(folder)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the third party's method ``threshold`` for this process and those it starts."""
    from segbench.engine import cards

    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    cards.forget()
    yield
    cards.forget()
    sys.modules.pop("segbench_plugin", None)
