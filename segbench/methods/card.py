"""A method's card: what segbench must know of a method before it runs, as plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from segbench.errors import SegbenchError, unknown_name
from segbench.methods.setting import Setting, check_values
from segbench.methods.start import Start

CATEGORIES = ("classical", "cell-specific", "two-stage", "one-stage", "multi-stage", "query", "foundation")
"""How methods segment. Closed, so that the analyses can compare categories: a new method takes the nearest."""
CONTROL = "control"
"""The category, and the family, of what the engine itself computes from the truth to compare methods with."""
PRECISIONS = ("float32", "float16", "bfloat16")
"""In which a network may be trained; float16 with scaled gradients. The study used float32."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""What names of methods, families and environments look like."""


@dataclass(frozen=True)
class Budget:
    """How long to train: epochs or iterations, with the batch size over all devices.

    Examples
    --------
    >>> from segbench import Budget
    >>> budget = Budget(batch_size=8, epochs=500)
    >>> budget.unit, budget.scaled(0.01).epochs
    ('epochs', 5)
    """

    batch_size: int
    """Images a training step, summed over all devices."""
    epochs: int | None = None
    """Passes of training, for methods that count epochs; None for methods that count iterations or are not trained.
    0 for a released model that is applied as it is."""
    iterations: int | None = None
    """Training steps, for methods that count iterations."""
    steps_per_epoch: int | None = None
    """Steps in an epoch where the library fixes it (StarDist, deepcell); None where an epoch is one pass."""
    note: str = ""
    """Where the figures come from, and where paper and scripts disagree."""

    def __post_init__(self) -> None:
        """Raise SegbenchError for a figure that is not a positive whole number."""
        for name in ("batch_size", "epochs", "iterations", "steps_per_epoch"):
            value = getattr(self, name)
            least = 0 if name == "epochs" else 1
            if (value is not None or name == "batch_size") and not (_is_whole(value) and value >= least):
                raise SegbenchError(f"budget: field {name} is {value!r}; allowed: a whole number of at least {least}")

    @property
    def unit(self) -> Literal["epochs", "iterations"] | None:
        """What training is counted in; None for a method that is not trained."""
        return "epochs" if self.epochs is not None else "iterations" if self.iterations is not None else None

    def scaled(self, factor: float) -> Budget:
        """Return this budget with epochs or iterations times ``factor``, at least 1; 0 epochs stay 0.

        Examples
        --------
        >>> Budget(batch_size=8, epochs=500).scaled(0.01).epochs
        5
        """
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"factor must be a positive number, found {factor}")

        def scale(n: int | None) -> int | None:
            return n if not n else max(1, round(n * factor))

        return replace(self, epochs=scale(self.epochs), iterations=scale(self.iterations))


@dataclass(frozen=True)
class Resources:
    """What one run asks of Ray; each can be overridden at launch.

    Examples
    --------
    >>> from segbench import Resources
    >>> Resources(num_gpus=0.5, num_cpus=4, memory_gb=12)  # two such runs share a GPU
    Resources(num_gpus=0.5, num_cpus=4, memory_gb=12, gpu_memory_gb=None, gpu_cpus=4.0)
    >>> Resources().cores(gpus=0), Resources().cores(gpus=2)
    (1.0, 8.0)
    """

    num_gpus: float = 1.0
    """GPUs a run: a fraction below 1, 1, or several on one node. Ignored where the cluster has no GPU."""
    num_cpus: float = 1.0
    """CPU cores a run; also the thread count given to the method's libraries."""
    memory_gb: float = 4.0
    """Peak memory of the host in gigabytes (10^9 bytes) to reserve."""
    gpu_memory_gb: float | None = None
    """Memory in gigabytes that each GPU must have; None where any GPU does."""
    gpu_cpus: float = 4.0
    """CPU cores for each whole GPU that a run gets, where they are more than ``num_cpus``: a GPU's input is made there.
    A run without a GPU has ``num_cpus``."""

    def cores(self, gpus: float) -> float:
        """Return the CPU cores of a run that gets so many GPUs."""
        return max(self.num_cpus, self.gpu_cpus * gpus)

    def __post_init__(self) -> None:
        """Raise SegbenchError for a figure that no machine has."""
        gpus = self.num_gpus
        if not (_is_number(gpus) and gpus >= 0 and (gpus <= 1 or gpus == int(gpus))):
            raise SegbenchError(f"resources: field num_gpus is {gpus!r}; allowed: 0 to 1, or a whole number above")
        for name in ("num_cpus", "memory_gb", "gpu_memory_gb"):
            value = getattr(self, name)
            if value is None and name == "gpu_memory_gb":
                continue
            if not (_is_number(value) and value > 0):
                raise SegbenchError(f"resources: field {name} is {value!r}; allowed: a number above 0")
        if not (_is_number(self.gpu_cpus) and self.gpu_cpus >= 0):
            raise SegbenchError(f"resources: field gpu_cpus is {self.gpu_cpus!r}; allowed: a number of at least 0")


@dataclass(frozen=True)
class Usability:
    """How usable a method is; a score that is not known is None, never invented.

    Examples
    --------
    >>> from segbench import Usability
    >>> Usability(code_maintenance=8, ease_of_use=6, source="our own trial, May 2026").is_known
    True
    """

    composite: float | None = None
    """A composite in 0..1, as the study has one; segbench computes one where the three scores are known."""
    code_maintenance: float | None = None
    """1..10."""
    ease_of_use: float | None = None
    """1..10."""
    hardware_support: float | None = None
    """1..10."""
    source: str = ""
    """Where the scores were read."""

    def __post_init__(self) -> None:
        """Raise SegbenchError for a score out of its range, and for scores without a source."""
        for one in fields(self)[:-1]:
            low, high = (0, 1) if one.name == "composite" else (1, 10)
            value = getattr(self, one.name)
            if value is not None and not (_is_number(value) and low <= value <= high):
                raise SegbenchError(f"usability: field {one.name} is {value!r}; allowed: None, or {low} to {high}")
        if self.is_known and not self.source:
            raise SegbenchError("usability: field source is empty; say where the scores were read")

    @property
    def is_known(self) -> bool:
        """True where there is any score."""
        scores = (self.composite, self.code_maintenance, self.ease_of_use, self.hardware_support)
        return any(score is not None for score in scores)


@dataclass(frozen=True)
class Card:
    """What is known of a method before it runs; SegbenchError names the first field that does not hold.

    Examples
    --------
    >>> from segbench import Budget, Card, Setting
    >>> card = Card(
    ...     name="my-net",
    ...     title="My Net",
    ...     family="my-nets",
    ...     environment="torch",
    ...     category="cell-specific",
    ...     trained=True,
    ...     attention=False,
    ...     budget=Budget(batch_size=8, epochs=100),
    ...     libraries=("torch",),
    ...     settings={"depth": Setting(4, "how often the network halves an image", minimum=1)},
    ... )
    >>> card.defaults
    {'depth': 4}
    """

    name: str
    """Its name on the command line and in the store: lower case, digits and hyphens."""
    title: str
    """Its name in tables and figures."""
    family: str
    """The base it shares with others, in the form of a name: ``baseline``, ``stardist``, ``cellpose``, ``mmdet``,
    ``detectron2``, ``deepcell``, ``sam``; a third party's own otherwise."""
    environment: str
    """The environment it runs in: ``engine`` (the engine's own), ``tensorflow``, ``cellpose``, ``torch``, or one that
    its own distribution brings."""
    category: str
    """How it segments: one of ``CATEGORIES``."""
    trained: bool
    """False for methods that only predict."""
    attention: bool
    """True where the network uses attention."""
    budget: Budget
    """The published budget (preset ``paper``): epochs or iterations, neither for a method that is not trained."""
    resources: Resources = field(default_factory=Resources)
    """Default resources of a run."""
    usability: Usability = field(default_factory=Usability)
    """Usability scores, with their source. The study's methods leave it: segbench adds what the study gave them."""
    libraries: tuple[str, ...] = ()
    """Distributions whose pinned versions decide the results; they enter the run's id and the store."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Every setting by name; a job gets their defaults with the run's changes."""
    start: Start | None = None
    """From which weights its training may start; None for random ones alone."""
    check_settings: Mapping[str, Any] = field(default_factory=dict)
    """What ``segbench methods check`` changes of them to be done in a minute; the architecture stays."""
    score_rule: str = ""
    """Where an instance's score comes from, in one sentence."""
    data_parallel: Literal["torchrun", "library"] | None = None
    """How training uses several devices: ``torchrun`` starts one process a device, ``library`` leaves it to the library
    in one process (TensorFlow's MirroredStrategy); None where it uses one device at most."""
    precisions: tuple[str, ...] = ("float32",)
    """Which of PRECISIONS training is right in: losses are those of float32 but for rounding. A method with others than
    float32 has a setting ``precision`` with these, and ``auto`` where that means something."""
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

    def __post_init__(self) -> None:
        """Raise SegbenchError for the first field that does not hold."""
        try:
            for check in (_check_words, _check_kinds, _check_budget, _check_settings, _check_precisions):
                check(self)
        except SegbenchError as error:
            raise SegbenchError(f"card {self.name!r}: {error}") from None

    @property
    def defaults(self) -> dict[str, Any]:
        """The default of every setting, by name."""
        return {name: setting.default for name, setting in self.settings.items()}


def _check_words(card: Card) -> None:
    for name in ("name", "family", "environment"):
        value = getattr(card, name)
        if not (isinstance(value, str) and NAME.fullmatch(value)):
            raise SegbenchError(
                f"field {name} is {value!r}; allowed: lower case letters and digits, parts joined by hyphens"
            )
    if not (isinstance(card.title, str) and card.title.strip() and "\n" not in card.title):
        raise SegbenchError(f"field title is {card.title!r}; allowed: a line of text")
    if card.category not in (*CATEGORIES, CONTROL):
        raise unknown_name("category", str(card.category), CATEGORIES)
    if card.data_parallel not in (None, "torchrun", "library"):
        raise SegbenchError(f"field data_parallel is {card.data_parallel!r}; allowed: None, 'torchrun', 'library'")


def _check_kinds(card: Card) -> None:
    for name in ("trained", "attention", "resumable", "may_halve_batch", "implemented"):
        value = getattr(card, name)
        if not isinstance(value, bool):
            raise SegbenchError(f"field {name} is {value!r}; allowed: True, False")
    for name, kind in (("budget", Budget), ("resources", Resources), ("usability", Usability)):
        value = getattr(card, name)
        if not isinstance(value, kind):
            raise SegbenchError(f"field {name} is {value!r}; allowed: a {kind.__name__}")
    if not (_is_whole(card.revision) and card.revision > 0):
        raise SegbenchError(f"field revision is {card.revision!r}; allowed: a whole number of at least 1")
    libraries = card.libraries
    is_list = isinstance(libraries, Sequence) and not isinstance(libraries, str)
    if not is_list or not all(isinstance(one, str) and one.strip() for one in libraries):
        raise SegbenchError(f"field libraries is {libraries!r}; allowed: a tuple of names of distributions")


def _check_budget(card: Card) -> None:
    budget = card.budget
    if budget.epochs is not None and budget.iterations is not None:
        raise SegbenchError("field budget has epochs and iterations; allowed: the one that the method counts")
    if card.trained and budget.unit is None:
        raise SegbenchError("field budget has neither epochs nor iterations; a trained method counts one of them")
    if not card.trained and budget.unit is not None:
        raise SegbenchError(f"field budget has {budget.unit}; a method that is not trained has none")
    if budget.steps_per_epoch is not None and budget.epochs is None:
        raise SegbenchError("field budget has steps_per_epoch without epochs")


def _check_settings(card: Card) -> None:
    for name, setting in card.settings.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise SegbenchError(f"field settings has the name {name!r}; allowed: letters, digits and underscores")
        if not isinstance(setting, Setting):
            raise SegbenchError(
                f"field settings: {name} is {setting!r}; declare it as Setting({setting!r}, 'what it does')"
            )
    if card.start is not None and card.start.setting not in card.settings:
        raise unknown_name("setting in field start", card.start.setting, card.settings)
    check_values("field check_settings", card.settings, card.check_settings)


def _check_precisions(card: Card) -> None:
    known = isinstance(card.precisions, tuple) and set(card.precisions) <= set(PRECISIONS)
    if not known or "float32" not in card.precisions:
        raise SegbenchError(
            f"field precisions is {card.precisions!r}; allowed: a tuple of {', '.join(PRECISIONS)}, float32 among them"
        )
    setting = card.settings.get("precision")
    offered = {"float32"} if setting is None else {*setting.choices} - {"auto"}
    if offered != set(card.precisions):
        raise SegbenchError(
            f"field precisions is {card.precisions!r}, but the setting precision offers {', '.join(sorted(offered))}"
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
