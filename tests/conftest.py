"""What every test shares: an own cache, the real data's folder, a third party's method, records made by hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from segbench.engine.results.record import (
    METRICS,
    AttemptRow,
    EvaluationRow,
    HistoryRow,
    ImageTable,
    Record,
    ResampleTable,
    TissueRow,
)
from segbench.engine.results.statuses import Status
from segbench.paths import cache_folder

PLUGIN = Path(__file__).parent / "plugin"
SLOW_EXAMPLES = ("segbench.engine.scheduler.grids.launch",)
"""Examples in docstrings, which no mark can stand on."""


SLOW_FILES = frozenset(
    (
        "test_last_release.py",
        "test_postoperations.py",
        "test_report_file.py",
        "test_store_check.py",
        "test_store_cli.py",
        "test_runs.py",
        "test_imports.py",
        "test_exactness.py",
    )
)
"""Whole files of tests that take a second each: commands from end to end, pages, comparisons with other evaluators."""


LONGEST_FIRST = (
    "test_mmdet.py",
    "test_deepcell.py",
    "test_learning.py",
    "test_detectron2.py",
    "test_precision.py",
    "test_demo.py",
    "test_new_method.py",
    "test_segment_anything.py",
    "test_plugins.py",
    "test_snippets.py",
    "test_packaging.py",
    "test_faults.py",
)
"""Files of minutes, which two workers start with so that neither is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a Ray of its own or reads the real data, and what takes a second and more, as slow."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if {"ray_variables", "testdata"} & set(fixtures) or item.name in SLOW_EXAMPLES or item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


class FilesTogether(LoadFileScheduling):
    """Gives a file to one worker, because its fixtures are, and all files in which a Ray is started to the same one.

    Two that start at once can choose the same port. The groups of xdist 3.8 are lost on pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if starts_ray(self.config.rootpath / file) else file


@cache
def starts_ray(file: Path) -> bool:
    """Return whether a file's tests ask for a Ray."""
    return file.is_file() and any(name in file.read_text() for name in ("local_ray", "ray_variables"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesTogether | None:
    """Choose the order above for ``--dist loadfile``."""
    return FilesTogether(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the tests a cache folder of their own, with only the built environments of the user's cache in it."""
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


@pytest.fixture(scope="module")
def ray_variables() -> Iterator[None]:
    """Let the workers of a Ray that is started now know the third party's methods."""
    before = dict(os.environ)
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), before.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def local_ray(ray_variables: None, request: pytest.FixtureRequest) -> Iterator[None]:  # noqa: ARG001 - must come first
    """Keep one local Ray for a module; its ``RAY`` says what it has, else a core."""
    import ray

    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, configure_logging=False,
        object_store_memory=128 * 2**20, **getattr(request.module, "RAY", {"num_cpus": 1}),
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the third party's method ``threshold`` for this process and those it starts."""
    from segbench.engine.grid import cards

    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    cards.forget()
    yield
    cards.forget()
    sys.modules.pop("segbench_plugin", None)


AddDistribution = Callable[..., Path]


@pytest.fixture
def add_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AddDistribution]:
    """Return a function that installs a distribution of entry points and modules, for this process and its children."""
    from segbench.engine.grid import cards

    added: set[str] = set()

    def add(name: str, files: dict[str, str], methods: str = "", environments: str = "") -> Path:
        folder = tmp_path / f"distribution-{name}"
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        groups = {"segbench.methods": methods, "segbench.environments": environments}
        (info / "entry_points.txt").write_text("".join(f"[{group}]\n{text}\n" for group, text in groups.items()))
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
            added.add(path.split("/")[0].removesuffix(".py"))
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        cards.forget()
        return folder

    yield add
    cards.forget()
    for name in [n for n in sys.modules if n.split(".")[0] in added]:
        del sys.modules[name]


# two windows: 10 true cells with 9 found, 8 of them well, one split; 20 true cells of which none is found
IMAGE_COLUMNS: dict[str, Any] = {
    "image": [0, 1],
    "name": ["a", "b"],
    "tissue": ["lung", "skin"],
    "n_truth": [10, 20],
    "n_predictions": [11, 0],
    **{f"tp_{t}": [9 if t < 70 else 8, 0] for t in range(50, 100, 5)},
    **{f"iou_{t}": [7.5, 0.0] for t in range(50, 100, 5)},
    "pq_matches": [9, 0],
    "pq_iou": [7.5, 0.0],
    "aji_intersection": [90, 0],
    "aji_union": [120, 60],
    "seg": [7.5, 0.0],
    "splits": [1, 0],
    "merges": [0, 0],
}

MakeRecord = Callable[..., Record]


@pytest.fixture
def make_record() -> MakeRecord:
    """Return a function that makes a record; its arguments change the attempt's row."""

    def make(
        run_id: str = "aaaaaaaaaaaa", attempt: int = 1, status: Status = Status.DONE, ap50: float | None = 0.8,
        phases: dict[str, float] | None = None, **row: Any,
    ) -> Record:  # fmt: skip
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=attempt)
        fields: dict[str, Any] = {
            "method": "stardist", "method_title": "StarDist", "method_revision": 1, "family": "stardist",
            "environment": "tensorflow", "category": "cell-specific", "trained": True, "attention": False,
            "task": "synthetic-nuclear-1ch", "dataset": "synthetic", "dataset_kind": "synthetic",
            "dataset_fingerprint": "f" * 16, "channels": ["nuclear"], "n_channels": 1, "target": "nuclear",
            "train_tissue": "all", "seed": 0, "settings": {"n_rays": 32}, "batch_size": 4, "epochs": 10,
            "segbench_version": "0", "host": "h", "num_cpus": 1, "num_gpus": 0, "started_at": start,
            "ended_at": start + timedelta(seconds=30), "folder": f"runs/{run_id}/attempt-{attempt:03d}",
        }  # fmt: skip
        done = status is Status.DONE
        evaluation = EvaluationRow(
            test_task="synthetic-nuclear-1ch", test_tissue="all", map=0.5, ap50=ap50, ap75=0.6, ar=0.55, ar50=0.9,
            ar75=0.7, n_images=3, n_truth=40, n_predictions=44,
        )  # fmt: skip
        resamples = ResampleTable(test_task="synthetic-nuclear-1ch", columns={key: [0.5, 0.6] for key in METRICS})
        return Record(
            attempt=AttemptRow(run_id=run_id, attempt=attempt, status=status, **{**fields, **row}),
            phases={"train": 20.0, "wait": 1.0} if phases is None else phases,
            evaluations=[evaluation] if done else [],
            images=[ImageTable(test_task="synthetic-nuclear-1ch", columns=IMAGE_COLUMNS)] if done else [],
            resamples=[resamples] if done else [],
            history=[HistoryRow(epoch=1, loss=0.5), HistoryRow(epoch=2, loss=0.25, val_loss=0.3)] if done else [],
            tissues=[
                TissueRow(
                    dataset_fingerprint="f" * 16, dataset="synthetic", split="train", target="nuclear", tissue="all",
                    n_images=10, n_cells=100, area=90.0, elongation=0.7, convexity=0.95, pixel_size_um=None,
                )
            ],
        )  # fmt: skip

    return make
