"""InstanSeg: pixels that point to their cell's centre, trained from scratch with upstream's network and losses."""

from __future__ import annotations

from segbench.methods.instanseg.method import InstanSeg

__all__ = ["InstanSeg"]
