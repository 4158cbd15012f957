"""``segbench sql``: a read-only query over the store."""

from __future__ import annotations

from typing import Annotated

import typer

from segbench.cli._common import DEFAULT_OUT, Format, FormatOption, OutOption, WideOption, print_table


def sql(
    query: Annotated[str, typer.Argument(help="One SQL query, in DuckDB's dialect.")],
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Ask the store anything; it cannot be changed this way. It works while a grid runs, too.

    Tables: attempts, phases, evaluations, whole_evaluations, gaps, cell_strata, calibration,
    degraded_evaluations, history, tissues. Views: leaderboard, accuracy, accuracy_by_evaluation, timings, runs_latest.

    Examples:

      segbench sql "select * from leaderboard"

      segbench sql "select method, test_tissue, ap50 from accuracy where train_tissue = 'all'" --format csv
    """
    from segbench.analysis.results import Results

    print_table(Results(out).query(query), format)
