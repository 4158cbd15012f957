"""A method's card: what segbench must know of a method before it runs, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Budget:
    """How long to train: epochs or iterations, with the batch size over all devices."""

    batch_size: int
    """Images a training step, summed over all devices."""
    epochs: int | None = None
    """Passes of training, for methods that count epochs; None for methods that count iterations or are not trained."""
    iterations: int | None = None
    """Training steps, for methods that count iterations."""
    steps_per_epoch: int | None = None
    """Steps in an epoch where the library fixes it (StarDist, deepcell); None where an epoch is one pass."""
    note: str = ""
    """Where the figures come from, and where paper and scripts disagree."""

    def scaled(self, factor: float) -> Budget:
        """Return this budget with epochs or iterations times ``factor``, at least 1.

        Examples
        --------
        >>> Budget(batch_size=8, epochs=500).scaled(0.01).epochs
        5
        """
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"factor must be a positive number, found {factor}")

        def scale(n: int | None) -> int | None:
            return None if n is None else max(1, round(n * factor))

        return replace(self, epochs=scale(self.epochs), iterations=scale(self.iterations))


@dataclass(frozen=True)
class Resources:
    """What one run asks of Ray; each can be overridden at launch."""

    num_gpus: float = 1.0
    """GPUs a run: a fraction below 1, 1, or several on one node. Ignored where the cluster has no GPU."""
    num_cpus: float = 1.0
    """CPU cores a run; also the thread count given to the method's libraries."""
    memory_gb: float = 4.0
    """Peak memory of the host in gigabytes (10^9 bytes) to reserve."""
    gpu_memory_gb: float | None = None
    """Memory in gigabytes that each GPU must have; None where any GPU does."""


@dataclass(frozen=True)
class Usability:
    """How usable a method is, by the study's scores; a sub-score that is not known is None, never invented."""

    composite: float | None = None
    """The study's composite in 0..1."""
    code_maintenance: float | None = None
    """1..10."""
    ease_of_use: float | None = None
    """1..10."""
    hardware_support: float | None = None
    """1..10."""
    source: str = ""
    """Where the scores were read."""


@dataclass(frozen=True)
class Card:
    """What is known of a method before it runs."""

    name: str
    """Its name on the command line and in the store: lower case, digits and hyphens."""
    title: str
    """Its name in tables and figures."""
    family: str
    """The base it shares with others: ``baseline``, ``stardist``, ``cellpose``, ``mmdet``, ``detectron2``,
    ``deepcell``, ``sam``."""
    environment: str
    """The environment it runs in: ``engine`` (the engine's own), ``tensorflow``, ``cellpose``, ``torch``."""
    category: str
    """How it segments: ``classical``, ``cell-specific``, ``two-stage``, ``one-stage``, ``multi-stage``, ``query``,
    ``foundation``."""
    trained: bool
    """False for methods that only predict."""
    attention: bool
    """True where the network uses attention."""
    budget: Budget
    """The published budget (preset ``paper``)."""
    resources: Resources = field(default_factory=Resources)
    """Default resources of a run."""
    usability: Usability = field(default_factory=Usability)
    """Usability scores, with their source."""
    libraries: tuple[str, ...] = ()
    """Distributions whose pinned versions decide the results; they enter the run's id and the store."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Every setting with its default; a job's settings override them by name."""
    check_settings: Mapping[str, Any] = field(default_factory=dict)
    """What ``segbench methods check`` changes of them to be done in a minute; the architecture stays."""
    score_rule: str = ""
    """Where an instance's score comes from, in one sentence."""
    data_parallel: Literal["torchrun", "library"] | None = None
    """How training uses several devices: ``torchrun`` starts one process a device, ``library`` leaves it to the library
    in one process (TensorFlow's MirroredStrategy); None where it uses one device at most."""
    resumable: bool = False
    """True where training goes on from a checkpoint of an attempt that was lost."""
    may_halve_batch: bool = False
    """True where a run that ran out of memory may be tried once more with half the batch."""
    revision: int = 1
    """Raised whenever a change to segbench's own code for this method changes its results; enters the run's id."""
    paper: str = ""
    """The method's publication."""
    url: str = ""
    """The upstream library."""
    licence: str = ""
    """The upstream library's licence."""
    implemented: bool = True
    """False while only the card is here: such a method can be planned, not launched."""
