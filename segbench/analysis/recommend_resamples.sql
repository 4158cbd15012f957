-- One row a task, method, seed and resample of the test images, of methods trained on all tissues for a purpose ($1: wholecell or
-- nuclear, $2: the most channels, $3: unstained cells or not).
select
    runs.task, runs.method, runs.seed, resample, resamples.map, ap50, ap75, ar, ar50, ar75,
    (resamples.map + ap50 + ap75 + ar50 + ar75) / 5 as accuracy
from resamples
join runs using (run_id)
where runs.train_tissue = 'all' and test_task = runs.task and object = $1::varchar and n_channels <= $2::integer
    and (layout = 'livecell') = $3::boolean
order by runs.task, runs.method, runs.seed, resample
