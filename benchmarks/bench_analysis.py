"""Times every analysis on a generated store of a million evaluations: the full grid, seven seeds, all post-operations.

Run: python benchmarks/bench_analysis.py [--seeds 7] [--limit-s 2]. Exits with 1 where an analysis takes
longer than the limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from segbench.analysis import ANALYSES, analyse
from segbench.analysis.source import Source
from segbench.analysis.transfer import recommend_training_data
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import StoreWriter
from segbench.engine.study.tissues import LIVECELL_TISSUES, TISSUENET_TISSUES

FILL = """
create temp table tasks as from (values
    ('tissuenet-nuclear-1ch', 'tissuenet', 'nuclear', 1, ['nuclear'], 'tissuenet-wholecell-1ch', 'dilate', 20),
    ('tissuenet-nuclear-2ch', 'tissuenet', 'nuclear', 2, ['nuclear', 'membrane'],
        'tissuenet-wholecell-2ch', 'dilate', 20),
    ('tissuenet-wholecell-1ch', 'tissuenet', 'wholecell', 1, ['membrane'], 'tissuenet-nuclear-1ch', 'erode', 10),
    ('tissuenet-wholecell-2ch', 'tissuenet', 'wholecell', 2, ['nuclear', 'membrane'],
        'tissuenet-nuclear-2ch', 'erode', 10),
    ('livecell-wholecell', 'livecell', 'wholecell', 1, ['phase'], null, null, 0)
) as tasks(task, dataset, target, n_channels, channels, other, operation, radii);

create temp table names as
select 'tissuenet' as dataset, unnest($tissuenet::varchar[]) as tissue
union all select 'livecell', unnest($livecell::varchar[]);

create temp table wanted as
select
    md5(concat_ws('/', method, task, tissue, seed))[:12] as run_id, method, tissue as train_tissue, seed, tasks.*
from (select 'method-' || lpad(m::varchar, 2, '0') as method from range(18) r(m)), range($seeds) s(seed), tasks
join names using (dataset);

insert into attempts by name
select
    run_id, 1 as attempt, 'done' as status, method, upper(method) as method_title, 1 as method_revision, 'f' as family,
    'e' as environment, 'c' as category, true as trained, false as attention, 0.5 as usability, task, dataset,
    dataset as dataset_kind, dataset || '-1' as dataset_fingerprint, channels, n_channels, target, train_tissue, seed,
    '{}' as settings, 8 as batch_size, 50 as epochs, 100 + hash(train_tissue) % 900 as n_train_images, '{}' as versions,
    '0' as segbench_version, 'h' as host, 1 as num_cpus, ['A100'] as gpu_names, 1 as num_gpus, now() as started_at,
    now() as ended_at, run_id as folder
from wanted;

insert into phases
select run_id, 1, phase, 3600 * random() from wanted, (values ('train'), ('load'), ('predict'), ('evaluate')) p(phase);

insert into evaluations by name
with tests as (
    select *, task as test_task, 'none' as op, 0 as radius from wanted
    union all
    select *, other, 'none', 0 from wanted where other is not null
    union all
    select wanted.*, other, operation, unnest(range(radii + 1)) from wanted where other is not null
)
select
    run_id, 1 as attempt, test_task, names.tissue as test_tissue, op as operation, radius, random() as map,
    random() as ap50, random() as ap75, random() as ar, random() as ar50, random() as ar75, 50 as n_images,
    900 as n_truth, 900 as n_predictions
from tests join names using (dataset);

insert into resamples
select run_id, 1, task, draw, random(), random(), random(), random(), random(), random()
from wanted, range(200) draws(draw) where train_tissue = 'all';

insert into tissues
select
    dataset || '-1', dataset, split, target, tissue, 20 + (900 * random())::integer, 5000, 80 + 300 * random(),
    random(), random(), 0.5
from (select distinct dataset, target from tasks) join names using (dataset),
    (values ('train'), ('val'), ('test')) s(split);
"""


def fill(out: Path, seeds: int) -> int:
    """Fill a store with the full grid; return its number of evaluations."""
    StoreWriter(ResultsFolder(out))
    parameters = {"tissuenet": ["all", *TISSUENET_TISSUES], "livecell": ["all", *LIVECELL_TISSUES], "seeds": seeds}
    with duckdb.connect(ResultsFolder(out).store) as connection:
        connection.execute("select setseed(0.5)")
        for statement in FILL.split(";\n"):
            if statement.strip():
                used = {name: value for name, value in parameters.items() if f"${name}" in statement}
                connection.execute(statement, used)
        row = connection.execute("select count(*) from evaluations").fetchone()
    assert row is not None
    return int(row[0])


def main() -> None:
    """Fill a store, then time every analysis: the first call, and the median of three more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--limit-s", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        print(f"{fill(out, options.seeds):,} evaluations")
        slowest = 0.0
        tasks = {
            name: lambda source, name=name: analyse(name, source) for name, one in ANALYSES.items() if not one.required
        }
        tasks["training-data"] = lambda source: recommend_training_data(
            source, tissue="Breast", task="tissuenet-wholecell-2ch"
        )
        print(f"{'analysis':<14} {'first s':>8} {'median s':>9} {'rows':>8}")
        for name, task in tasks.items():
            times = []
            for _ in range(4):
                start = time.perf_counter()
                # A source of its own each time: nothing is remembered from one question to the next
                result = task(Source.of_results(ResultsFolder(out)))
                times.append(time.perf_counter() - start)
            slowest = max(slowest, times[0])
            print(f"{name:<14} {times[0]:>8.2f} {statistics.median(times[1:]):>9.2f} {result.table.height:>8}")
        print(f"slowest first call, imports included: {slowest:.2f} s; limit {options.limit_s} s")
        sys.exit(slowest > options.limit_s)


if __name__ == "__main__":
    main()
