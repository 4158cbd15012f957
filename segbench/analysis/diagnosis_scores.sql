-- How often predictions of a score are right; a row a run, test tissue and range of scores.
, told as (
    select coalesce(of_run, run_id) as run_id, run_id as told_by
    from attempts
    where status = 'done' and (of_run is null or stage = 'evaluate') and run_id in (select run_id from calibration)
    qualify row_number() over (partition by coalesce(of_run, run_id) order by started_at desc, run_id) = 1
)
select
    runs.suite, runs.dataset, runs.task, runs.method, runs.method_title as title, runs.run_id,
    bins.test_tissue, bins.bin, bins.low, bins.high, bins.n, bins.mean_score, bins.correct
from runs
join told using (run_id)
join calibration as bins on bins.run_id = told.told_by and bins.test_task = runs.task
where runs.train_tissue = 'all'
order by suite, dataset, task, method, seed, test_tissue, bin
