"""The documentation's examples do what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.engine.results.record import Record
from segbench.engine.results.store import StoreWriter, query

ROOT = Path(__file__).parent.parent
QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "schema.md").read_text(), re.DOTALL)


def test_there_are_example_queries() -> None:
    assert len(QUERIES) >= 5


@pytest.mark.parametrize("sql", QUERIES)
def test_an_example_query_runs_and_finds_something(
    sql: str, tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    lung = make_record().evaluations[0].model_copy(update={"test_tissue": "lung"})
    done = make_record(settings={"flow_threshold": 0.4}, versions={"stardist": "0.9.2"})
    StoreWriter(tmp_path).add(
        [
            done.model_copy(update={"evaluations": [*done.evaluations, lung]}),
            make_record("b" * 12, status="failed", error="killed", log_tail="the end"),
        ]
    )
    assert query(tmp_path, sql).height > 0


def test_every_table_and_view_is_documented(tmp_path: Path) -> None:
    StoreWriter(tmp_path)
    found = query(tmp_path, "select table_name from information_schema.tables where table_schema = 'main'")
    text = (ROOT / "docs" / "schema.md").read_text()
    assert {name for name in found["table_name"] if f"| `{name}` |" not in text} == {"migrations"}
