-- The curves of dilation.sql seed by seed, by which a radius is told apart from the best one.
select
    suite, task, test_task, method, operation, test_tissue, radius, seed, avg(accuracy) as accuracy, avg(map) as map,
    avg(ap50) as ap50, avg(ap75) as ap75, avg(ar) as ar, avg(ar50) as ar50, avg(ar75) as ar75
from scored
where train_tissue = 'all' and test_task <> task and layout = 'tissuenet' and operation in ('dilate', 'erode')
group by all
order by suite, task, test_task, method, operation, test_tissue, radius, seed
