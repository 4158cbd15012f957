-- One row a task and method trained on all tissues: scores pooled over the test set and standardised time, over seeds.
, scores as (
    select
        suite, dataset, layout, task, target, n_channels, method,
        any_value(method_title) as title, max(usability) as usability, count(*) as runs,
        avg(accuracy) as accuracy, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar50) as ar50, avg(ar75) as ar75
    from scored
    where train_tissue = 'all' and test_task = task and test_tissue = 'all' and operation = 'none'
    group by all
),
times as (
    select task, method, avg(standardised_s) / 3600 as hours
    from timings
    where train_tissue = 'all' and train_images is null
    group by all
)
select scores.*, times.hours
from scores
left join times using (task, method)
order by suite, task, method
