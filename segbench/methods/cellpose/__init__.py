"""Cellpose's classic network, trained from scratch; ``import cellpose`` is upstream's package."""

from __future__ import annotations

from segbench.methods.cellpose.method import FLOW_THRESHOLDS, Cellpose
from segbench.methods.cellpose.schedule import plan_epochs

__all__ = ["FLOW_THRESHOLDS", "Cellpose", "plan_epochs"]
