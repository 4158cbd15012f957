-- How many test images a task has: those that windows were cut from, by one run of each task.
, one as (
    select test_task, min(run_id) as run_id from scored where test_task = task and train_tissue = 'all' group by test_task
)
select images.test_task as task, count(distinct name)::integer as n_images
from images
join one on one.run_id = images.run_id and one.test_task = images.test_task
group by images.test_task
