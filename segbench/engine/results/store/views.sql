-- The views, made anew whenever the store is opened for writing.

-- One row a run of a grid: its finished attempt, else its latest. What predicts or scores again is in runs_again.
create or replace view runs_latest as
select * exclude (place)
from (
    select *, row_number() over (partition by run_id order by status = 'done' desc, attempt desc) as place
    from attempts
    where of_run is null
)
where place = 1;

-- One row an attempt that predicted or scored again what a run has left, with the settings it had, its scores on its own task
-- (pooled, without post-operation) and the run's first ones.
create or replace view runs_again as
select
    again.run_id, again.stage, again.of_run, again.of_attempt, again.method, again.task, again.train_tissue, again.seed,
    again.status, again.error, again.settings, again.segbench_version, again.git_commit, again.started_at,
    scored.map, scored.ap50, scored.ap75, scored.ar, scored.ar50, scored.ar75,
    earlier.map as first_map, earlier.ap50 as first_ap50, earlier.ap75 as first_ap75, earlier.ar as first_ar,
    earlier.ar50 as first_ar50, earlier.ar75 as first_ar75
from attempts as again
left join evaluations as scored
    on scored.run_id = again.run_id and scored.test_task = again.task and scored.test_tissue = 'all'
    and scored.operation = 'none'
left join evaluations as earlier
    on earlier.run_id = again.of_run and earlier.test_task = again.task and earlier.test_tissue = 'all'
    and earlier.operation = 'none'
where again.of_run is not null;

-- One row a finished run: seconds a phase, and the standardised running time
-- T x B/8 x 50/E for epochs, T x B/8 x 50N/(I x B) for iterations (B batch, E epochs, I iterations, N training images).
create or replace view timings as
with seconds as (
    select
        run_id,
        attempt,
        max(seconds) filter (phase = 'wait') as wait_s,
        max(seconds) filter (phase = 'environment') as environment_s,
        max(seconds) filter (phase = 'data') as data_s,
        max(seconds) filter (phase = 'import') as import_s,
        max(seconds) filter (phase = 'load') as load_s,
        max(seconds) filter (phase = 'train') as train_s,
        max(seconds) filter (phase = 'calibrate') as calibrate_s,
        max(seconds) filter (phase = 'save') as save_s,
        max(seconds) filter (phase = 'predict') as predict_s,
        max(seconds) filter (phase = 'evaluate') as evaluate_s
    from phases
    group by run_id, attempt
)
select
    runs.run_id, runs.method, runs.method_title, runs.task, runs.train_tissue, runs.seed, runs.train_images,
    runs.category = 'control' as control, runs.batch_size, runs.epochs, runs.iterations, runs.n_train_images, runs.num_cpus, runs.num_gpus, runs.gpu_names,
    seconds.* exclude (run_id, attempt),
    coalesce(seconds.load_s, 0) + seconds.train_s as load_train_s,
    runs.step_s,
    case
        when not runs.trained then 0
        when runs.epochs > 0 then train_s * batch_size / 8 * 50 / epochs
        when runs.iterations > 0 then train_s * batch_size / 8 * 50 * n_train_images / (iterations * batch_size)
    end as standardised_s,
    coalesce(train_s, 0) / 3600 * runs.num_gpus as gpu_hours
from runs_latest as runs
join seconds using (run_id, attempt)
where runs.status = 'done';

-- Every evaluation of a finished run with its context; accuracy is the mean of mAP, AP50, AP75, AR50 and AR75.
create or replace view accuracy as
select
    runs.run_id, runs.method, runs.method_title, runs.task, runs.dataset, runs.dataset_kind, runs.target,
    runs.n_channels, runs.train_tissue, runs.seed, runs.train_images, runs.category = 'control' as control,
    scored.test_task, scored.test_tissue, scored.operation, scored.radius,
    scored.map, scored.ap50, scored.ap75, scored.ar, scored.ar50, scored.ar75,
    (scored.map + scored.ap50 + scored.ap75 + scored.ar50 + scored.ar75) / 5 as accuracy,
    scored.n_images, scored.n_truth, scored.n_predictions
from runs_latest as runs
join evaluations as scored using (run_id)
where runs.status = 'done';

-- Cell metrics other than COCO's, a row a run, test task and tissue ('all' is pooled): F1 and AP = TP/(TP+FP+FN) at IoU 0.5
-- and 0.75, panoptic quality, aggregated Jaccard index, SEG, splits and merges. A value is null where it divides by zero.
-- Recall as the study's text has it, the mean over images (windows with a true cell): ar_per_image (over IoU 0.50 to 0.95),
-- ar50_per_image and ar75_per_image; COCO's ar, ar50 and ar75 of the table evaluations pool the cells of all images.
create or replace view cell_metrics as
with sums as (
    select
        run_id, test_task, coalesce(tissue, 'all') as test_tissue,
        sum(n_truth) as n_truth, sum(n_predictions) as n_predictions, sum(tp_50) as tp_50, sum(tp_75) as tp_75,
        sum(pq_matches) as pq_matches, sum(pq_iou) as pq_iou, sum(aji_intersection) as aji_intersection,
        sum(aji_union) as aji_union, sum(seg) as seg, sum(splits) as splits, sum(merges) as merges,
        avg(tp_50 / nullif(n_truth, 0)) as ar50_per_image, avg(tp_75 / nullif(n_truth, 0)) as ar75_per_image,
        avg(
            (tp_50 + tp_55 + tp_60 + tp_65 + tp_70 + tp_75 + tp_80 + tp_85 + tp_90 + tp_95) / nullif(10 * n_truth, 0)
        ) as ar_per_image
    from images
    group by grouping sets ((run_id, test_task, tissue), (run_id, test_task))
)
select
    runs.run_id, runs.method, runs.method_title, runs.task, runs.train_tissue, runs.seed, sums.test_task, sums.test_tissue,
    n_truth, n_predictions,
    2 * tp_50 / nullif(n_truth + n_predictions, 0) as f1_50,
    2 * tp_75 / nullif(n_truth + n_predictions, 0) as f1_75,
    tp_50 / nullif(n_truth + n_predictions - tp_50, 0) as tp_fp_fn_50,
    tp_75 / nullif(n_truth + n_predictions - tp_75, 0) as tp_fp_fn_75,
    2 * pq_iou / nullif(n_truth + n_predictions, 0) as panoptic_quality,
    aji_intersection / nullif(aji_union, 0) as aggregated_jaccard,
    seg / nullif(n_truth, 0) as seg,
    splits, merges, ar_per_image, ar50_per_image, ar75_per_image
from sums
join runs_latest as runs using (run_id)
where runs.status = 'done';

-- The methods of each task and training tissue, best first: scored on their own task, pooled over all test tissues,
-- without post-operation, averaged over seeds. Neither controls nor runs on a part of the training images are among them.
create or replace view leaderboard as
with scored as (
    select
        accuracy.task,
        accuracy.train_tissue,
        accuracy.method,
        any_value(accuracy.method_title) as method_title,
        avg(accuracy.accuracy) as accuracy,
        avg(accuracy.map) as map,
        avg(accuracy.ap50) as ap50,
        avg(accuracy.ap75) as ap75,
        avg(accuracy.ar) as ar,
        avg(accuracy.ar50) as ar50,
        avg(accuracy.ar75) as ar75,
        avg(timings.train_s) as train_s,
        avg(timings.standardised_s) as standardised_s,
        count(*) as runs
    from accuracy
    left join timings using (run_id)
    where accuracy.train_images is null and not accuracy.control
        and accuracy.test_task = accuracy.task
        and accuracy.test_tissue = 'all'
        and accuracy.operation = 'none'
    group by accuracy.task, accuracy.train_tissue, accuracy.method
)
select
    task, train_tissue,
    rank() over (partition by task, train_tissue order by accuracy desc nulls last) as place,
    * exclude (task, train_tissue)
from scored
order by task, train_tissue, place, method;

-- The controls of each task: what the truth itself, the truth of other images and cells by chance score on it, over seeds.
create or replace view controls as
select
    task, dataset, target, n_channels, test_tissue, method as control, any_value(method_title) as title,
    avg(accuracy) as accuracy, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar) as ar, avg(ar50) as ar50,
    avg(ar75) as ar75, max(n_truth) as n_truth, count(*) as runs
from accuracy
where control and test_task = task and operation = 'none'
group by all
order by task, test_tissue, control;
