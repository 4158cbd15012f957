"""The order of runs: what is expected of each, which is next, and how near to the bound a whole grid comes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import ray
from typer.testing import CliRunner

from segbench.cli.app import app
from segbench.engine.grid import Block, BudgetChange, Catalogue, GridSpec, ResourceChange, Run, expand, preset
from segbench.engine.order import (
    Ask,
    History,
    Measured,
    Node,
    Placer,
    Shape,
    device_of,
    expected_seconds,
    lower_bound,
    nodes_of,
    simulate,
    uniform_nodes,
)
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.store import StoreWriter
from segbench.engine.scheduler.history import read_history
from segbench.engine.scheduler.ray_session import connected_cluster
from segbench.engine.study.scores import PublishedScore
from segbench.errors import SegbenchError
from segbench.methods.card import Budget

MakeRecord = Callable[..., Record]
RAY = {"num_cpus": 1, "num_gpus": 8}
"""GPUs that are not there."""

FOUR, ONE = Shape(4), Shape(1)


def run_of(method: str, task: str = "tissuenet-nuclear-2ch", tissue: str = "all", gpus: float | None = None) -> Run:
    """Return one run at its card's budget."""
    spec = GridSpec(blocks=(Block(methods=(method,), tasks=(task,), tissues=(tissue,)),))
    return expand(spec, Catalogue().with_study(), resources=ResourceChange(num_gpus=gpus))[0]


def with_budget(run: Run, **changes: float) -> Run:
    """Return a run with its budget changed."""
    return dataclasses.replace(run, budget=BudgetChange(**changes).apply(run.budget))


def measured(
    run: Run, train_s: float, device: str = "NVIDIA A100-SXM4-40GB", **changes: object
) -> tuple[str, Measured]:
    """Return what a finished attempt of a run left, of 100 training windows and 7 s beside training."""
    one = Measured(
        task=run.task.name, dataset_fingerprint="f", train_tissue=run.train_tissue, budget=run.budget,
        n_train_images=100, num_gpus=run.resources.num_gpus, device=device, train_s=train_s, other_s=7.0,
    )  # fmt: skip
    return run.method, dataclasses.replace(one, **changes)


class TestExpectation:
    def test_published_hours_are_taken_at_the_cards_budget_and_scaled_by_the_images_seen(self) -> None:
        swin = run_of("swin-s")
        assert expected_seconds(swin, History()) == expected_seconds(swin, History(), None, "A100")
        assert expected_seconds(swin, History()).seconds == 30 * 3600
        assert expected_seconds(swin, History()).source == "published"
        assert expected_seconds(with_budget(swin, scale=0.5), History()).seconds == 15 * 3600
        # an epoch is a pass over the data whatever the batch; an iteration is a batch
        assert expected_seconds(with_budget(swin, batch_size=16), History()).seconds == 30 * 3600
        resnest = run_of("resnest")
        assert expected_seconds(with_budget(resnest, batch_size=8), History()).seconds == 2 * 54 * 3600

    def test_a_tissue_takes_its_share_only_where_an_epoch_is_a_pass_over_the_data(self) -> None:
        assert expected_seconds(run_of("swin-s", tissue="Lung"), History()).seconds == pytest.approx(3 * 3600)
        assert expected_seconds(run_of("resnest", tissue="Lung"), History()).seconds == 54 * 3600
        assert expected_seconds(run_of("stardist", tissue="Lung"), History()).seconds == 50 * 3600
        lung = dataclasses.replace(run_of("swin-s", tissue="Lung"), fingerprint="f")
        sizes = {("f", "all"): 1000, ("f", "Lung"): 250}
        assert expected_seconds(lung, History(sizes=sizes)).seconds == 7.5 * 3600

    def test_other_published_figures_can_be_given(self) -> None:
        score = PublishedScore("swin-s", "tissuenet-nuclear-2ch", "all", 0.5, 0.5, 2.0)
        assert expected_seconds(run_of("swin-s"), History(), [score]).seconds == 7200

    def test_the_nearest_finished_runs_are_scaled_by_images_and_gpus(self) -> None:
        run = dataclasses.replace(run_of("swin-s"), fingerprint="f")
        history = History.of([measured(run, 1000.0)])
        assert expected_seconds(run, history).seconds == 1007
        assert expected_seconds(run, history).source == "history"
        assert expected_seconds(with_budget(run, scale=0.1), history).seconds == pytest.approx(107)
        on_one = dataclasses.replace(run, resources=dataclasses.replace(run.resources, num_gpus=1))
        assert expected_seconds(on_one, history).seconds == 4007
        bigger = History.of([measured(run, 1000.0)], {("f", "all"): 300})
        assert expected_seconds(run, bigger).seconds == 3007

    def test_the_same_task_comes_before_another_and_the_median_of_five_is_taken(self) -> None:
        run, other = run_of("swin-s"), run_of("swin-s", "livecell-wholecell")
        ours = [measured(run, seconds) for seconds in (10.0, 20.0, 30.0, 40.0, 1000.0)]
        history = History.of([*ours, measured(other, 5.0)])
        assert expected_seconds(run, history).seconds == 37
        assert expected_seconds(run, History.of([measured(other, 5.0)])).seconds == 12

    def test_processors_tell_nothing_of_gpus(self) -> None:
        run = run_of("swin-s")
        history = History.of([measured(run, 50_000.0, "cpu"), measured(run, 500.0, "NVIDIA L4")])
        assert expected_seconds(run, history, device="cpu").seconds == 50_007
        assert expected_seconds(run, history, device="A100").seconds == 507
        both = History.of([measured(run, 500.0, "NVIDIA L4"), measured(run, 100.0)])
        assert expected_seconds(run, both, device="L4").seconds == 507
        assert expected_seconds(run, History(), device="cpu").source == "default"

    def test_an_untrained_method_has_its_prediction_time_only(self) -> None:
        expected = expected_seconds(run_of("segment-anything"), History())
        assert expected.source == "default"
        assert 600 < expected.seconds < 3 * 3600
        longer = with_budget(run_of("segment-anything"), scale=10)
        assert expected_seconds(longer, History()).seconds == expected.seconds

    def test_the_history_is_the_stores_finished_attempts(self, tmp_path: Path, make_record: MakeRecord) -> None:
        assert not read_history(ResultsFolder(tmp_path)).by_method
        phases = {"wait": 50.0, "import": 2.0, "train": 60.0, "predict": 3.0}
        names = {"method": "stardist", "task": "tissuenet-nuclear-2ch", "train_tissue": "all"}
        StoreWriter(ResultsFolder(tmp_path)).add([make_record(phases=phases, **names)])
        (found,) = read_history(ResultsFolder(tmp_path)).by_method["stardist"]
        assert (found.train_s, found.other_s) == (60.0, 5.0)
        assert found.budget.batch_size > 0


def keys(placer: Placer, now: float = 0.0) -> dict[str, str]:
    """Return what is to be submitted, as run -> node."""
    return {placement.key: placement.node for placement in placer.next(now)}


def placer_of(nodes: Sequence[Node], **runs: tuple[Shape, float]) -> Placer:
    """Return a placer with these runs waiting."""
    placer = Placer(nodes)
    for key, (shape, seconds) in runs.items():
        placer.add(key, shape, seconds)
    return placer


class TestPlacer:
    def test_the_longest_that_fits_goes_first_and_only_what_fits_is_handed_out(self) -> None:
        placer = placer_of(uniform_nodes(4, 4), short=(FOUR, 5.0), long=(FOUR, 50.0), middle=(FOUR, 20.0))
        assert list(keys(placer)) == ["long"]
        assert not keys(placer, 10.0)
        placer.ended("long")
        assert list(keys(placer, 50.0)) == ["middle"]
        assert (placer.waiting, placer.placed) == (1, 1)

    def test_small_runs_share_a_node_so_that_another_stays_whole(self) -> None:
        placer = placer_of(uniform_nodes(8, 4), **{f"one{n}": (ONE, 9.0) for n in range(4)}, four=(FOUR, 1.0))
        placed = keys(placer)
        assert len({placed[f"one{n}"] for n in range(4)}) == 1
        assert placed["four"] != placed["one0"]

    def test_runs_on_one_gpu_do_not_starve_one_on_four(self) -> None:
        placer = placer_of(uniform_nodes(4, 4), **{f"one{n}": (ONE, 10.0 + n) for n in range(4)})
        assert len(keys(placer)) == 4
        placer.add("four", FOUR, 100.0)
        for n in range(20):
            placer.add(f"late{n}", ONE, 10.0)
        now = 10.0
        for n in range(4):
            assert "four" not in placer._where
            placer.ended(f"one{n}")
            assert list(keys(placer, now)) == (["four"] if n == 3 else [])
            now += 1.0

    def test_a_reserved_node_takes_what_ends_in_time_and_nothing_else(self) -> None:
        placer = placer_of(uniform_nodes(4, 4), **{f"one{n}": (ONE, 100.0) for n in range(3)}, little=(ONE, 10.0))
        assert len(keys(placer)) == 4
        placer.add("four", FOUR, 500.0)
        placer.ended("little")
        placer.add("too-long", ONE, 95.0)
        assert not keys(placer, 10.0)
        placer.add("in-time", ONE, 80.0)
        assert list(keys(placer, 10.0)) == ["in-time"]

    def test_what_the_reserved_node_has_to_spare_is_used(self) -> None:
        placer = placer_of(uniform_nodes(8, 8), **{f"one{n}": (ONE, 100.0) for n in range(5)})
        assert len(keys(placer)) == 5
        placer.add("four", FOUR, 500.0)
        for n in range(3):
            placer.add(f"more{n}", ONE, 200.0)
        # 3 GPUs are free and one of the first five makes room for four: with all eight, four runs may stay
        assert len(keys(placer, 1.0)) == 3

    def test_a_late_node_is_given_up_for_one_that_is_sooner(self) -> None:
        nodes = uniform_nodes(8, 4)
        placer = placer_of(nodes, a=(FOUR, 50.0), b=(Shape(3), 40.0))
        placed = keys(placer)
        placer.add("four", FOUR, 200.0)
        placer.add("one", ONE, 60.0)
        assert not keys(placer, 1.0)
        # b's node was kept; b is long overdue at 100 and a's node has been free for four
        placer.ended("a")
        assert keys(placer, 100.0) == {"four": placed["a"], "one": placed["b"]}

    def test_shares_of_a_gpu_are_packed_and_whole_ones_kept(self) -> None:
        placer = placer_of([Node("n", 2)], **{f"share{n}": (Shape(0.3), 9.0) for n in range(4)}, whole=(ONE, 1.0))
        assert len(keys(placer)) == 4
        placer.ended("share3")
        assert list(keys(placer, 1.0)) == ["whole"]

    def test_cores_memory_and_allowed_nodes_are_respected(self) -> None:
        nodes = [Node("big", 8, 64, 500), Node("small", 8, 2, 16)]
        placer = placer_of(nodes, memory=(Shape(1, 1, 100), 3.0), cores=(Shape(1, 4, 1), 2.0))
        placer.add("there", Shape(1, 1, 1, frozenset({"small"})), 1.0)
        assert keys(placer) == {"memory": "big", "cores": "big", "there": "small"}
        assert not placer.can_hold(Shape(8, 8, 600))
        assert not placer.can_hold(Shape(1, 4, 1, frozenset({"small"})))

    def test_a_node_that_goes_gives_its_runs_back_and_one_that_comes_is_used(self) -> None:
        first, second = uniform_nodes(8, 4)
        placer = placer_of([first], a=(FOUR, 9.0), b=(FOUR, 5.0))
        assert keys(placer) == {"a": first.id}
        assert placer.set_nodes([second]) == ["a"]
        placer.add("a", FOUR, 9.0)
        assert keys(placer, 1.0) == {"a": second.id}
        placer.ended("a")
        placer.ended("a")
        assert keys(placer, 2.0) == {"b": second.id}
        with pytest.raises(SegbenchError, match="placed already"):
            placer.add("b", FOUR, 5.0)
        assert not placer.remove("b")

    def test_brief_runs_wait_behind_those_that_run_and_take_over_their_places(self) -> None:
        placer = placer_of(uniform_nodes(2, 2), **{f"brief{n}": (ONE, 1.0) for n in range(6)})
        assert list(keys(placer)) == ["brief0", "brief1"]
        assert [placement.key for placement in placer.behind(2.0)] == ["brief2", "brief3"]
        assert (placer.behind(2.0), placer.gpus_in_use, placer.placed, placer.waiting) == ([], 2.0, 4, 2)
        placer.ended("brief1")
        assert (keys(placer), placer.gpus_in_use) == ({}, 2.0)
        assert [placement.key for placement in placer.behind(2.0)] == ["brief4"]
        # the other place may take the one that waits, before its own run is known to have ended
        placer.ended("brief4")
        assert (placer.gpus_in_use, placer.placed) == (2.0, 3)
        for key in ("brief0", "brief2", "brief3"):
            placer.ended(key)
        assert list(keys(placer)) == ["brief5"]
        assert not placer.behind(2.0)
        placer.ended("brief5")
        assert (placer.gpus_in_use, placer.placed, placer.waiting) == (0.0, 0, 0)

    def test_nothing_waits_behind_a_long_run_nor_a_long_run_behind_any(self) -> None:
        placer = placer_of(uniform_nodes(2, 2), long=(ONE, 50.0), brief=(ONE, 1.0), next=(ONE, 1.0), last=(ONE, 1.0))
        assert list(keys(placer)) == ["long", "brief"]
        assert [placement.key for placement in placer.behind(2.0)] == ["next"]
        placer.add("longer", ONE, 3.0)
        placer.ended("brief")
        assert not placer.behind(2.0)

    def test_nothing_waits_behind_while_a_node_is_kept(self) -> None:
        placer = placer_of(uniform_nodes(4, 4), **{f"brief{n}": (ONE, 1.0) for n in range(8)})
        assert len(keys(placer)) == 4
        placer.add("four", FOUR, 1.5)
        placer.ended("brief0")
        assert not keys(placer, 1.0)
        assert not placer.behind(2.0)

    def test_what_waits_behind_goes_with_its_node(self) -> None:
        first, second = uniform_nodes(2, 1)
        placer = placer_of([first], a=(ONE, 1.0), b=(ONE, 1.0))
        keys(placer)
        placer.behind(2.0)
        assert placer.set_nodes([second]) == ["a", "b"]

    @pytest.mark.parametrize("seed", range(8))
    def test_no_gpu_is_ever_oversubscribed_and_every_run_is_placed_once(self, seed: int) -> None:
        rng = random.Random(seed)
        nodes = [Node(f"n{n}", rng.choice((0, 1, 4, 8)), 16, 64) for n in range(6)] + [Node("last", 8, 16, 64)]
        asks = {
            str(n): (
                Shape(rng.choice((0, 0.25, 0.5, 1, 2, 4, 8)), rng.choice((1, 2)), rng.choice((1, 9))),
                rng.uniform(1, 99),
            )
            for n in range(300)
        }
        placer = placer_of(nodes, **asks)
        running: dict[str, tuple[float, str]] = {}
        seen: set[str] = set()
        now = 0.0
        while True:
            for key, node in keys(placer, now).items():
                assert key not in seen
                seen.add(key)
                running[key] = now + asks[key][1] * rng.uniform(0.5, 2), node
            for node in nodes:
                held = [asks[key][0] for key, (_, where) in running.items() if where == node.id]
                assert sum(shape.gpus for shape in held) <= node.gpus + 1e-6
                assert sum(shape.cpus for shape in held) <= node.cpus
                assert sum(shape.memory_gb for shape in held) <= node.memory_gb
            if not running:
                break
            first = min(running, key=lambda key: running[key][0])
            now = running.pop(first)[0]
            placer.ended(first)
        assert seen == set(asks)


@pytest.fixture(scope="module")
def paper() -> list[Ask]:
    """Return the published 138 runs."""
    runs = expand(preset("paper"), Catalogue().with_study())
    return [Ask(run.id, Shape(run.resources.num_gpus), expected_seconds(run, History()).seconds) for run in runs]


class TestSimulation:
    @pytest.mark.parametrize("per_node", [4, 8])
    @pytest.mark.parametrize("gpus", [8, 32, 64, 80, 88, 96, 128, 256, 450])
    def test_the_paper_grid_ends_within_five_percent_of_the_bound(
        self, paper: list[Ask], gpus: int, per_node: int
    ) -> None:
        nodes = uniform_nodes(gpus, per_node)
        done = simulate(paper, nodes)
        assert set(done.starts) == {ask.key for ask in paper}
        assert lower_bound(paper, nodes) <= done.makespan_s + 1e-6
        assert done.makespan_s <= 1.05 * lower_bound(paper, nodes)

    def test_true_lengths_may_differ_from_the_expected_ones(self) -> None:
        asks = [Ask("a", ONE, 10.0), Ask("b", ONE, 5.0), Ask("c", ONE, 1.0)]
        done = simulate(asks, [Node("n", 2)], {"b": 30.0})
        assert done.makespan_s == 30.0
        assert done.starts == {"a": 0.0, "b": 0.0, "c": 10.0}

    def test_ten_thousand_runs_are_placed_in_a_second_or_two(self) -> None:
        rng = random.Random(1)
        asks = [Ask(str(n), Shape(rng.choice((0.5, 1, 4))), rng.uniform(60, 36_000)) for n in range(10_000)]
        nodes = uniform_nodes(448, 8)
        start = time.process_time()
        done = simulate(asks, nodes)
        assert time.process_time() - start < 5
        assert done.makespan_s < 1.05 * lower_bound(asks, nodes)

    def test_the_orders_it_is_compared_with_do_what_ray_was_seen_to_do(self) -> None:
        path = Path(__file__).parents[3] / "benchmarks" / "simulate_paper_grid.py"
        spec = importlib.util.spec_from_file_location("simulate_paper_grid", path)
        assert spec is not None
        assert spec.loader is not None
        orders = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(orders)
        # a run on four GPUs after eight on one, before 32 more on one: Ray keeps it until the last of those has started
        asks = [Ask(str(n), FOUR if n == 8 else ONE, 10.0 if n == 8 else 1.0) for n in range(41)]
        true = {ask.key: ask.seconds for ask in asks}
        nodes = uniform_nodes(8, 8)
        assert simulate(asks, nodes).makespan_s == lower_bound(asks, nodes) == 10.0
        assert orders.fifo(asks, true, nodes) == 11.0
        assert {orders.ray_order(asks, true, nodes, random.Random(n)) for n in range(20)} == {10.0, 15.0}

    def test_a_run_that_no_node_holds_is_refused(self) -> None:
        with pytest.raises(SegbenchError, match="largest node has 2 GPUs"):
            simulate([Ask("a", FOUR, 1.0)], uniform_nodes(8, 2))


class TestPlan:
    def test_the_plan_expects_the_time_on_any_number_of_gpus(self, tmp_path: Path) -> None:
        command = ["grid", "plan", "--preset", "paper", "--out", str(tmp_path), "--gpus"]
        told = CliRunner().invoke(app, [*command, "450", "--gpus-per-node", "4"]).output
        assert "138 runs to do: 11,474 GPU hours, 128 h on 450 GPUs (113 nodes)" in told
        assert "133 from published hours, 5 from the family's default rate" in told
        rows = json.loads(CliRunner().invoke(app, [*command, "8", "--format", "json"]).output)
        assert len(rows) == 138
        assert sum(row["gpu_hours"] for row in rows) == pytest.approx(11_474, abs=1)
        assert {row["expected_from"] for row in rows} == {"published", "default"}

    def test_a_cluster_that_cannot_hold_a_run_is_told_with_what_would_help(self, tmp_path: Path) -> None:
        arguments = ["grid", "plan", "-p", "paper", "--out", str(tmp_path), "--gpus", "8", "--gpus-per-node"]
        failed = CliRunner().invoke(app, [*arguments, "2"])
        assert isinstance(failed.exception, SegbenchError)
        assert "asks for 4 GPUs" in str(failed.exception)
        assert "--num-gpus" in str(failed.exception)

    @pytest.mark.usefixtures("local_ray")
    def test_the_connected_cluster_is_asked_for_its_nodes(self) -> None:
        (host,), device = connected_cluster("auto")
        node = host.node
        assert (node.gpus, node.cpus) == (8, 1.0)
        assert node.memory_gb > 0.1
        assert node.id == ray.nodes()[0]["NodeID"]
        assert device != "cpu"

    def test_the_plan_places_runs_by_what_the_launch_would_say(self, tmp_path: Path) -> None:
        def told(*words: str) -> str:
            command = ["grid", "plan", "-p", "paper", "-m", "swin-s", "--tissue", "all", "--out", str(tmp_path)]
            result = CliRunner().invoke(app, [*command, *words])
            return str(result.exception) if isinstance(result.exception, SegbenchError) else result.output

        # a label and a kind of GPU are taken to be there where the GPUs are imagined
        on_eight = told("--gpus", "8", "--accelerator", "A100", "--label", "zone=a")
        assert on_eight == told("--gpus", "8")
        assert "5 runs to do" in on_eight
        assert "on no GPU" in told("--gpus", "8", "--cpu")
        assert "one after the other" in told("--inline")
        assert "one after the other" in told("--cpu", "--timeout", "5", "--retries", "2")
        assert "found both" in told("--gpus", "8", "--address", "auto")

    @pytest.mark.usefixtures("local_ray")
    def test_the_plan_asks_of_a_cluster_what_the_launch_would_ask(self, tmp_path: Path) -> None:
        command = ["grid", "plan", "-p", "paper", "-m", "swin-s", "--address", "auto", "--out", str(tmp_path)]
        for words, refusal in (
            (["--label", "zone=a"], "no node has --label zone=a"),
            (["--accelerator", "A100"], "unknown accelerator"),
        ):
            failed = CliRunner().invoke(app, [*command, "--memory-gb", "0.1", *words])
            assert isinstance(failed.exception, SegbenchError)
            assert refusal in str(failed.exception)
        planned = CliRunner().invoke(app, [*command, "--memory-gb", "0.1"])
        assert "h on 8 GPUs (1 node)" in planned.output, planned.exception

    def test_dead_nodes_and_mixed_gpus_are_told_apart(self) -> None:
        nodes = [
            {"Alive": alive, "NodeID": kind, "Resources": {"CPU": 1.0, "GPU": 1.0, f"accelerator_type:{kind}": 1.0}}
            for kind, alive in (("A100", True), ("L4", False), ("H100", True))
        ]
        assert [node.id for node in nodes_of(nodes)] == ["A100", "H100"]
        assert device_of(nodes) == "gpu"
        assert device_of(nodes[:2]) == "A100"
        assert device_of([{"Alive": True, "NodeID": "c", "Resources": {"CPU": 4.0}}]) == "cpu"


def test_a_budget_without_length_is_taken_as_it_is() -> None:
    run = dataclasses.replace(run_of("swin-s"), budget=Budget(batch_size=1))
    assert expected_seconds(run, History()).seconds == 30 * 3600
