"""A model is applied on Ray's nodes: the same label maps, and a worker that dies costs nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import pytest
import tifffile
from model_folders import threshold
from unannotated import write_unannotated

from segbench.engine.models.applying import ApplyOptions, Progress, apply
from segbench.engine.models.images import image_files
from segbench.engine.models.on_ray import Share, room_for

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray", "plugin")]
RAY = {"num_cpus": 2}
TIFF = ApplyOptions(write=("tiff",))


def workers() -> list[psutil.Process]:
    """Return the living processes of Ray that hold a model."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("ray::Worker") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_label_maps_are_the_same_with_and_without_ray(tmp_path: Path) -> None:
    scans, model = write_unannotated(tmp_path / "scans", 3), threshold(tmp_path / "m")
    (scans / "broken.tif").write_bytes(b"no picture")
    files = image_files([str(scans)])
    list(apply(model, files, tmp_path / "plain", TIFF))
    told: list[Progress] = []
    found = {one.name: one for one in apply(model, files, tmp_path / "ray", TIFF, told.append, address="local")}
    # one image alone is cut into rows of windows, which all workers predict
    (one,) = (file for file in files if file.name == "unseen0")
    (alone,) = apply(model, [one], tmp_path / "rows", TIFF, told.append, address="local")
    assert "broken.tif" in str(found.pop("broken").error)
    assert all(one.error is None for one in (*found.values(), alone))
    for name in found:
        first, second = ((tmp_path / to / f"{name}.labels.tif").read_bytes() for to in ("plain", "ray"))
        assert first == second
    assert (tmp_path / "rows/unseen0.labels.tif").read_bytes() == (tmp_path / "plain/unseen0.labels.tif").read_bytes()
    assert tifffile.imread(tmp_path / "rows/unseen0.labels.tif").max() > 0
    assert any(how.left_s is not None and 0 < how.share <= 1 for how in told)
    (again,) = apply(model, [one], tmp_path / "rows", TIFF, address="local")
    assert again.earlier
    assert not psutil.wait_procs(workers(), timeout=30)[1]


def test_a_worker_that_dies_costs_nothing(tmp_path: Path) -> None:
    files = image_files([str(write_unannotated(tmp_path / "scans", 5))])
    doing = apply(threshold(tmp_path / "m"), files, tmp_path / "out", TIFF, address="local")
    done = [next(doing)]
    workers()[0].kill()
    done += doing
    assert sorted(one.name for one in done) == [f"unseen{n}" for n in range(5)]
    assert [one.error for one in done] == [None] * 5


def test_as_many_workers_as_living_nodes_hold_each_whole() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    assert (room_for(nodes, Share(2, 0.25)), room_for(nodes, Share(1, 0.3))) == (4, 3)
    assert (room_for(nodes, Share(3, 0.0)), room_for(nodes, Share(64, 0.0))) == (2, 0)
