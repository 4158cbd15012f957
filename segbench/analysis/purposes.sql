-- What the runs with a score were made for: a row a task.
select distinct suite, dataset, task, object, layout, n_channels
from scored
where test_task = task and operation = 'none' and accuracy is not null
order by suite, dataset, task
