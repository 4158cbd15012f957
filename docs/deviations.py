"""Writes deviations.md: where each method differs from the study and from upstream: python docs/deviations.py."""

from __future__ import annotations

from pathlib import Path

from segbench.engine.grid.cards import get_card
from segbench.engine.study.methods import STUDY_METHODS
from segbench.methods.deviations import deviations

_COLUMNS = ("| what | here | study or upstream | why | under |", "| --- | --- | --- | --- | --- |")
_HEAD = """\
# Deviations

Where the study's eighteen methods differ here from its paper and scripts, and from upstream's configurations.
`recipe: study` in a grid file (`--recipe study`, and the preset `paper` by itself) sets all that settings can set;
`recipe: cells` is what finds cells best. The column `under` says where a row holds: rows of `cells` are gone under
`study`. Numbers in brackets (R14, C22) are those of the study's own contradictions.
`segbench methods show NAME --deviations` shows one method's; this page is written by `python docs/deviations.py`.
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for name in sorted(STUDY_METHODS):
        card = get_card(name)
        parts.append(
            f"## {card.title}\n\n| what | here | study or upstream | why | under |\n| --- | --- | --- | --- | --- |"
        )
        parts[-1] += "".join(
            f"\n| {one.what} | {one.here} | {one.there} | {one.why} | {one.recipe} |" for one in deviations(card)
        )
        parts[-1] += "\n"
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
