-- What became of the true cells, by size and density, and how large they are predicted; a row a run, test tissue and stratum.
, told as (
    select coalesce(of_run, run_id) as run_id, run_id as told_by
    from attempts
    where status = 'done' and (of_run is null or stage = 'evaluate') and run_id in (select run_id from cell_strata)
    qualify row_number() over (partition by coalesce(of_run, run_id) order by started_at desc, run_id) = 1
)
select
    runs.suite, runs.dataset, runs.task, runs.method, runs.method_title as title, runs.run_id,
    cells.* exclude (run_id, attempt, test_task)
from runs
join told using (run_id)
join cell_strata as cells on cells.run_id = told.told_by and cells.test_task = runs.task
where runs.train_tissue = 'all'
order by suite, dataset, task, method, seed, parted_by, test_tissue, stratum
