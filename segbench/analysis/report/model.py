"""The nouns of the report: frames of data, figures that show them, tables behind them, sections that hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segbench.analysis.report.snapshot import Snapshot
from segbench.analysis.source import Source as AnalysisSource
from segbench.engine.results.folder import ResultsFolder

if TYPE_CHECKING:
    import polars as pl

METRICS: Mapping[str, str] = {
    "accuracy": "Accuracy",
    "map": "mAP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ar": "AR",
    "ar50": "AR50",
    "ar75": "AR75",
}
"""The metrics that the reader can choose, with their names; accuracy is the mean of mAP, AP50, AP75, AR50 and AR75."""

METRIC = "@metric"
"""Stands in a figure for the column of the metric that the reader has chosen."""
METRIC_NAME = "@metric"
"""Stands in a figure's ``where`` for the chosen metric's name, for frames with a row a metric."""
TRAINED_ON = "@train"
"""Stands in a figure's ``where`` for the training tissue that the reader has chosen."""


ORDERED: Mapping[str, str] = {
    "method_title": "method",
    "title": "method",
    "test_tissue": "tissue",
    "train_tissue": "tissue",
    "tissue": "tissue",
    "of": "tissue",
}
"""Which of the report's two orders a column's names stand in, the same in every figure."""


@dataclass(frozen=True)
class Frame:
    """Rows that are embedded once and that any figure or table can use."""

    name: str
    """Unique in the report; also the name of the CSV file."""
    data: pl.DataFrame
    """Scalar columns; other columns are shown as text."""
    source: str
    """The SQL that made it, or the command that prints it."""
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Which columns each global filter (``method``, ``task``, ``tissue``, ``train``) acts on."""


@dataclass(frozen=True)
class Figure:
    """What a figure shows, without saying how it is drawn: the page draws by Plotly, ``segbench plot`` to a file."""

    kind: Literal["heatmap", "bars", "dots", "scatter", "lines"]
    """``heatmap``: ``value`` over ``x`` and ``y``. ``bars``: length ``x`` of each ``y``, stacked by ``group``.
    ``dots``: ``x`` of each ``y``, a mark a ``group``. ``scatter``: a point a row. ``lines``: ``y`` over ``x``, a line
    a ``group``."""
    frame: str
    """The frame's name."""
    title: str
    """Short; stands above the figure."""
    alt: str
    """What a reader who does not see the figure must know."""
    x: str
    """A column, or METRIC."""
    y: str
    """A column, or METRIC."""
    value: str | None = None
    """The heat map's column, or METRIC."""
    group: str | None = None
    """The column that gives colour and mark."""
    facet: str | None = None
    """The column that splits the figure into small multiples."""
    where: Mapping[str, str | int | tuple[str | int, ...]] = field(default_factory=dict)
    """Only rows with these values (one of several, where a tuple is given)."""
    x_title: str = ""
    y_title: str = ""
    log_x: bool = False
    log_y: bool = False
    value_title: str = ""
    """Name of the heat map's value; titles may be METRIC, for the chosen metric's name."""
    low: str | None = None
    """For ``dots`` and ``lines``: the column of the lower end of an interval, in the measure's unit."""
    high: str | None = None
    """The column of its upper end."""
    label: str | None = None
    """For ``scatter``: the column with the text at each point's hover."""
    range: tuple[float, float] | None = None
    """Limits of the value (heat map's colours) or of the measure's axis."""
    diverging: bool = False
    """Heat maps: colours on both sides of zero."""
    text: str | None = None
    """For ``heatmap``: the column whose text stands in the cells, instead of the value."""
    whole: bool = False
    """The measure is a whole number: shown without decimals."""
    relative: bool = False
    """For ``lines``: each line as a share of its first value, for measures that cannot be compared."""
    best: bool = False
    """For ``lines``: a ring at each line's greatest value."""
    front: bool = False
    """For ``scatter``: a line through the points that none beats both to the left and above."""
    unit: Literal["", "seconds"] = ""
    """Of the measure along the x axis: seconds are told as seconds to days."""
    signed: bool = False
    """For ``dots``: the measure is a change, told with its sign and set against zero."""
    pick: bool = False
    """For ``heatmap``: a cell shows its row with the greatest value, with that row's text."""
    reference: str = ""
    """For ``bars``: a frame with the facet's column, ``title`` and every metric, whose values are drawn as lines."""
    lacking: str = ""
    """Why rows that are there may have no value, where it is not that the test data hold no cells."""


@dataclass(frozen=True)
class Table:
    """A view on a frame: sortable, filterable, downloadable."""

    frame: str
    columns: tuple[str, ...] = ()
    """In order; all where empty."""
    title: str = ""
    where: Mapping[str, str | int | tuple[str | int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """What a section holds when there are data for it."""

    sentence: str = ""
    """What the page has no sentence of its own for; it makes the others from what its figures show."""
    findings: tuple[str, ...] = ()
    """What holds of all results, whatever the reader has chosen; what is to be seen in the figures, the page tells."""
    warnings: tuple[str, ...] = ()
    """What limits the figures, for all results."""
    frames: tuple[Frame, ...] = ()
    """Frames that this section brings; a frame that another brought under the same name is kept once."""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    template: str | None = None
    """A Jinja2 template of the section's own, drawn above its figures."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """What that template reads."""
    data: Mapping[str, Any] | None = None
    """Plain data for the section's own script (the examples)."""


@dataclass(frozen=True)
class Missing:
    """Why a section has nothing to show."""

    reason: str = ""
    """In one sentence, made from the data."""
    commands: tuple[str, ...] = ()
    """What to run, exactly as it stands, to fill it for these data; none where nothing would."""


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    key: str
    """Its name in the URL's fragment and for ``--sections``."""
    title: str
    about: str
    """What is shown, in one sentence that holds for any data."""
    fill: Callable[[Source], Missing]
    """Says what would bring data for it where there are none."""
    build: Callable[[Source], Content | Missing]
    """Asks the store."""
    optional: bool = False
    """Left out where it has nothing to show and was not asked for."""


class Source:
    """What sections read: the store of a results folder as it was when the report was begun.

    Parameters
    ----------
    out
        The results folder.
    compare
        Another results folder, or a store's file of any name, to show beside it.
    published
        Whether the published scores are shown beside the user's.
    """

    def __init__(self, out: ResultsFolder, compare: Path | None = None, published: bool = False) -> None:
        self.out = out
        self.compare = compare
        self.published = published
        self._snapshot = Snapshot(out)
        self._other = Snapshot(compare) if compare else None
        self.answers = AnalysisSource("these results", self.query, published=False)
        """The same store, as the analyses ask it."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the rows of a read-only query over the store."""
        return self._snapshot.query(sql, parameters)

    def marked(self, sql: str) -> pl.DataFrame:
        """Return the rows of a query, with the titles of methods marked whose runs were not trained to the end."""
        return self.answers.mark(self.query(sql))

    def query_other(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame | None:
        """Return the rows of a query over the store that is compared with; None where there is none."""
        return self._other.query(sql, parameters) if self._other else None

    @cached_property
    def order(self) -> dict[str, list[str]]:
        """Methods (by title) and tissues as they stand in every figure: by falling mean accuracy on own tasks."""
        return {
            "method": self.query(METHOD_ORDER_SQL)["method_title"].to_list(),
            "tissue": self.query(TISSUE_ORDER_SQL)["test_tissue"].to_list(),
        }

    @cached_property
    def scores(self) -> Frame:
        """Every evaluation without post-operation, one row a (run, test task, test tissue)."""
        return Frame("scores", self.marked(SCORES_SQL), SCORES_SQL, filters=ROW_FILTERS)

    @cached_property
    def leaderboard(self) -> Frame:
        """The methods of each task and training tissue, best first."""
        sql = "select * from leaderboard"
        filters = {"method": ("method",), "task": ("task",), "train": ("train_tissue",)}
        return Frame("leaderboard", self.marked(sql), sql, filters)

    @cached_property
    def timings(self) -> Frame:
        """One row a finished run with the seconds of its phases."""
        sql = (
            "select * from timings where train_images is null and not coalesce(control, false) "
            "order by task, train_tissue, method, seed"
        )
        filters = {"method": ("method",), "task": ("task",), "train": ("train_tissue",)}
        return Frame("timings", self.marked(sql), sql, filters)


ROW_FILTERS = {"method": ("method",), "task": ("task",), "tissue": ("test_tissue",)}
SCORES_SQL = """\
select
    run_id, method, method_title, task, train_tissue, seed, test_task, test_tissue,
    (test_task = task)::tinyint as own_task, accuracy, map, ap50, ap75, ar, ar50, ar75, n_images, n_truth, n_predictions
from accuracy
where operation = 'none' and train_images is null and not coalesce(control, false)
order by task, train_tissue, method, seed, test_task, test_tissue"""

# Models of all tissues where there are any: single tissues' scores say more of the tissue than of the method
METHOD_ORDER_SQL = """\
with scored as (
    select method_title, task, avg(accuracy) filter (train_tissue = 'all') as every, avg(accuracy) as any_tissue
    from leaderboard
    group by all
)
select method_title
from (select distinct method_title from runs_latest)
left join (
    select method_title, avg(coalesce(every, any_tissue)) as mean from scored group by all
) using (method_title)
order by mean desc nulls last, lower(method_title), method_title"""
TISSUE_ORDER_SQL = """\
with scored as (
    select test_tissue, avg(accuracy) filter (train_tissue = 'all') as every, avg(accuracy) as any_tissue
    from accuracy
    where test_task = task and operation = 'none' and test_tissue <> 'all'
        and train_images is null and not coalesce(control, false)
    group by all
)
select test_tissue
from scored
order by coalesce(every, any_tissue) desc nulls last, test_tissue"""
