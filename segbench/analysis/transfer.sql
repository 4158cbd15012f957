-- Training tissue against test tissue, on the model's own task, over seeds; trained methods with two or more training tissues.
, cells as (
    select
        suite, dataset, layout, task, target, n_channels, method, any_value(method_title) as title, train_tissue, test_tissue,
        avg(accuracy) as accuracy, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar) as ar, avg(ar50) as ar50,
        avg(ar75) as ar75, stddev_samp(accuracy) as accuracy_sd, stddev_samp(map) as map_sd, stddev_samp(ap50) as ap50_sd,
        stddev_samp(ap75) as ap75_sd, stddev_samp(ar) as ar_sd, stddev_samp(ar50) as ar50_sd, stddev_samp(ar75) as ar75_sd,
        count(*) as runs, count(distinct seed) as seeds, max(n_images) as n_images
    from scored
    where test_task = task and operation = 'none' and trained
    group by all
)
select *
from cells
qualify min(train_tissue) over (partition by task, method) <> max(train_tissue) over (partition by task, method)
order by suite, dataset, task, method, train_tissue, test_tissue
