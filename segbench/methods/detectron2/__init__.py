"""The methods that detectron2 trains, ResNeSt and CenterMask2; ``import detectron2`` is upstream's package."""

from __future__ import annotations

from segbench.methods.detectron2.centermask2 import CenterMask2
from segbench.methods.detectron2.resnest import ResNeSt

__all__ = ["CenterMask2", "ResNeSt"]
