"""What scoring tells of a run fits into the store, whatever there is to tell."""

from __future__ import annotations

import numpy as np
import pytest

from segbench.engine.metrics.diagnosis import diagnose_labels
from segbench.engine.run.rows import calibration_rows, gap_rows, stratum_rows


@pytest.mark.parametrize("true", [0, 1, 3])
@pytest.mark.parametrize("found", [0, 1, 3])
def test_every_row_of_a_diagnosis_is_one_of_the_store(true: int, found: int) -> None:
    maps = np.zeros((2, 2, 40, 40), np.int32)
    for which, n in enumerate((true, found)):
        for cell in range(n):
            maps[which, 0, 12 * cell : 12 * cell + 9, : 8 + cell] = cell + 1
    diagnosis = diagnose_labels(list(maps[0]), list(maps[1]), groups=["a", "b"])
    rows = stratum_rows(diagnosis, "task")
    assert {row.test_tissue for row in rows} == {"all", "a", "b"}
    assert [row.n_truth for row in rows if (row.test_tissue, row.parted_by) == ("all", "all")] == [true]
    assert len(gap_rows(diagnosis, "task")) == len(diagnosis.gap_rows)
    assert len(calibration_rows(diagnosis, "task")) == len(diagnosis.calibration_rows)
