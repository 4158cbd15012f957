-- One row a method, task and test tissue (models trained on all tissues, over seeds), with the tissue's training images
-- (split train) and the mean shape of its test cells.
, scores as (
    select
        suite, dataset, dataset_fingerprint, layout, task, target, method, any_value(method_title) as title,
        test_tissue as tissue,
        avg(accuracy) as accuracy, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar) as ar, avg(ar50) as ar50,
        avg(ar75) as ar75
    from scored
    where train_tissue = 'all' and test_task = task and test_tissue <> 'all' and operation = 'none'
    group by all
),
shapes as (
    select
        dataset_fingerprint, target, tissue,
        max(n_images) filter (split = 'train') as n_train_images,
        max(area) filter (split = 'test') as area,
        max(elongation) filter (split = 'test') as elongation
    from tissues
    group by all
)
select scores.*, shapes.n_train_images, shapes.area, shapes.elongation
from scores
left join shapes using (dataset_fingerprint, target, tissue)
order by suite, dataset, task, method, dataset_fingerprint, tissue
