"""Where an analysis gets its rows: a results folder's store, or the published table under the same view names."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from segbench.analysis.undertrained import MARK, find_undertrained
from segbench.engine.grid.cards import get_card
from segbench.engine.results import store
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import opening
from segbench.engine.study import scores as published
from segbench.engine.study.tissues import ALL_TISSUES, LIVECELL_CHANNELS, TISSUENET_CHANNELS, TISSUENET_TARGETS
from segbench.errors import SegbenchError


@dataclass(frozen=True)
class Health:
    """What a reader must know of the rows behind any analysis."""

    runs: int
    """Finished runs."""
    warnings: tuple[str, ...]
    """One sentence for each thing that could mislead whatever is computed from these rows."""
    hardware: tuple[str, ...]
    """One sentence where training times come from different hardware; for analyses of time."""


class Source:
    """Answers SQL over the store's tables and views; made by ``of_results`` or ``of_published``."""

    def __init__(
        self,
        label: str,
        ask: Callable[[str, Sequence[Any]], pl.DataFrame],
        *,
        published: bool,
        folder: ResultsFolder | None = None,
    ) -> None:
        self.label = label
        """Named in captions and warnings: ``results in DIR``, ``the published scores``."""
        self.published = published
        """True for the published table."""
        self.folder = folder
        """The results folder that is read, where that is what is read."""
        self._ask = ask

    @classmethod
    def of_results(cls, out: ResultsFolder) -> Source:
        """Return the source that reads the store of a results folder; it is opened for each question only."""
        return cls(f"the results in {out}", functools.partial(store.query, out), published=False, folder=out)

    @classmethod
    def of_published(cls) -> Source:
        """Return the source that answers from the published scores of 18 methods (138 models)."""
        return cls("the published scores", _published_query(), published=True)

    @property
    def empty(self) -> bool:
        """True where a results folder has no store yet."""
        return self.folder is not None and not self.folder.has_store()

    def frame(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the rows of one query; raises SegbenchError where the store cannot be read."""
        return self._ask(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the rows of an analysis's query, with the titles of undertrained methods marked."""
        return self.mark(self.frame(sql, parameters))

    def mark(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a frame with ``(undertrained)`` behind the titles of methods whose runs were not trained to the end.

        A method is marked in a suite where a run on all tissues was not, or where it has none, any other.

        Parameters
        ----------
        frame
            Columns method and title or method_title; of all suites where it has no column suite.
        """
        title = next((name for name in ("title", "method_title") if name in frame.columns), None)
        if title is None or "method" not in frame.columns or not self._marked.height or not frame.height:
            return frame
        keys = ["suite", "method"] if "suite" in frame.columns else ["method"]
        known = self._marked.select(*keys, pl.lit(MARK).alias("mark")).unique()
        marked = frame.join(known, on=keys, how="left", maintain_order="left")
        return marked.with_columns(pl.col(title) + pl.col("mark").fill_null("")).drop("mark")

    def with_reasons(self, frame: pl.DataFrame, *keys: str, train_tissue: str | None = None) -> pl.DataFrame:
        """Return a frame with the column ``undertrained``: why runs of equal ``keys`` were not trained to the end."""
        runs = self.undertrained
        if train_tissue is not None:
            runs = runs.filter(pl.col("train_tissue") == train_tissue)
        reasons = runs.group_by(keys).agg(pl.col("undertrained").unique(maintain_order=True).str.join("; "))
        return frame.join(reasons, on=keys, how="left", maintain_order="left")

    @property
    def undertrained(self) -> pl.DataFrame:
        """The runs that were not trained to the end: run_id, suite, method, task, train_tissue, seed, and why."""
        return self._trained.drop_nulls("undertrained")

    @functools.cached_property
    def _trained(self) -> pl.DataFrame:
        if self.published or self.empty:
            return find_undertrained(pl.DataFrame())
        return find_undertrained(self.frame(read_sql("undertrained")))

    @functools.cached_property
    def _marked(self) -> pl.DataFrame:
        on_all = pl.col("train_tissue") == ALL_TISSUES
        decisive = self._trained.filter(on_all | ~on_all.any().over("suite", "method"))
        return decisive.drop_nulls("undertrained").select("suite", "method").unique()

    def health(self) -> Health:
        """Return what is to be known of the rows before anything is computed from them; asked once."""
        return self._health

    @functools.cached_property
    def _health(self) -> Health:
        row = self.frame(read_sql("health")).row(0, named=True)
        warnings: list[str] = []
        if not row["runs"]:
            hint = "" if self.published else ": run 'segbench grid launch' first, or ask --store published"
            warnings.append(f"there is no finished run in {self.label}{hint}")
        if row["parts"]:
            warnings.append(
                f"{row['parts']} runs on a part of the training images are left out: see 'segbench analyze "
                "learning-curve'"
            )
        if row["unsound"]:
            warnings.append(f"{row['unsound']} evaluations hold a metric outside 0..1; such metrics count as missing")
        if row["several_versions"]:
            warnings.append(f"several versions of one dataset are averaged: {', '.join(row['several_versions'])}")
        if row["several_settings"]:
            shown = row["several_settings"]
            more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
            warnings.append(
                "runs of one method with different settings, budgets or data are averaged: "
                f"{', '.join(shown[:3])}{more}"
            )
        warnings += self._on_training()
        hardware: list[str] = []
        if len(row["gpu_kinds"] or []) > 1:
            hardware.append(f"training times come from different GPUs: {'; '.join(row['gpu_kinds'])}")
        if row["mixed_hardware"]:
            hardware.append("some training times come from GPUs and some from CPUs")
        return Health(int(row["runs"]), tuple(warnings), tuple(hardware))

    def _on_training(self) -> list[str]:
        found = self.undertrained
        if not found.height:
            return []
        whose = found.select("method", "undertrained").unique(maintain_order=True)
        shown = [f"{method} ({reason})" for method, reason in whose.head(3).iter_rows()]
        more = f" and {whose.height - 3} more" if whose.height > 3 else ""
        return [
            f"{found.height} of {self._trained.height} trained runs were not trained to the end, and are marked: "
            f"{', '.join(shown)}{more}"
        ]


def read_sql(name: str) -> str:
    """Return an analysis's SQL, whole: the shared beginning (``context.sql``) and its own file."""
    package = importlib.resources.files("segbench.analysis")
    return (package / "context.sql").read_text().rstrip() + "\n" + (package / f"{name}.sql").read_text()


def _published_query() -> Callable[[str, Sequence[Any]], pl.DataFrame]:
    import duckdb

    connection = opening.in_memory()
    engine = importlib.resources.files("segbench.engine.results.store")
    for script in sorted((engine / "migrations").iterdir(), key=lambda item: item.name):
        if script.name.endswith(".sql"):
            connection.execute(script.read_text())
    connection.execute((engine / "views.sql").read_text())
    connection.register("published", pl.DataFrame(_published_rows(), infer_schema_length=None).to_arrow())
    connection.execute((importlib.resources.files("segbench.analysis.published") / "views.sql").read_text())

    def ask(sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        try:
            # there is no read-only database in memory
            kinds = {statement.type for statement in connection.extract_statements(sql)}
            if kinds - {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}:
                raise SegbenchError("the published scores cannot be changed: write a select")
            relation = connection.sql(sql, params=list(parameters))
            if relation is None:
                raise SegbenchError("the query returns nothing: write a select")
            return store.as_frame(relation)
        except duckdb.Error as error:
            raise SegbenchError(opening.one_line(error, 2)) from None

    return ask


def _published_rows() -> list[dict[str, Any]]:
    rows = []
    for number, score in enumerate(published.scores()):
        dataset, target, *channels = score.task.split("-")
        card = get_card(score.method)
        names: tuple[str, ...]
        if dataset == "livecell":
            names = LIVECELL_CHANNELS
        elif channels == ["2ch"]:
            names = TISSUENET_CHANNELS
        else:
            names = (TISSUENET_CHANNELS[TISSUENET_TARGETS.index(target)],)
        rows.append(
            {
                "run_id": f"published-{number:03d}",
                "method": score.method,
                "method_title": card.title,
                "trained": card.trained,
                "attention": card.attention,
                "category": card.category,
                "family": card.family,
                "task": score.task,
                "dataset": dataset,
                "target": target,
                "channels": list(names),
                "n_channels": len(names),
                "train_tissue": score.train_tissue,
                "accuracy": score.accuracy,
                "usability": score.usability,
                "hours": score.hours,
            }
        )
    return rows
