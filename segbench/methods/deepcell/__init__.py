"""Mesmer, FeatureNet and RetinaMask through DeepCell's own models, generators, losses and post-processing."""

from __future__ import annotations

from segbench.methods.deepcell.featurenet import FeatureNet
from segbench.methods.deepcell.mesmer import Mesmer
from segbench.methods.deepcell.retinamask import RetinaMask

__all__ = ["FeatureNet", "Mesmer", "RetinaMask"]
