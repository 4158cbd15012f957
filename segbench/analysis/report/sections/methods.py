"""Methods: the card of every method."""

from __future__ import annotations

import polars as pl

from segbench.analysis.report.model import Content, Figure, Frame, Missing, Section, Source, Table
from segbench.analysis.report.sections._filling import always
from segbench.engine.grid.cards import all_cards
from segbench.methods.card import Budget, Card


def _build(source: Source) -> Content | Missing:
    runs = dict(source.query("select method, count(*) from runs_latest where status = 'done' group by method").rows())
    cards = all_cards()
    table = pl.DataFrame([_row(card, runs.get(name, 0)) for name, card in cards.items()], infer_schema_length=None)
    frame = Frame(
        "methods",
        table.sort("runs_here", "title", descending=[True, False]),
        "segbench methods list",
        {"method": ("method",)},
    )
    ran = [card for name, card in cards.items() if runs.get(name)]
    return Content(
        frames=(frame,),
        figures=(
            Figure(
                kind="bars",
                frame="methods",
                title="Usability, by the study's composite of maintenance, ease of use and hardware support",
                alt="Each method's usability composite between 0 and 1, where the study gives one.",
                x="usability",
                y="title",
                x_title="usability",
                range=(0, 1),
            ),
        ),
        tables=(Table("methods", title="Cards"),),
        template="methods.html.j2",
        context={"cards": ran, "budget": _budget},
    )


def _row(card: Card, runs: int) -> dict[str, str | int | float | None]:
    return {
        "method": card.name,
        "title": card.title,
        "runs_here": runs,
        "category": card.category,
        "family": card.family,
        "environment": card.environment,
        "trained": "yes" if card.trained else "no",
        "attention": "yes" if card.attention else "no",
        "published_budget": _budget(card.budget),
        "usability": card.usability.composite,
        "score_rule": card.score_rule,
        "libraries": ", ".join(card.libraries),
        "licence": card.licence,
        "paper": card.paper,
        "url": card.url,
    }


def _budget(budget: Budget) -> str:
    if budget.epochs is not None:
        return f"{budget.epochs} epochs at batch {budget.batch_size}"
    if budget.iterations is not None:
        return f"{budget.iterations:,} iterations at batch {budget.batch_size}"
    return "not trained"


SECTION = Section(
    key="methods",
    title="Methods",
    about="What each method is, where it comes from, and the budget that the study published for it.",
    fill=always("This segbench knows no method.", "segbench methods list"),
    build=_build,
)
