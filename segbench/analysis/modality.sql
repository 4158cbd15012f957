-- Single-channel models trained on all tissues (a method that is not trained has no modality of its own), scored on their own task and on the other single-channel task of their
-- dataset; over seeds. The target of a task that was not trained itself is read from its name.
, targets as (
    select distinct task as test_task, target from runs
),
tests as (
    select
        scored.*,
        coalesce(targets.target, nullif(regexp_extract(test_task, '-(nuclear|wholecell)(-|$)', 1), '')) as test_target
    from scored
    left join targets using (test_task)
    where trained and train_tissue = 'all' and layout = 'tissuenet' and n_channels = 1 and operation = 'none'
)
select
    suite, dataset, method, any_value(method_title) as title, task, target, test_task, test_target, test_tissue,
    avg(accuracy) as accuracy, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar) as ar, avg(ar50) as ar50,
    avg(ar75) as ar75, count(*) as runs, max(n_images) as n_images
from tests
group by all
order by suite, dataset, method, task, test_task, test_tissue
