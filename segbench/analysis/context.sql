-- What every analysis starts from: the finished runs with their place in a suite, and their evaluations with sound metrics.
-- Controls and runs on a part of the training images compare with no method: they have analyses of their own.
-- A suite is a set of datasets that are ranked together: the study's two, the two synthetic ones, or one folder dataset.
with runs as (
    select
        run_id, method, method_title, usability, trained, task, dataset, dataset_kind, dataset_fingerprint, target,
        n_channels, train_tissue, seed, batch_size, epochs, iterations, n_train_images, num_cpus, num_gpus,
        array_to_string(gpu_names, ', ') as gpus,
        case
            when dataset_kind = 'synthetic' then 'synthetic'
            when dataset_kind in ('tissuenet', 'livecell') then 'study'
            else dataset
        end as suite,
        -- What a task is decides, not what its channels are called: its target, how many channels, and whether the
        -- one channel shows unstained cells (LIVECell's) or fluorescence (TissueNet's: nuclei or whole cells, one or two)
        case
            when dataset_kind = 'livecell'
                or (n_channels = 1 and regexp_matches(lower(channels[1]), '^(phase|bright.?field|dic|transmitted)'))
            then 'livecell'
            when n_channels > 2 then 'other'
            else 'tissuenet'
        end as layout,
        case when target = 'cell' then 'wholecell' else target end as object
    from runs_latest
    where status = 'done' and category <> 'control' and train_images is null
),
-- A metric outside 0..1 (COCO writes -1 where there is no truth) is no measurement: it becomes null. NaN is above every number
scored as (
    select
        runs.*,
        accuracy.test_task, accuracy.test_tissue, accuracy.operation, accuracy.radius,
        case
            when accuracy.accuracy between 0 and 1
                and coalesce(least(map, ap50, ap75, ar50, ar75) >= 0 and greatest(map, ap50, ap75, ar50, ar75) <= 1, true)
            then accuracy.accuracy
        end as accuracy,
        case when map between 0 and 1 then map end as map,
        case when ap50 between 0 and 1 then ap50 end as ap50,
        case when ap75 between 0 and 1 then ap75 end as ap75,
        case when ar between 0 and 1 then ar end as ar,
        case when ar50 between 0 and 1 then ar50 end as ar50,
        case when ar75 between 0 and 1 then ar75 end as ar75,
        n_images
    from accuracy
    join runs using (run_id)
)
