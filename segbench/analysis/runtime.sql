-- One row a finished run: its training time T, the standardised time, the GPUs it held and how long.
select
    runs.suite, runs.dataset, runs.layout, runs.task, runs.target, runs.n_channels, runs.method, runs.method_title as title,
    runs.trained, runs.train_tissue, runs.seed, runs.batch_size, runs.epochs, runs.iterations, runs.n_train_images,
    runs.num_cpus, runs.num_gpus, runs.gpus,
    timings.train_s, timings.standardised_s, timings.gpu_hours, timings.predict_s
from runs
join timings using (run_id)
order by suite, task, method, train_tissue, seed
