"""Every analysis by its name, with the function that answers it and the options that people can set."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError, unknown_name

if TYPE_CHECKING:
    from segbench.analysis.result import Result
    from segbench.analysis.source import Source


@dataclass(frozen=True)
class Option:
    """One choice that an analysis leaves to people: a keyword of its function, an option of its command."""

    name: str
    """The keyword."""
    about: str
    """What it means, in a few words."""
    default: Any = None
    """The function's own."""
    type: type = str
    """Of one value: str, float, int or Path."""
    flags: tuple[str, ...] = ()
    """On the command line; the name with hyphens where empty."""
    many: bool = False
    """Several values, each given by its own flag."""
    pairs: str = ""
    """For a mapping, what is given for each entry, such as ``COMPONENT=NUMBER``; empty for what is no mapping."""
    none_flag: str = ""
    """A flag that stands for no value at all, where the default has some."""
    required: bool = False
    positional: bool = False
    """Given on the command line without a flag."""


@dataclass(frozen=True)
class Analysis:
    """A question to the store."""

    name: str
    """On the command line; in Python with an underscore for the hyphen."""
    home: str
    """``module:function`` in this package; the function takes a `Source` and the options."""
    about: str
    """What it answers, in one sentence."""
    options: tuple[Option, ...] = ()
    parts: tuple[str, ...] = ()
    """Names of its further tables."""

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the options without a default."""
        return tuple(option.name for option in self.options if option.required)

    def ask(self, source: Source, options: Mapping[str, Any]) -> Result:
        """Return the answer; options that it has not or lacks raise SegbenchError."""
        known = [option.name for option in self.options]
        for name in options:
            if name not in known:
                raise unknown_name(f"option of {self.name}", name, known)
        missing = [name for name in self.required if name not in options]
        if missing:
            raise SegbenchError(f"{self.name} needs {' and '.join(missing)}")
        module, function = self.home.split(":")
        # Imported when asked for: SciPy and statsmodels take a second
        answer: Result = getattr(importlib.import_module(f"segbench.analysis.{module}"), function)(source, **options)
        return answer


def _metric(default: str = "accuracy") -> Option:
    about = "accuracy (mean of five), map, ap50, ap75, ar, ar50 or ar75."
    return Option("metric", about, default, flags=("--metric",))


ANALYSES: Mapping[str, Analysis] = {
    analysis.name: analysis
    for analysis in (
        Analysis(
            "ranking",
            "ranking:rank_methods",
            "Rank the methods by accuracy, usability and scalability, with rank intervals and the Pareto front.",
            (
                Option(
                    "weights",
                    "COMPONENT=NUMBER: usability, scalability, accuracy or a task; 0 leaves it out.",
                    type=float,
                    flags=("--weight", "-w"),
                    pairs="COMPONENT=NUMBER, such as usability=0",
                ),
                Option("usability", "CSV of raw usability scores (see 'analyze usability').", type=Path),
            ),
            ("components", "accuracy", "pairs", "friedman", "differences", "stability", "rounding"),
        ),
        Analysis(
            "runtime",
            "runtime:measure_runtime",
            "Show training times, standardised times, GPU hours and scalability.",
            (Option("watts", "Power of one busy GPU, for the energy; none is measured.", type=float),),
            ("scalability", "fits"),
        ),
        Analysis(
            "usability",
            "usability:score_usability",
            "Score how usable methods are: code maintenance, ease of use, hardware support.",
            (
                Option(
                    "scores",
                    "CSV: method, code_maintenance, ease_of_use, hardware_support (1 to 10), source.",
                    type=Path,
                ),
            ),
        ),
        Analysis(
            "channels",
            "channels:compare_channels",
            "Compare two channels with one: the gain per method and tissue, with intervals, and its price in time.",
            (_metric(),),
        ),
        Analysis(
            "morphology",
            "morphology:describe_tissues",
            "Show what each tissue is made of: training images, cell size, elongation, convexity.",
        ),
        Analysis(
            "regression",
            "regression:fit_regressions",
            "Fit what makes a tissue hard: training images, cell size and elongation, per method and task.",
            (
                _metric("map"),
                Option(
                    "exclude",
                    "Tissue to leave out; may be given again. Lung, Spleen.",
                    ("Lung", "Spleen"),
                    flags=("--exclude", "-x"),
                    many=True,
                    none_flag="--exclude-none",
                ),
            ),
            ("points",),
        ),
        Analysis(
            "transfer",
            "transfer:measure_transfer",
            "Show how models of one training tissue do on every tissue.",
            (_metric(),),
            ("transferability", "best", "order"),
        ),
        Analysis(
            "training-data",
            "transfer:recommend_training_data",
            "Recommend what to train on to segment a tissue.",
            (
                Option("tissue", "What is to be segmented, such as Breast.", required=True, positional=True),
                Option("task", "Such as tissuenet-wholecell-2ch.", required=True, flags=("--task", "-t")),
                _metric(),
            ),
            ("guideline",),
        ),
        Analysis(
            "learning-curve",
            "learning_curve:fit_learning_curves",
            "Fit how the score grows with the training images, and show from how many on more stop to pay.",
            (
                _metric(),
                Option("gain", "Annotating twice as much pays while it brings at least so much.", 0.01, type=float),
            ),
            ("fits",),
        ),
        Analysis(
            "robustness",
            "robustness:measure_robustness",
            "Show how much of each method's score is left on degraded test images, and one number a method.",
            (_metric(),),
            ("methods",),
        ),
        Analysis(
            "modality",
            "modality:compare_modalities",
            "Compare models of nuclear images on whole-cell images, and back, with models of the same modality.",
            (_metric(),),
        ),
        Analysis(
            "dilation",
            "dilation:measure_dilation",
            "Show how far to dilate nuclei into cells, and to erode cells into nuclei.",
            (_metric("map"), Option("fixed_um", "Radius in micrometres to judge; Xenium uses 15.", 15.0, type=float)),
            ("curves",),
        ),
        Analysis(
            "diagnosis",
            "diagnosis:diagnose_runs",
            "Show what a lost point is made of: missed, split, merged, spurious cells, loose outlines; with bias and "
            "calibration.",
            (Option("metric", "ap50, ap75 or map.", "ap50", flags=("--metric",)),),
            ("cells", "calibration", "bias", "experts"),
        ),
        Analysis(
            "recommend",
            "recommend:recommend_methods",
            "Recommend a method for a tissue, channels and a budget; from the published scores where there are no "
            "results.",
            (
                Option("tissue", "What is to be segmented; 'all' for nothing in particular.", "all", positional=True),
                Option("target", "wholecell (or cell, the same) or nuclear; by default what the results are of."),
                Option("channels", "Channels that your images have.", type=int, flags=("--channels", "-c")),
                Option("images", "fluorescence or phase; by default what the results are of."),
                Option("dataset", "Use the scores of this dataset only.", flags=("--dataset", "-d")),
                Option("gpu_hours", "GPU hours that training may take.", type=float),
                Option("gpus", "GPUs that you have: 0, 1, ...", type=int),
                _metric(),
            ),
            ("guideline", "leads"),
        ),
    )
}
"""Every analysis, by its name on the command line."""


def analyse(name: str, source: Source, **options: Any) -> Result:
    """Return the answer of one analysis.

    Parameters
    ----------
    name
        One of `ANALYSES`.
    source
        Where the rows are.
    options
        Those of the analysis, by keyword; its defaults where not given.

    Raises
    ------
    SegbenchError
        For an unknown name or option, one that is missing, and as the analysis's own function.
    """
    if name not in ANALYSES:
        raise unknown_name("analysis", name, ANALYSES)
    return ANALYSES[name].ask(source, options)
