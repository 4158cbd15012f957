-- Other metrics of the methods trained on all tissues, pooled over the test set and averaged over seeds: a row a task and method.
, coco as (
    select
        suite, task, method, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar50) as ar50, avg(ar75) as ar75
    from scored
    where train_tissue = 'all' and test_task = task and test_tissue = 'all' and operation = 'none'
    group by all
),
pooled as (
    select
        runs.task, runs.method, runs.run_id, sum(n_truth) as n_truth, sum(n_predictions) as n_predictions, sum(tp_50) as tp_50,
        sum(pq_iou) as pq_iou, sum(aji_intersection) as aji_intersection, sum(aji_union) as aji_union
    from images
    join runs on runs.run_id = images.run_id and runs.task = images.test_task
    where runs.train_tissue = 'all'
    group by all
),
cells as (
    select
        task, method, avg(2 * tp_50 / nullif(n_truth + n_predictions, 0)) as f1_50,
        avg(2 * pq_iou / nullif(n_truth + n_predictions, 0)) as panoptic_quality,
        avg(aji_intersection / nullif(aji_union, 0)) as aggregated_jaccard
    from pooled
    group by all
)
select coco.*, cells.* exclude (task, method)
from coco
left join cells using (task, method)
order by suite, task, method
