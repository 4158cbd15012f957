"""Running time: the standardised formulas, the three scalability inputs, and growth with the training set."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from scipy import stats

from segbench.analysis.runtime import measure_runtime
from segbench.analysis.source import Source
from segbench.errors import SegbenchError

NUCLEAR, BOTH, CELLS, PHASE = (
    "tissuenet-nuclear-1ch",
    "tissuenet-nuclear-2ch",
    "tissuenet-wholecell-1ch",
    "livecell-wholecell",
)


def test_epochs_and_iterations_are_standardised_to_batch_8_and_50_epochs(results: Any) -> None:
    results.run("epochs", NUCLEAR, 0.5, train_s=100, batch_size=16, epochs=25, num_gpus=2)
    # 1000 iterations of 4 images over 200 images are 20 epochs
    results.run("iterations", NUCLEAR, 0.5, train_s=100, batch_size=4, epochs=None, iterations=1000, n_train_images=200)
    results.run("untrained", NUCLEAR, 0.5, train_s=3, trained=False, epochs=None)
    rows = {row["method"]: row for row in measure_runtime(results.source(), watts=300).table.iter_rows(named=True)}
    assert rows["epochs"]["standardised_s"] == pytest.approx(100 * 16 / 8 * 50 / 25)
    assert rows["iterations"]["standardised_s"] == pytest.approx(100 * 4 / 8 * 50 * 200 / (1000 * 4))
    assert rows["untrained"]["standardised_s"] == 0
    assert rows["epochs"]["gpu_hours"] == pytest.approx(200 / 3600)
    assert rows["epochs"]["energy_kwh"] == pytest.approx(200 / 3600 * 0.3)
    assert rows["epochs"]["train_s"] == 100


def test_energy_is_not_known_without_a_power(results: Any) -> None:
    results.run("a", NUCLEAR, 0.5, num_gpus=1)
    source = results.source()
    assert measure_runtime(source).table["energy_kwh"].to_list() == [None]
    with pytest.raises(SegbenchError, match="positive number"):
        measure_runtime(source, watts=0)


def test_the_three_inputs_are_means_over_channels(results: Any) -> None:
    for method, hours in (("a", (1, 3, 5, 7)), ("b", (2, 4, 6, 8))):
        for task, h in zip((NUCLEAR, BOTH, CELLS, PHASE), hours, strict=True):
            results.run(method, task, 0.5, train_s=h * 3600)
    scalability = measure_runtime(results.source()).part("scalability")
    assert scalability.row(0, named=True) == {
        "suite": "study",
        "method": "a",
        "title": "A",
        "nuclei_h": 2.0,
        "wholecell_h": 5.0,
        "livecell_h": 7.0,
        "scalability": pytest.approx(stats.norm.cdf(1)),
    }


def test_a_missing_task_leaves_its_input_and_the_scalability_open(results: Any) -> None:
    results.run("a", NUCLEAR, 0.5)
    results.run("a", BOTH, 0.5)
    results.run("b", NUCLEAR, 0.5)
    scalability = measure_runtime(results.source()).part("scalability")
    assert scalability.filter(pl.col("method") == "b").select("nuclei_h", "scalability").row(0) == (None, None)


def test_growth_with_the_training_set_is_fitted(results: Any) -> None:
    for tissue, n in (("all", 1000), ("Breast", 200), ("Colon", 100)):
        results.run("line", NUCLEAR, 0.5, train_tissue=tissue, n_train_images=n, train_s=10 + 0.5 * n)
        results.run("square", NUCLEAR, 0.5, train_tissue=tissue, n_train_images=n, train_s=n**2)
    results.run("two", NUCLEAR, 0.5, train_tissue="Breast", n_train_images=5)
    results.run("two", NUCLEAR, 0.5, n_train_images=10)
    fits = {row["method"]: row for row in measure_runtime(results.source()).part("fits").iter_rows(named=True)}
    assert set(fits) == {"line", "square"}
    line = fits["line"]
    assert (line["seconds_per_image"], line["intercept_s"], line["r2"]) == pytest.approx((0.5, 10, 1))
    assert (line["runs"], line["n_min"], line["n_max"]) == (3, 100, 1000)
    assert fits["square"]["exponent"] == pytest.approx(2)


def test_the_published_hours_are_the_tables(published: Source) -> None:
    result = measure_runtime(published)
    row = result.table.filter(
        (pl.col("method") == "cellpose") & (pl.col("task") == CELLS) & (pl.col("train_tissue") == "all")
    ).row(0, named=True)
    assert (row["hours"], row["train_s"], row["gpu_hours"]) == (9.0, None, None)
    swin = result.part("scalability").filter(pl.col("method") == "swin-s").row(0, named=True)
    assert (swin["nuclei_h"], swin["wholecell_h"], swin["livecell_h"]) == (25, 30.5, 28)
