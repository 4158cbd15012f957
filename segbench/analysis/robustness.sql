-- One row a finished run, kind and step of degraded test images with its score on its own task (pooled), and that of the images
-- as they are on the same part of the windows; of what was told more than once, the latest.
with telling as (
    select
        again.run_id as told_by, runs.run_id, runs.method, runs.method_title as title, runs.task, runs.train_tissue, runs.seed,
        again.started_at
    from attempts as again
    join runs_latest as runs on runs.run_id = coalesce(again.of_run, again.run_id)
    where again.status = 'done' and runs.train_images is null
),
scored as (
    select *, (map + ap50 + ap75 + ar50 + ar75) / 5 as accuracy
    from degraded_evaluations
    where test_tissue = 'all'
)
select
    telling.* exclude (started_at), worse.kind, worse.step, worse.amount,
    worse.accuracy, worse.map, worse.ap50, worse.ap75, worse.ar, worse.ar50, worse.ar75,
    part.run_id is not null as of_part,
    coalesce(part.accuracy, clean.accuracy) as clean_accuracy, coalesce(part.map, clean.map) as clean_map,
    coalesce(part.ap50, clean.ap50) as clean_ap50, coalesce(part.ap75, clean.ap75) as clean_ap75,
    coalesce(part.ar, clean.ar) as clean_ar, coalesce(part.ar50, clean.ar50) as clean_ar50,
    coalesce(part.ar75, clean.ar75) as clean_ar75
from telling
join scored as worse on worse.run_id = telling.told_by and worse.test_task = telling.task and not worse.clean
join scored as clean on clean.run_id = telling.told_by and clean.test_task = telling.task and clean.kind = 'none'
left join scored as part
    on part.run_id = worse.run_id and part.test_task = worse.test_task and part.kind = worse.kind and part.step = worse.step
    and part.clean
qualify telling.started_at = max(telling.started_at) over (partition by telling.run_id, worse.kind)
order by telling.task, telling.method, telling.train_tissue, worse.kind, worse.step, telling.seed
