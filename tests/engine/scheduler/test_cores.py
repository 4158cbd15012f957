"""How many cores a run gets: four for each GPU, as far as the nodes have them; without a GPU what its card says."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from segbench.engine.grid import Run
from segbench.engine.grid.cards import all_cards
from segbench.engine.grid.changes import ResourceChange
from segbench.engine.order import Node
from segbench.engine.scheduler.placement import Fitter, Host
from segbench.methods.card import Budget, Resources
from segbench.methods.job import Devices, Job, Task
from segbench.methods.torch_devices import data_workers

TASK = Task("t", "d", ("nuclear",), "nuclear")


def cores(asked: Resources, *nodes: tuple[int, float], method: str = "resnest", use_gpu: bool = True) -> float:
    """Return the cores of a run on nodes of so many GPUs and cores."""
    run = Run("r", method, TASK, "all", 0, Budget(batch_size=8, epochs=1), {}, None, asked, False)
    hosts = [Host(Node(f"n{n}", gpus, cpus, 500.0)) for n, (gpus, cpus) in enumerate(nodes)]
    fitted = Fitter(hosts, use_gpu).fit(run)
    assert fitted.resources.num_cpus == fitted.shape.cpus
    return fitted.shape.cpus


def test_a_run_gets_four_cores_a_gpu_on_every_card() -> None:
    for name, card in all_cards().items():
        gpus = min(1.0, card.resources.num_gpus)
        asked = dataclasses.replace(card.resources, num_gpus=gpus)
        assert cores(asked, (8, 64.0), method=name) == max(card.resources.num_cpus, 4 * gpus)
    assert cores(Resources(num_gpus=4), (8, 64.0)) == 16


@pytest.mark.parametrize(
    ("asked", "nodes", "expected"),
    [
        (Resources(num_gpus=0.25), [(4, 32.0)], 1),
        (Resources(num_gpus=0.5, num_cpus=3), [(4, 32.0)], 3),
        (Resources(num_gpus=4), [(8, 16.0)], 8),  # else half of the GPUs would have no core
        (Resources(num_gpus=1), [(8, 16.0), (1, 16.0)], 4),
        (Resources(num_gpus=1), [(8, 1.0)], 1),
        (ResourceChange(num_cpus=2).apply(Resources(num_gpus=4)), [(8, 64.0)], 2),  # as asked
    ],
)
def test_cores_follow_the_share_and_never_leave_gpus_without(
    asked: Resources, nodes: list[tuple[int, float]], expected: float
) -> None:
    assert cores(asked, *nodes) == expected


def test_without_gpus_a_run_gets_what_its_card_says() -> None:
    assert cores(Resources(num_gpus=4, num_cpus=1), (0, 64.0), use_gpu=False) == 1


@pytest.mark.parametrize(
    ("wanted", "kind", "cpus", "processes", "expected"),
    [
        ("auto", "cpu", 8, 1, 0),
        ("auto", "cuda", 16, 4, 4),
        ("auto", "cuda", 32, 1, 4),
        ("auto", "cuda", 1, 1, 1),
        ("auto", "cuda", 1, 4, 1),
        (2, "cpu", 1, 1, 2),
        (0, "cuda", 16, 4, 0),
    ],
)
def test_windows_are_read_by_a_process_a_core_on_a_gpu_and_by_none_else(
    wanted: object, kind: str, cpus: int, processes: int, expected: int
) -> None:
    devices = Devices(num_gpus=1, num_cpus=cpus, processes=processes)
    job = Job("r", "m:C", TASK, Budget(batch_size=8), 0, "out", settings={"workers": wanted}, devices=devices)
    assert data_workers(job, SimpleNamespace(type=kind)) == expected
