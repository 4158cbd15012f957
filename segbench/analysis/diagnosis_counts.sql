-- How many cells each test window has and how many were predicted in it.
select
    runs.suite, runs.dataset, runs.task, runs.method, runs.method_title as title, runs.run_id,
    images.tissue, images.n_truth, images.n_predictions
from runs
join images on images.run_id = runs.run_id and images.test_task = runs.task
where runs.train_tissue = 'all'
order by suite, dataset, task, method, seed, images.image
