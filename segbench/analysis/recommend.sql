-- What may be recommended: one row a method, task and training tissue for a target ($1) of a layout ($2) with at most $3
-- channels, with its score on a tissue ($4) and pooled, and what its training took; over seeds.
, own as (
    select
        suite, dataset, task, n_channels, method, any_value(method_title) as title, bool_or(trained) as trained, train_tissue,
        test_tissue, avg(accuracy) as accuracy, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar) as ar,
        avg(ar50) as ar50, avg(ar75) as ar75
    from scored
    where target = $1::varchar and layout = $2::varchar and n_channels <= $3::integer and test_tissue in ($4::varchar, 'all')
        and test_task = task and operation = 'none'
    group by all
),
cost as (
    select
        task, method, train_tissue, avg(train_s) / 3600 as hours, avg(standardised_s) / 3600 as standardised_hours,
        avg(gpu_hours) as gpu_hours, max(num_gpus) as num_gpus
    from timings
    group by all
)
select own.*, cost.* exclude (task, method, train_tissue)
from own
left join cost using (task, method, train_tissue)
order by suite, task, method, train_tissue, test_tissue
