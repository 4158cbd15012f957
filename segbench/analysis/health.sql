-- What a reader must know of the rows behind any analysis: how many runs, metrics that are none, and things that differ
-- within what is averaged.
, unsound as (
    select count(*) as n
    from accuracy
    where not coalesce(
        least(map, ap50, ap75, ar, ar50, ar75) >= 0 and greatest(map, ap50, ap75, ar, ar50, ar75) <= 1, true
    )
),
versions as (
    select dataset
    from runs
    group by dataset
    having count(distinct dataset_fingerprint) > 1
),
settings as (
    select runs.method, runs.task
    from runs
    join runs_latest using (run_id)
    group by runs.method, runs.task, runs.train_tissue
    having count(distinct (
        runs.dataset_fingerprint, settings::varchar, runs.batch_size, runs.epochs, runs.iterations, method_revision
    )) > 1
)
select
    (select count(*) from runs) as runs,
    (select count(*) from runs_latest where status = 'done' and train_images is not null) as parts,
    (select n from unsound) as unsound,
    (select list(dataset order by dataset) from versions) as several_versions,
    (select list(distinct method || ' on ' || task order by method || ' on ' || task) from settings) as several_settings,
    (select list(distinct gpus order by gpus) from runs where trained and gpus <> '') as gpu_kinds,
    (select bool_or(num_gpus > 0) and bool_or(num_gpus = 0) from runs where trained) as mixed_hardware
