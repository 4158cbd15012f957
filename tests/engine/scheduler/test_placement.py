"""Where runs are put: on a Ray cluster of several nodes with logical GPUs, by what their subprocesses saw."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from segbench.engine.data import DatasetSpec, dataset_tasks, dataset_tissues, ensure_prepared
from segbench.engine.grid import Block, BudgetChange, Catalogue, DatasetFacts, GridSpec, Run, expand
from segbench.engine.order import Node
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.run import environments
from segbench.engine.scheduler import Event, Finished, LaunchOptions, Retries, Started, Summary
from segbench.engine.scheduler.driver import execute
from segbench.engine.scheduler.placement import Fitter, Host, planned_hosts
from segbench.engine.scheduler.ray_executor import _ray_end
from segbench.errors import SegbenchError

TINY = DatasetSpec("tiny", "synthetic", None, {"layout": "livecell", "seed": 3, "scale": 0.01})
OBJECTS = 78 * 2**20


@pytest.fixture(scope="module")
def cluster(ray_variables: None) -> Iterator[Cluster]:  # noqa: ARG001 - must come first
    """Start a head that runs nothing, a node with four A100 and one with four T4; their GPUs are logical."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECTS}
    )
    for kind, memory in (("A100", "40"), ("T4", "15")):
        cluster.add_node(
            num_cpus=8,
            num_gpus=4,
            memory=8 * 10**9,
            object_store_memory=OBJECTS,
            resources={f"accelerator_type:{kind}": 1},
            labels={"segbench.io/gpu-memory-gb": memory, "zone": f"zone-{kind}"},
        )
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.heavy
@pytest.mark.usefixtures("cluster")
def test_an_attempt_whose_worker_cannot_import_it_is_lost_and_no_failure_of_the_method(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = ModuleType("only_in_this_process")
    exec("def attempt():\n    return 1\n", here.__dict__)
    monkeypatch.setitem(sys.modules, here.__name__, here)
    status, detail = _ray_end(ray.remote(max_retries=0)(here.attempt).options(num_cpus=1).remote())
    assert status is Status.LOST
    assert detail == (
        "its worker could not import segbench: ModuleNotFoundError: No module named 'only_in_this_process'"
    )


def runs_of(method: str, gpus: Sequence[float], budget: BudgetChange | None = None, **settings: Any) -> list[Run]:
    """Return a run a number of GPUs; they differ in their seed."""
    task = dataset_tasks(TINY)[0]
    facts = DatasetFacts((task,), dataset_tissues(TINY), ensure_prepared(TINY).fingerprint)
    block = Block(methods=(method,), tasks=(task.name,), tissues=("BV2",), seeds=tuple(range(len(gpus))))
    spec = GridSpec(blocks=(block,), settings={method: settings}, budget=budget or BudgetChange())
    runs = expand(spec, Catalogue({TINY.name: facts}))
    return [
        dataclasses.replace(run, resources=dataclasses.replace(run.resources, num_gpus=n, num_cpus=0.5))
        for run, n in zip(runs, gpus, strict=True)
    ]


def run_all(runs: Sequence[Run], out: Path, observed: list[Event] | None = None, **options: Any) -> Summary:
    """Run them on the cluster."""
    events = observed if observed is not None else []
    given = LaunchOptions(address="the one that is connected", **options)
    return execute(runs, {TINY.name: TINY}, given, StoreWriter(ResultsFolder(out)), events.append)


def seen(out: Path) -> list[dict[str, Any]]:
    """Return what every finished subprocess saw."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("runs/*/attempt-*/seen.json"))]


@pytest.mark.usefixtures("plugin", "cluster")
def test_shares_whole_gpus_and_four_gpus_are_placed_as_asked_and_never_over_subscribed(tmp_path: Path) -> None:
    asked = [4, 4, 1, 1, 0.5, 0.5, 0.5, 0.25, 2]
    summary = run_all(runs_of("threshold", asked, seconds=1.0), tmp_path)
    assert summary.count(Status.DONE) == len(asked)
    rows = query(ResultsFolder(tmp_path), "select run_id, seed, num_gpus from attempts").rows(named=True)
    assert sorted(row["num_gpus"] for row in rows) == sorted(asked)
    share: dict[str, float] = {row["run_id"]: row["num_gpus"] for row in rows}
    held: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for path in tmp_path.glob("runs/*/attempt-*/seen.json"):
        one, gpus = json.loads(path.read_text()), share[path.parts[-3]]
        devices = one["cuda"].split(",")
        assert len(devices) == len(set(devices)) == max(1, math.ceil(gpus))
        assert set(devices) <= {"0", "1", "2", "3"}
        for device in devices:
            held[one["raylet"], device].append((one["from"], one["to"], min(gpus, 1.0)))
    assert len({raylet for raylet, _ in held}) == 2
    for intervals in held.values():
        for moment, _, _ in intervals:
            assert sum(gpus for start, end, gpus in intervals if start <= moment < end) <= 1 + 1e-9


@pytest.mark.usefixtures("plugin", "cluster")
def test_the_kind_of_gpu_its_memory_and_labels_decide_the_node(tmp_path: Path) -> None:
    nodes = {node["Labels"].get("zone"): node["NodeID"] for node in ray.nodes() if node["Alive"]}
    assert set(nodes) == {None, "zone-A100", "zone-T4"}
    runs = runs_of("threshold", [1, 1])
    run_all(runs, tmp_path / "kind", accelerator="t4")
    run_all(runs, tmp_path / "label", labels={"zone": "zone-A100"})
    needs = [dataclasses.replace(run, resources=dataclasses.replace(run.resources, gpu_memory_gb=24.0)) for run in runs]
    run_all(needs, tmp_path / "memory")
    raylets = {name: {one["raylet"] for one in seen(tmp_path / name)} for name in ("kind", "label", "memory")}
    assert all(len(found) == 1 for found in raylets.values())
    assert raylets["label"] == raylets["memory"] != raylets["kind"]


@pytest.mark.usefixtures("plugin")
def test_the_runs_of_a_killed_node_go_on_elsewhere_from_their_checkpoints(tmp_path: Path, cluster: Cluster) -> None:
    node = cluster.add_node(
        num_cpus=8, num_gpus=4, memory=8 * 10**9, object_store_memory=OBJECTS, labels={"zone": "spot"}
    )
    events: list[Event] = []
    # three nodes with four GPUs each: every one gets a run
    # long enough that on a busy machine the last begins before the first has ended
    seconds = 15.0
    runs = runs_of("threshold", [4, 4, 4], seconds=seconds)

    def kill() -> None:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("runs/*/checkpoint-*/state.json"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = run_all(runs, tmp_path, events, checkpoint_every_s=1.0)
    killer.join()
    assert summary.count(Status.DONE) == 3
    lost = query(ResultsFolder(tmp_path), "select run_id, attempt, error from attempts where status = 'lost'").rows(
        named=True
    )
    assert [row["attempt"] for row in lost] == [1]
    retried = [event for event in events if isinstance(event, Finished) and event.retried]
    assert [event.outcome.run_id for event in retried] == [lost[0]["run_id"]]
    sql = (
        "select attempt, seconds from phases join attempts using (run_id, attempt) "
        "where phase = 'train' and status = 'done' and run_id ="
    )
    ((attempt, train_s),) = query(ResultsFolder(tmp_path), f"{sql} '{lost[0]['run_id']}'").rows()
    assert attempt == 2
    result = json.loads((tmp_path / "runs" / lost[0]["run_id"] / "attempt-002" / "result.json").read_text())
    # T counts the part of the attempt that was lost, up to its last checkpoint
    assert 0.9 < result["resumed_after_s"] < seconds + 0.5
    assert train_s > seconds - 0.1
    assert not list(tmp_path.glob("runs/*/checkpoint-*"))


@pytest.mark.usefixtures("plugin", "cluster")
def test_a_run_without_room_in_memory_is_tried_once_more_with_half_the_batch(tmp_path: Path) -> None:
    runs = runs_of("threshold", [1], BudgetChange(batch_size=4), fail="memory above 2")
    events: list[Event] = []
    summary = run_all(runs, tmp_path, events, retries=Retries(first_wait_s=0.1))
    assert summary.count(Status.DONE) == 1
    rows = query(ResultsFolder(tmp_path), "select attempt, status, batch_size from attempts order by attempt").rows()
    assert rows == [(1, "out-of-memory", 4), (2, "done", 2)]
    assert [one["batch_size"] for one in seen(tmp_path)] == [2]
    assert "half the batch (2)" in next(event.note for event in events if isinstance(event, Finished) and event.retried)
    # and no more than once
    again = run_all(runs_of("threshold", [1], BudgetChange(batch_size=8), fail="memory above 2"), tmp_path / "again")
    assert again.count(Status.OUT_OF_MEMORY) == 1
    rows = query(ResultsFolder(tmp_path / "again"), "select attempt, batch_size from attempts order by attempt").rows()
    assert rows == [(1, 8), (2, 4)]


@pytest.mark.usefixtures("plugin", "cluster")
def test_a_failed_run_is_tried_again_as_often_as_asked(tmp_path: Path) -> None:
    runs = runs_of("threshold", [0.5], fail="raise")
    began = time.monotonic()
    summary = run_all(runs, tmp_path, retries=Retries(failed=2, first_wait_s=1.0))
    assert summary.count(Status.FAILED) == 1
    assert query(ResultsFolder(tmp_path), "select count(*) from attempts").item() == 3
    assert time.monotonic() - began > 3.0  # 1 s, then 2 s


@pytest.mark.usefixtures("plugin", "cluster")
def test_two_processes_train_together_by_the_path_that_gpus_take(tmp_path: Path) -> None:
    try:
        environments.find("torch", gpu=False)
    except SegbenchError as error:
        pytest.skip(f"the torch environment is not built: {error}")
    events: list[Event] = []
    summary = run_all(runs_of("pair", [2]), tmp_path, events)
    assert summary.count(Status.DONE) == 1, summary.outcomes
    assert any(isinstance(event, Started) for event in events)
    (folder,) = tmp_path.glob("runs/*/attempt-001")
    first, second = (json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first["processes"] == second["processes"] == 2
    assert first["backend"] == "gloo"
    assert first["pid"] != second["pid"]
    # each saw its own half of the windows, and both ended with the one model
    assert first["value"] == second["value"]
    assert first["mine"] != second["mine"]
    mean = (first["mine"] + second["mine"]) / 2
    assert first["value"] == pytest.approx(mean, rel=0.01)
    result = json.loads((folder / "result.json").read_text())
    assert result["processes"] == 2
    assert query(ResultsFolder(tmp_path), "select num_gpus, batch_size from attempts").row(0) == (2.0, 4)


def host(name: str, gpus: int = 4, memory_gb: float = 64.0, cpus: float = 8, **about: Any) -> Host:
    return Host(Node(name, gpus, cpus, memory_gb), **about)


def asking(method: str = "stardist", **resources: Any) -> Run:
    run = expand(
        GridSpec(blocks=(Block(methods=(method,), tasks=("tissuenet-nuclear-1ch",)),)), Catalogue().with_study()
    )[0]
    return dataclasses.replace(
        run, resources=dataclasses.replace(run.resources, **{"num_gpus": 1.0, "memory_gb": 4.0, **resources})
    )


@pytest.mark.parametrize(
    ("resources", "options", "words"),
    [
        ({"memory_gb": 100.0}, {}, r"asks for 1 GPUs and 100 GB .* the nearest that fits: --memory-gb 64$"),
        ({"num_gpus": 1.0}, {"accelerator": "A1000"}, "did you mean A100"),
        ({"num_gpus": 1.0}, {"labels": {"zone": "c"}}, "no node has --label zone=c; the nodes have: zone=a"),
        ({"gpu_memory_gb": 48.0}, {}, "needs GPUs with 48 GB of memory, the largest here have 40 GB"),
    ],
)  # fmt: skip
def test_what_no_node_can_ever_hold_is_refused_with_the_nearest_that_fits(
    resources: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    hosts = [host("a", accelerator="A100", gpu_memory_gb=40.0, labels={"zone": "a"}), host("head", gpus=0, cpus=0)]
    with pytest.raises(SegbenchError, match=words):
        Fitter(hosts, use_gpu=True, **options).fit(asking(**resources))


@pytest.mark.usefixtures("plugin")
def test_more_gpus_than_a_node_has_are_refused_and_a_method_of_one_gpu_gets_one() -> None:
    fitter = Fitter([host("a"), host("b", gpus=2, memory_gb=512.0)], use_gpu=True)
    with pytest.raises(SegbenchError, match=r"asks for 8 GPUs .* the nearest that fits: --num-gpus 4"):
        fitter.fit(asking("threshold", num_gpus=8.0))
    one = fitter.fit(asking("watershed", num_gpus=8.0))
    assert (one.shape.gpus, one.resources.num_gpus) == (1.0, 1.0)
    assert one.notes == ("watershed is not trained: it gets 1 GPU, not 8",)
    assert Fitter([host("a", gpus=0)], use_gpu=False).fit(asking(num_gpus=8.0)).shape.gpus == 0
    with pytest.raises(SegbenchError, match="--cpu"):
        Fitter([host("head", gpus=0, cpus=0)], use_gpu=True).fit(asking())


def test_a_kind_of_node_that_an_autoscaler_can_start_counts_as_one_that_can_hold_a_run() -> None:
    page = Path(__file__).parents[3]
    kinds = planned_hosts(yaml.safe_load((page / "ray_cluster.yaml").read_text()))
    assert {host.node.gpus for host in kinds} == {4, 8}
    fitter = Fitter([host("head", gpus=0, cpus=0), *kinds], use_gpu=True)
    assert fitter.fit(asking(num_gpus=1.0)).shape.gpus == 1
    with pytest.raises(SegbenchError, match="--memory-gb 1000"):
        fitter.fit(asking(num_gpus=1.0, memory_gb=2000.0))
    with pytest.raises(SegbenchError, match=r"no node has --label segbench\.io/market=cheap"):
        Fitter(kinds, use_gpu=True, labels={"segbench.io/market": "cheap"}).fit(asking())
    (manifest,) = re.findall(r"```yaml\n(apiVersion.*?)```", (page / "docs" / "cluster.md").read_text(), re.DOTALL)
    pods = planned_hosts(yaml.safe_load(manifest))
    assert [(pod.node.gpus, pod.node.cpus) for pod in pods] == [(4, 44.0), (8, 90.0)]
    assert pods[0].node.memory_gb == pytest.approx(170 * 2**30 / 1e9)
    with pytest.raises(SegbenchError, match="neither a file of 'ray up'"):
        planned_hosts({"kind": "Pod"})


@pytest.mark.heavy
@pytest.mark.usefixtures("cluster")
def test_mask_rcnn_trains_in_two_processes_as_it_would_on_two_gpus(tmp_path: Path) -> None:
    try:
        environments.find("torch", gpu=False)
    except SegbenchError as error:
        pytest.skip(f"the torch environment is not built: {error}")
    small = {"model.backbone.depth": 18, "model.neck.in_channels": [64, 128, 256, 512], "model.backbone.init_cfg": None}
    runs = runs_of(
        "mask-rcnn", [2], BudgetChange(epochs=2, batch_size=2), options=small, proposals=50, rois=32, crop=128
    )
    runs = [
        dataclasses.replace(run, resources=dataclasses.replace(run.resources, num_cpus=2, memory_gb=4.0))
        for run in runs
    ]
    summary = run_all(runs, tmp_path)
    assert summary.count(Status.DONE) == 1, summary.outcomes
    (folder,) = tmp_path.glob("runs/*/attempt-001")
    result = json.loads((folder / "result.json").read_text())
    assert result["processes"] == 2
    assert result["iterations"] == 4  # two epochs over four windows, a window a process and step
    assert (result["n_train_images"], result["batch_size"]) == (4, 2)
    assert all(math.isfinite(point["loss"]) for point in result["history"])
