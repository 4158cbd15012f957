-- One row a task, method, seed and test tissue, of methods trained on all tissues: what the bootstrap resamples.
select suite, dataset, task, method, seed, test_tissue, avg(accuracy) as accuracy, max(n_images) as n_images
from scored
where train_tissue = 'all' and test_task = task and test_tissue <> 'all' and operation = 'none' and accuracy is not null
group by all
order by suite, dataset, task, method, seed, test_tissue
