-- What the gap of each run's score on its own task is made of; of a run that was scored again, as the newest time found it. Runs
-- trained on all tissues, one row a run and test tissue.
, told as (
    select coalesce(of_run, run_id) as run_id, run_id as told_by
    from attempts
    where status = 'done' and (of_run is null or stage = 'evaluate') and run_id in (select run_id from gaps)
    qualify row_number() over (partition by coalesce(of_run, run_id) order by started_at desc, run_id) = 1
)
select
    runs.suite, runs.dataset, runs.task, runs.method, runs.method_title as title, runs.seed, runs.run_id,
    gaps.test_tissue, gaps.metric, gaps.score, gaps.gap, gaps.missed, gaps.split, gaps.merged, gaps.spurious, gaps.loose
from runs
left join told using (run_id)
left join gaps on gaps.run_id = told.told_by and gaps.test_task = runs.task and gaps.metric = $1
where runs.train_tissue = 'all'
order by suite, dataset, task, method, seed, test_tissue
