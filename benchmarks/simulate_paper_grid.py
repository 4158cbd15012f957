"""Simulates the published 138 runs on clusters of 8 to 450 GPUs: segbench's order against FIFO and Ray's own.

    python benchmarks/simulate_paper_grid.py
    python benchmarks/simulate_paper_grid.py --sigma 0.3 --trials 20
    python benchmarks/simulate_paper_grid.py --preset full --seeds 3

The runs ask for their cards' GPUs and last the published hours (rounded to whole ones there); Swin-S on one tissue, for
which none are published, lasts its share of them, and Segment Anything, which is not trained, its family's prediction
time. The lower bound is max(GPU hours / GPUs, longest run). All figures are makespan over that bound: the median over
the trials, where an order is random or --sigma is given (the true lengths are then the expected ones times a log-normal
factor that no order knows).

segbench       the order of segbench.engine.order: longest expected first, only what fits now is submitted, to a chosen
               node, one node kept for a run that fits nowhere
fifo           strictly in the grid's order: what does not fit holds up all behind it
ray            what Ray does with every task submitted at once. Modelled on its sources (raylet/scheduling:
               cluster_lease_manager.cc, local_lease_manager.cc, policy/hybrid_scheduling_policy.cc; core_worker's
               lease reuse): tasks of one resource shape queue first in, first out; a worker that ends a task is given
               the next of its shape at once; otherwise the shapes are gone through in the order of a hash map, each as
               far as it fits; the node is drawn from the fifth that is used least, where use below a half counts as
               none
ray longest    the same, submitted longest expected first
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence

from segbench.engine.grid import Catalogue, Run, expand, preset
from segbench.engine.order import Ask, History, Node, Shape, expected_seconds, lower_bound, simulate, uniform_nodes

SIZES = (8, 16, 32, 48, 64, 72, 80, 88, 96, 112, 128, 192, 256, 320, 384, 450)
GOAL = 1.05
TOP_K = 0.2
SPREAD_THRESHOLD = 0.5


def main() -> None:
    """Run the simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", choices=("paper", "full"))
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds of every method that asks for one GPU")
    parser.add_argument("--sigma", type=float, default=0.0, help="of the logarithm of true over expected length")
    parser.add_argument("--trials", type=int, default=10)
    options = parser.parse_args()
    runs = expand(preset(options.preset), Catalogue().with_study())
    asks, sources = paper_asks(runs, options.seeds)
    hours = sum(ask.seconds * ask.shape.gpus for ask in asks) / 3600
    large = sum(ask.shape.gpus > 1 for ask in asks)
    print(
        f"{len(asks)} runs ({large} on 4 GPUs, {len(asks) - large} on one), {hours:,.0f} GPU hours; lengths: {sources}"
    )
    wrong = f", true lengths off by a log-normal factor of sigma {options.sigma:g}" if options.sigma else ""
    print(f"makespan over the lower bound, median of {options.trials} trials{wrong}")
    print(
        f"{'GPUs':>5} {'node':>5} {'bound, h':>9} {'segbench':>9} {'worst':>7} {'fifo':>7} {'ray':>7} "
        f"{'ray longest':>12}"
    )
    worst, spent = 0.0, 0.0
    for per_node in (4, 8):
        for gpus in SIZES:
            nodes = uniform_nodes(gpus, per_node)
            columns: dict[str, list[float]] = {name: [] for name in ("bound", "segbench", "fifo", "ray", "ray longest")}
            for trial in range(options.trials):
                rng = random.Random(trial)
                true = {
                    ask.key: ask.seconds * (rng.lognormvariate(0, options.sigma) if options.sigma else 1.0)
                    for ask in asks
                }
                bound = lower_bound([Ask(ask.key, ask.shape, true[ask.key]) for ask in asks], nodes)
                longest_first = sorted(asks, key=lambda ask: -ask.seconds)
                start = time.process_time()
                ours = simulate(asks, nodes, true).makespan_s
                spent += time.process_time() - start
                columns["bound"].append(bound / 3600)
                columns["segbench"].append(ours / bound)
                columns["fifo"].append(fifo(asks, true, nodes) / bound)
                columns["ray"].append(ray_order(asks, true, nodes, rng) / bound)
                columns["ray longest"].append(ray_order(longest_first, true, nodes, rng) / bound)
            middle = {name: statistics.median(values) for name, values in columns.items()}
            worst = max(worst, max(columns["segbench"]))
            print(
                f"{gpus:5} {per_node:5} {middle['bound']:9.1f} {middle['segbench']:9.3f} "
                f"{max(columns['segbench']):7.3f} {middle['fifo']:7.3f} {middle['ray']:7.3f} "
                f"{middle['ray longest']:12.3f}"
            )
    n = len(SIZES) * 2 * options.trials
    print(f"segbench's worst: {worst:.3f} (goal {GOAL}); one simulation takes {spent / n * 1e3:.1f} ms of CPU")


def paper_asks(runs: Sequence[Run], seeds: int) -> tuple[list[Ask], str]:
    """Return the runs as the order sees them, and from where their lengths come."""
    asks: list[Ask] = []
    sources: dict[str, int] = {}
    for run in runs:
        expected = expected_seconds(run, History())
        sources[expected.source] = sources.get(expected.source, 0) + 1
        wanted = run.resources
        shape = Shape(wanted.num_gpus, wanted.cores(wanted.num_gpus), wanted.memory_gb)
        for seed in range(seeds if wanted.num_gpus <= 1 else 1):
            asks.append(Ask(f"{run.id}-{seed}", shape, expected.seconds))
    return asks, ", ".join(f"{count} {source}" for source, count in sources.items())


class Cluster:
    """Free GPUs by node and what runs, for the two orders that are compared with."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.size = [node.gpus for node in nodes]
        self.free = [node.gpus for node in nodes]
        self.now = 0.0
        self._ends: list[tuple[float, int, int, Ask]] = []
        self._count = 0

    def start(self, ask: Ask, node: int, seconds: float) -> None:
        """Take the GPUs of a node for so many seconds from now."""
        self.free[node] -= int(ask.shape.gpus)
        self._count += 1
        heapq.heappush(self._ends, (self.now + seconds, self._count, node, ask))

    def run_until_empty(self, fill: Callable[[], None], ended: Callable[[Ask, int], None]) -> float:
        """Start what can be, then go from end to end; returns when the last has ended."""
        fill()
        while self._ends:
            self.now, _, node, ask = heapq.heappop(self._ends)
            self.free[node] += int(ask.shape.gpus)
            ended(ask, node)
            fill()
        return self.now


def fifo(asks: Sequence[Ask], true: dict[str, float], nodes: Sequence[Node]) -> float:
    """Return the makespan of the strict order, on the node that is filled best."""
    cluster, queue = Cluster(nodes), deque(asks)

    def fill() -> None:
        while queue:
            fitting = [(free, node) for node, free in enumerate(cluster.free) if free >= queue[0].shape.gpus]
            if not fitting:
                return
            ask = queue.popleft()
            cluster.start(ask, min(fitting)[1], true[ask.key])

    return cluster.run_until_empty(fill, lambda *_: None)


def ray_order(asks: Sequence[Ask], true: dict[str, float], nodes: Sequence[Node], rng: random.Random) -> float:
    """Return the makespan of Ray's own order."""
    cluster = Cluster(nodes)
    queues: dict[Shape, deque[Ask]] = {}
    for ask in asks:
        queues.setdefault(ask.shape, deque()).append(ask)
    order = list(queues)
    rng.shuffle(order)
    top = max(1, int(len(nodes) * TOP_K))

    def score(node: int) -> float:
        use = 1 - cluster.free[node] / cluster.size[node]
        return use if use >= SPREAD_THRESHOLD else 0.0

    def fill() -> None:
        for shape in order:
            queue = queues[shape]
            while queue:
                fitting = sorted((score(n), n) for n, free in enumerate(cluster.free) if free >= shape.gpus)
                if not fitting:
                    break
                ask = queue.popleft()
                cluster.start(ask, rng.choice(fitting[:top])[1], true[ask.key])

    def ended(ask: Ask, node: int) -> None:
        if queues[ask.shape]:
            following = queues[ask.shape].popleft()
            cluster.start(following, node, true[following.key])

    return cluster.run_until_empty(fill, ended)


if __name__ == "__main__":
    main()
