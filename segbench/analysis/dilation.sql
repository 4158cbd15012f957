-- Nuclei dilated and scored against whole cells, and whole cells eroded and scored against nuclei: one row a method, pair of
-- tasks, test tissue and radius (pixels), of models trained on all tissues, over seeds. Radius 0 is the plain prediction
-- scored on the other target.
, sizes as (
    select dataset_fingerprint, tissue, max(pixel_size_um) as pixel_size_um
    from tissues
    group by all
),
points as (
    select
        *,
        case when operation <> 'none' then operation when target = 'nuclear' then 'dilate' else 'erode' end as direction
    from scored
    where train_tissue = 'all' and test_task <> task and layout = 'tissuenet'
),
curves as (
    select
        suite, dataset, method, any_value(method_title) as title, task, test_task, direction as operation, test_tissue, radius,
        any_value(pixel_size_um) as pixel_size_um,
        avg(accuracy) as accuracy, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar) as ar, avg(ar50) as ar50,
        avg(ar75) as ar75, count(*) as runs, max(n_images) as n_images
    from points
    left join sizes on sizes.dataset_fingerprint = points.dataset_fingerprint and sizes.tissue = points.test_tissue
    group by all
)
select *
from curves
qualify max(radius) over (partition by task, test_task, method, operation) > 0
order by suite, dataset, task, test_task, method, operation, test_tissue, radius
