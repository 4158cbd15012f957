-- Nuclei dilated and scored against whole cells, and whole cells eroded and scored against nuclei: one row a method, pair of
-- tasks, test tissue and radius (pixels), of models trained on all tissues, over seeds. Radius 0 is a row
-- of the sweep too; rows without an operation are predictions on the other target's images, which is another thing.
, sizes as (
    select dataset_fingerprint, tissue, max(pixel_size_um) as pixel_size_um
    from tissues
    group by all
),
curves as (
    select
        suite, dataset, method, any_value(method_title) as title, task, test_task, operation, test_tissue, radius,
        any_value(pixel_size_um) as pixel_size_um,
        avg(accuracy) as accuracy, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar) as ar, avg(ar50) as ar50,
        avg(ar75) as ar75, count(*) as runs, max(n_images) as n_images
    from scored
    left join sizes on sizes.dataset_fingerprint = scored.dataset_fingerprint and sizes.tissue = scored.test_tissue
    where train_tissue = 'all' and test_task <> task and layout = 'tissuenet' and operation in ('dilate', 'erode')
    group by all
)
select *
from curves
qualify max(radius) over (partition by task, test_task, method, operation) > 0
order by suite, dataset, task, test_task, method, operation, test_tissue, radius
