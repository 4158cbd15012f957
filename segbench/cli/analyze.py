"""``segbench analyze``: the study's tables and figures from a results folder, or from the published scores."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli._common import DEFAULT_OUT, Format, FormatOption, OutOption, print_table

if TYPE_CHECKING:
    from segbench.analysis.result import Result
    from segbench.analysis.source import Source

app = typer.Typer(
    help="Turn results into answers: which method, what makes a tissue hard, what to train on.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


class Store(enum.StrEnum):
    """Where an analysis reads."""

    RESULTS = "results"
    PUBLISHED = "published"


StoreOption = Annotated[
    Store, typer.Option("--store", "-s", help="The results folder, or the published scores of 18 methods.")
]
PartOption = Annotated[
    str | None, typer.Option("--part", "-p", help="Print this further table of the analysis instead of the main one.")
]
MetricOption = Annotated[
    str, typer.Option("--metric", "-m", help="accuracy (mean of five), map, ap50, ap75, ar, ar50 or ar75.")
]


@app.command()
def ranking(
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    part: PartOption = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            "--weight", "-w", help="COMPONENT=NUMBER: usability, scalability, accuracy or a task; 0 leaves it out."
        ),
    ] = None,
    usability: Annotated[
        Path | None, typer.Option("--usability", help="CSV of raw usability scores (see 'analyze usability').")
    ] = None,
) -> None:
    """Rank the methods by accuracy, usability and scalability, with rank intervals and the Pareto front.

    Parts: components, friedman, differences.
    """
    from segbench.analysis.ranking import rank_methods
    from segbench.analysis.usability import read_usability, score_usability, usability_of

    source = _source(out, store)
    given = None
    if usability is not None:
        given = usability_of(score_usability(source, scores=read_usability(usability)))
    _show(rank_methods(source, weights=_weights(weight or []), usability=given), format, part)


@app.command()
def runtime(
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    part: PartOption = None,
    watts: Annotated[
        float | None, typer.Option("--watts", help="Power of one busy GPU, for the energy; none is measured.")
    ] = None,
) -> None:
    """Show training times, standardised times, GPU hours and scalability. Parts: scalability, fits."""
    from segbench.analysis.runtime import measure_runtime

    _show(measure_runtime(_source(out, store), watts=watts), format, part)


@app.command()
def usability(
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores", help="CSV: method, code_maintenance, ease_of_use, hardware_support (1 to 10), source."
        ),
    ] = None,
) -> None:
    """Score how usable methods are: code maintenance, ease of use, hardware support."""
    from segbench.analysis.usability import read_usability, score_usability

    raw = None if scores is None else read_usability(scores)
    _show(score_usability(_source(out, store), scores=raw), format)


@app.command()
def channels(
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    metric: MetricOption = "accuracy",
) -> None:
    """Compare two channels with one: the gain per method and tissue, with intervals, and its price in time."""
    from segbench.analysis.channels import compare_channels

    _show(compare_channels(_source(out, store), metric=metric), format)


@app.command()
def morphology(
    out: OutOption = DEFAULT_OUT, store: StoreOption = Store.RESULTS, format: FormatOption = Format.TABLE
) -> None:
    """Show what each tissue is made of: training images, cell size, elongation, convexity."""
    from segbench.analysis.morphology import describe_tissues

    _show(describe_tissues(_source(out, store)), format)


@app.command()
def regression(
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    part: PartOption = None,
    metric: MetricOption = "map",
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", "-x", help="Tissue to leave out; may be given again. Lung, Spleen.")
    ] = None,
    exclude_none: Annotated[bool, typer.Option("--exclude-none", help="Leave no tissue out.")] = False,
) -> None:
    """Fit what makes a tissue hard: training images, cell size and elongation, per method and task. Parts: points."""
    from segbench.analysis.regression import EXCLUDED, fit_regressions
    from segbench.errors import SegbenchError

    if exclude_none and exclude:
        raise SegbenchError("--exclude and --exclude-none contradict each other: give one")
    left_out = () if exclude_none else tuple(exclude or EXCLUDED)
    _show(fit_regressions(_source(out, store), metric=metric, exclude=left_out), format, part)


@app.command()
def transfer(
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    part: PartOption = None,
    metric: MetricOption = "accuracy",
) -> None:
    """Show how models of one training tissue do on every tissue. Parts: transferability, best, order."""
    from segbench.analysis.transfer import measure_transfer

    _show(measure_transfer(_source(out, store), metric=metric), format, part)


@app.command("training-data")
def training_data(
    tissue: Annotated[str, typer.Argument(help="What is to be segmented, such as Breast.")],
    task: Annotated[str, typer.Option("--task", "-t", help="Such as tissuenet-wholecell-2ch.")],
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    metric: MetricOption = "accuracy",
) -> None:
    """Recommend what to train on to segment a tissue."""
    from segbench.analysis.transfer import recommend_training_data

    _show(recommend_training_data(_source(out, store), tissue=tissue, task=task, metric=metric), format)


@app.command()
def modality(
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    metric: MetricOption = "accuracy",
) -> None:
    """Compare models of nuclear images on whole-cell images, and back, with models of the same modality."""
    from segbench.analysis.modality import compare_modalities

    _show(compare_modalities(_source(out, store), metric=metric), format)


@app.command()
def dilation(
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    part: PartOption = None,
    metric: MetricOption = "map",
    fixed_um: Annotated[
        float, typer.Option("--fixed-um", help="Radius in micrometres to judge; Xenium uses 15.")
    ] = 15.0,
) -> None:
    """Show how far to dilate nuclei into cells, and to erode cells into nuclei. Parts: curves."""
    from segbench.analysis.dilation import measure_dilation

    _show(measure_dilation(_source(out, store), metric=metric, fixed_um=fixed_um), format, part)


@app.command()
def recommend(
    tissue: Annotated[str, typer.Argument(help="What is to be segmented; 'all' for nothing in particular.")] = "all",
    target: Annotated[str, typer.Option("--target", help="wholecell or nuclear.")] = "wholecell",
    channels: Annotated[int | None, typer.Option("--channels", "-c", help="Channels that your images have.")] = None,
    images: Annotated[str, typer.Option("--images", help="fluorescence or phase.")] = "fluorescence",
    gpu_hours: Annotated[float | None, typer.Option("--gpu-hours", help="GPU hours that training may take.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", help="GPUs that you have: 0, 1, ...")] = None,
    out: OutOption = DEFAULT_OUT,
    store: StoreOption = Store.RESULTS,
    format: FormatOption = Format.TABLE,
    metric: MetricOption = "accuracy",
) -> None:
    """Recommend a method for a tissue, channels and a budget; from the published scores where there are no results."""
    from segbench.analysis.recommend import recommend_methods
    from segbench.analysis.source import Source
    from segbench.engine.results.store import store_path

    empty = store is Store.RESULTS and not store_path(out).is_file()
    source = Source.of_published() if empty else _source(out, store)
    if empty:
        _warn(f"there are no results in {out}: this is answered from {source.label}")
    result = recommend_methods(
        source,
        tissue=tissue,
        target=target,
        channels=channels,
        images=images,
        gpu_hours=gpu_hours,
        gpus=gpus,
        metric=metric,
    )
    _show(result, format)


def _source(out: Path, store: Store) -> Source:
    from segbench.analysis.source import Source

    return Source.of_published() if store is Store.PUBLISHED else Source.of_results(out)


def _weights(given: list[str]) -> dict[str, float]:
    from segbench.errors import SegbenchError

    weights: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            raise SegbenchError(f"--weight takes COMPONENT=NUMBER, such as usability=0, found {text!r}") from None
    return weights


def _show(result: Result, format: Format, part: str | None = None) -> None:
    """Print the table and, for people, what it says; warnings go to standard error whatever the format."""
    table = result.table if part is None else result.part(part)
    if format is Format.TABLE:
        # A person has the name that commands take, and no use for a column in which nothing stands
        empty = [
            name
            for name in table.columns
            if table.height and table[name].cast(str, strict=False).fill_null("").eq("").all()
        ]
        table = table.drop(["title", *empty], strict=False)
    print_table(table, format, title=f"{result.name}{'' if part is None else f', {part}'}: {result.source}")
    if format is Format.TABLE:
        for sentence in result.findings:
            typer.echo(f"- {sentence}")
    for sentence in result.warnings:
        _warn(sentence)


def _warn(sentence: str) -> None:
    typer.secho(f"note: {sentence}", fg=typer.colors.YELLOW, err=True)
