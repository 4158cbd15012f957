"""What a user can say about how a grid is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segbench.engine.scheduler.retries import Retries


@dataclass(frozen=True)
class LaunchOptions:
    """How a grid is run; none of it decides a result."""

    out: Path
    address: str | None = None
    """Of a running Ray cluster (``auto`` for the one of this machine); None starts a local one."""
    cpu: bool = False
    """Run without GPUs even where there are some."""
    num_cpus: int | None = None
    """Cores of the local Ray; None for all."""
    timeout_s: float | None = None
    """Of each method's subprocess."""
    checkpoint_every_s: float = 600.0
    """Seconds of training between two checkpoints, for methods that keep them."""
    accelerator: str | None = None
    """Kind of GPU that every run with a GPU must have, as Ray names it (``A100``)."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Node labels that every run's node must have."""
    cluster_file: Path | None = None
    """What the cluster's autoscaler was started with, so that runs may wait for nodes that do not run yet; None for
    none, or for what ``ray up`` has left on this machine."""
    retries: Retries = field(default_factory=Retries)
    """What is tried again."""
