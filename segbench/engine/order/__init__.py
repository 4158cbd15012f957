"""In which order runs are tried: how long each is expected to take, which is next, and when all will have ended."""

from segbench.engine.order.cluster import device_of, nodes_of
from segbench.engine.order.expectation import GPU, Expectation, History, Measured, Sizes, expected_seconds
from segbench.engine.order.measured import CPU
from segbench.engine.order.placer import Node, Placement, Placer, Shape
from segbench.engine.order.simulation import Ask, Simulated, lower_bound, simulate, uniform_nodes

__all__ = [
    "CPU",
    "GPU",
    "Ask",
    "Expectation",
    "History",
    "Measured",
    "Node",
    "Placement",
    "Placer",
    "Shape",
    "Simulated",
    "Sizes",
    "device_of",
    "expected_seconds",
    "lower_bound",
    "nodes_of",
    "simulate",
    "uniform_nodes",
]
