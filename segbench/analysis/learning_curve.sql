-- One row a finished run with what it was trained on and its score on its own task, pooled over the test tissues: of trained
-- methods, and of those tasks and training tissues that have runs on a part of the training images.
select
    runs.run_id, runs.method, runs.method_title as title, runs.task, runs.train_tissue, runs.seed, runs.train_images,
    runs.n_train_pictures as images, runs.n_train_cells as cells, accuracy.accuracy, accuracy.map, accuracy.ap50,
    accuracy.ap75, accuracy.ar, accuracy.ar50, accuracy.ar75
from runs_latest as runs
join accuracy using (run_id)
where runs.status = 'done' and runs.trained and accuracy.test_task = runs.task and accuracy.test_tissue = 'all'
    and accuracy.operation = 'none'
qualify count(*) filter (runs.train_images is not null) over (partition by runs.method, runs.task, runs.train_tissue) > 0
order by runs.task, runs.method, runs.train_tissue, images, runs.seed
