-- One row a task, method, seed and resample of the test images, of methods trained on all tissues.
, sound as (
    select
        runs.suite, runs.task, runs.method, runs.seed, resamples.resample,
        (resamples.map + resamples.ap50 + resamples.ap75 + resamples.ar50 + resamples.ar75) / 5 as accuracy
    from resamples
    join runs using (run_id)
    where runs.train_tissue = 'all' and resamples.test_task = runs.task
)
select suite, task, method, seed, resample, avg(accuracy) as accuracy
from sound
where accuracy between 0 and 1
group by all
order by suite, task, method, seed, resample
