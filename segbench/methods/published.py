"""The name of the study's scripts, as the cards' notes cite them."""

from __future__ import annotations

SCRIPTS = "scripts: BoomStarcuc/Cell-Segmentation-Benchmark at b57865b"
