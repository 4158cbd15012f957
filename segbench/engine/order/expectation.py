"""How long a run is expected to hold its devices: by what was measured, what was published, or its family."""

from __future__ import annotations

import functools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card
from segbench.engine.order.measured import CPU, Profiles
from segbench.engine.study import scores as study
from segbench.engine.study.scores import PublishedScore
from segbench.engine.study.tissues import ALL_TISSUES, LIVECELL_TISSUES, TISSUENET_TISSUES
from segbench.methods.card import Budget

Source = Literal["history", "measured", "published", "default"]
Sizes = Mapping[tuple[str, str], int]
"""Training windows by (dataset fingerprint, training tissue)."""

GPU = "gpu"
"""Device kinds; a GPU's own name says more than ``gpu``."""
_LOOKED_AT, _NEAREST = 100, 5
"""So many of the equally good measurements are compared, the newest; of so many of them the median is taken."""
_STUDY_TISSUES = {"tissuenet": len(TISSUENET_TISSUES), "livecell": len(LIVECELL_TISSUES)}
_UNKNOWN_WINDOWS = 2000
_FIXED_S = 30.0
"""Loading packages, calibration and evaluation."""
_TEST_WINDOWS = 1324
"""Test windows where the data are not known: TissueNet's."""


@dataclass(frozen=True)
class _Rate:
    """Seconds of one device a window of 256x256: orders of magnitude, where nothing was measured or published."""

    train_gpu: float
    train_cpu: float
    predict_gpu: float
    predict_cpu: float


# The GPU figures are round ones for a data-centre GPU. Of the CPU figures, Cellpose's and StarDist's are the measured
# runs of docs/results-dsb2018.md (1,119 s and 1,123 s on one core); the others are thirty times the GPU's.
_RATES = {
    "baseline": _Rate(0.0, 0.0, 0.05, 0.05),
    "cellpose": _Rate(0.008, 0.1, 0.05, 0.5),
    "stardist": _Rate(0.006, 0.05, 0.03, 0.2),
    "deepcell": _Rate(0.02, 0.6, 0.05, 0.5),
    "mmdet": _Rate(0.04, 1.2, 0.05, 1.5),
    "detectron2": _Rate(0.04, 1.2, 0.05, 1.5),
    "sam": _Rate(0.1, 10.0, 1.5, 60.0),
}
_UNKNOWN_FAMILY = _Rate(0.02, 0.6, 0.05, 0.5)


@dataclass(frozen=True)
class Expectation:
    """How long a run is expected to take."""

    seconds: float
    """From its start on a node to its end: data, loading, training, prediction, evaluation; without waiting."""
    source: Source
    """``history`` (the store's finished runs), ``measured`` (windows a second, by ``methods measure``), ``published``
    (the study's hours) or ``default`` (its family's rate)."""


@dataclass(frozen=True)
class Measured:
    """A finished attempt of the store, as far as its length is concerned."""

    task: str
    dataset_fingerprint: str
    train_tissue: str
    budget: Budget
    n_train_images: int | None
    num_gpus: float
    device: str
    """The GPU's name, or ``cpu``."""
    train_s: float
    other_s: float
    """Everything but training and waiting: data, environment, loading, calibration, saving, prediction, evaluation."""
    whole: bool = True
    """It was trained on every image of its training tissue."""


@dataclass(frozen=True)
class History:
    """What is known from earlier runs and from the prepared data."""

    by_method: Mapping[str, Sequence[Measured]] = field(default_factory=dict)
    """Oldest first."""
    sizes: Sizes = field(default_factory=dict)
    profiles: Profiles = field(default_factory=Profiles)
    """What ``methods measure`` found."""
    test_windows: Mapping[str, int] = field(default_factory=dict)
    """By dataset fingerprint."""
    _alike: dict[tuple[str, str, str, str | None], Sequence[Measured]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(
        cls,
        measured: Iterable[tuple[str, Measured]],
        sizes: Sizes | None = None,
        profiles: Profiles | None = None,
        test_windows: Mapping[str, int] | None = None,
    ) -> History:
        """Return a history of (method, what was measured); the sizes of the data that were trained on are added."""
        by_method: dict[str, list[Measured]] = defaultdict(list)
        known: dict[tuple[str, str], int] = {}
        for method, one in measured:
            by_method[method].append(one)
            if one.n_train_images and one.whole:
                known[one.dataset_fingerprint, one.train_tissue] = one.n_train_images
        return cls(by_method, {**known, **(sizes or {})}, profiles or Profiles(), test_windows or {})

    def alike(self, method: str, task: str, train_tissue: str, device: str | None) -> Sequence[Measured]:
        """Return the newest measurements that are nearest in device, then task, then training tissue; newest first."""
        key = (method, task, train_tissue, device)
        if key not in self._alike:
            known = [one for one in self.by_method.get(method, ()) if _same_kind(one, device)]

            def differs(one: Measured) -> tuple[bool, bool, bool]:
                other_device = device not in (None, GPU) and device.lower() not in one.device.lower()
                return other_device, one.task != task, one.train_tissue != train_tissue

            least = min(map(differs, known), default=None)
            self._alike[key] = [one for one in reversed(known) if differs(one) == least][:_LOOKED_AT]
        return self._alike[key]


def _same_kind(one: Measured, device: str | None) -> bool:
    return device is None or (one.device == CPU) == (device == CPU)


def expected_seconds(
    run: Run, history: History, published: Sequence[PublishedScore] | None = None, device: str | None = None
) -> Expectation:
    """Return how long a run is expected to take.

    From the store's own history where the method has a finished run on such a device: the nearest are those of the same
    device, then task, then training tissue, then budget, and the median of the five nearest is taken. Their
    training time is scaled by the images seen (epochs x N, epochs x steps x batch, or iterations x batch) and
    by whole GPUs. Else from the windows a second that ``methods measure`` found on such a device. Else from the
    published hours of the method and task at the card's budget, scaled by the images seen against the card's; a run
    of one tissue, where epochs are passes over the data, by its share of the windows (an equal share where the sizes
    are not known). Else from the family's rate. A method that is not trained has its prediction time only.

    Parameters
    ----------
    run
        The run; its dataset need not be prepared.
    history
        The store's finished runs, and the sizes of prepared data.
    published
        The study's scores; None for the package's own.
    device
        ``cpu``, ``gpu``, or a GPU's name or a part of it (``A100``, as Ray names its accelerators); None
        where it is not known. Measurements of processors say nothing of GPUs, so the other kind's are left
        out, and so are published hours on ``cpu``.
    """
    measured = _from_history(run, history, device)
    if measured is not None:
        return Expectation(measured, "history")
    timed = _from_profile(run, history, device)
    if timed is not None:
        return Expectation(timed, "measured")
    if device != CPU:
        hours = _published_hours(run, history.sizes, study.scores() if published is None else tuple(published))
        if hours:
            return Expectation(hours * 3600, "published")
    return Expectation(_from_family(run, history, device), "default")


def _from_history(run: Run, history: History, device: str | None) -> float | None:
    n_train = _windows(run, history.sizes)
    scaled = []
    for age, one in enumerate(history.alike(run.method, run.task.name, run.train_tissue, device)):
        if run.budget.epochs == 0 or one.budget.epochs == 0:  # a released model that is applied as it is
            if run.budget.epochs == one.budget.epochs:
                scaled.append((0.0, age, one.other_s))
            continue
        ratio = _ratio(run.budget, n_train, one.budget, one.n_train_images)
        gpus = max(one.num_gpus, 1.0) / max(run.resources.num_gpus, 1.0) if one.device != CPU else 1.0
        scaled.append((abs(math.log(ratio)), age, one.train_s * ratio * gpus + one.other_s))
    scaled.sort()
    return statistics.median(seconds for _, _, seconds in scaled[:_NEAREST]) if scaled else None


def _from_profile(run: Run, history: History, device: str | None) -> float | None:
    on_cpu = device == CPU or run.resources.num_gpus == 0
    profile = history.profiles.of(run, CPU if on_cpu else device)
    if profile is None or "predict" not in profile.windows_per_s:
        return None
    seconds = _FIXED_S + _tested(run, history) / profile.windows_per_s["predict"]
    if not get_card(run.method).trained or run.budget.epochs == 0:
        return seconds
    n_train = _windows(run, history.sizes) or round(_UNKNOWN_WINDOWS * _share(run, history.sizes))
    images = _images(run.budget, n_train)
    if "train" not in profile.windows_per_s or images is None:
        return None
    together = 1.0 if on_cpu else max(run.resources.num_gpus, 1.0)
    return seconds + images / profile.windows_per_s["train"] / together


def _ratio(budget: Budget, n_train: int | None, other: Budget, other_n_train: int | None) -> float:
    """Return how many times the images of another budget are seen; without sizes, by epochs or iterations alone."""
    ours, theirs = _images(budget, n_train), _images(other, other_n_train)
    if ours and theirs:
        return ours / theirs
    length, other_length = budget.epochs or budget.iterations, other.epochs or other.iterations
    return length / other_length if length and other_length else 1.0


def _images(budget: Budget, n_train: int | None) -> float | None:
    """Return the training images seen over a whole budget; None where that needs a size that is not known."""
    if budget.iterations is not None:
        return float(budget.iterations * budget.batch_size)
    if budget.epochs is None:
        return None
    if budget.steps_per_epoch is not None:
        return float(budget.epochs * budget.steps_per_epoch * budget.batch_size)
    return float(budget.epochs * n_train) if n_train else None


def _tested(run: Run, history: History) -> int:
    """Return the test windows of a run's dataset, or TissueNet's where they are not known."""
    return history.test_windows.get(run.fingerprint or "", _TEST_WINDOWS)


def _windows(run: Run, sizes: Sizes) -> int | None:
    if run.fingerprint is None:
        return None
    windows = sizes.get((run.fingerprint, run.train_tissue))
    return None if windows is None else max(1, round(windows * run.share))


@functools.lru_cache(maxsize=4)
def _hours_by_task(published: tuple[PublishedScore, ...]) -> Mapping[tuple[str, str, str], float]:
    return {(one.method, one.task, one.train_tissue): one.hours for one in published if one.hours}


def _published_hours(run: Run, sizes: Sizes, published: tuple[PublishedScore, ...]) -> float | None:
    hours = _hours_by_task(published)
    card = get_card(run.method)
    own = hours.get((run.method, run.task.name, run.train_tissue))
    found = own or hours.get((run.method, run.task.name, ALL_TISSUES))
    if found is None or not card.trained or run.budget.epochs == 0:
        return None
    # equal sizes on both sides: only the change of the budget, the share of the data is counted below
    ratio = _ratio(run.budget, 1, card.budget, 1)
    if (run.budget.steps_per_epoch is None) != (card.budget.steps_per_epoch is None):
        ratio = _ratio(Budget(1, run.budget.epochs), None, Budget(1, card.budget.epochs), None)
    passes = run.budget.epochs is not None and run.budget.steps_per_epoch is None
    share = _share(run, sizes) if own is None and passes else 1.0
    return found * ratio * share


def _share(run: Run, sizes: Sizes) -> float:
    """Return which part of the dataset's training windows the run is trained on."""
    if run.train_tissue == ALL_TISSUES:
        return run.share
    ours = _windows(run, sizes)
    whole = sizes.get((run.fingerprint, ALL_TISSUES)) if run.fingerprint is not None else None
    if ours and whole:
        return ours / whole
    return 1.0 / _STUDY_TISSUES.get(run.task.dataset, 1)


def _from_family(run: Run, history: History, device: str | None) -> float:
    card = get_card(run.method)
    rate = _RATES.get(card.family, _UNKNOWN_FAMILY)
    on_cpu = device == CPU or run.resources.num_gpus == 0
    predict = _tested(run, history) * (rate.predict_cpu if on_cpu else rate.predict_gpu)
    if not card.trained:
        return _FIXED_S + predict
    sizes = history.sizes
    images = _images(run.budget, _windows(run, sizes) or round(_UNKNOWN_WINDOWS * _share(run, sizes))) or 0.0
    train = images * (rate.train_cpu if on_cpu else rate.train_gpu / max(run.resources.num_gpus, 1.0))
    return _FIXED_S + predict + train
