-- What may be recommended: one row a method, task, training tissue and seed for what is segmented ($1: wholecell or nuclear)
-- with at most $2 channels, in images of unstained cells or not ($3), of one dataset or any ($5), with its score on a
-- tissue ($4) and pooled, and what its training took.
select
    suite, dataset, scored.task, n_channels, scored.method, scored.method_title as title, trained, scored.train_tissue,
    scored.seed, test_tissue, accuracy, map, ap50, ap75, ar, ar50, ar75, n_images,
    train_s / 3600 as hours, standardised_s / 3600 as standardised_hours, gpu_hours, timings.num_gpus
from scored
left join timings using (run_id)
where object = $1::varchar and n_channels <= $2::integer and (layout = 'livecell') = $3::boolean
    and test_tissue in ($4::varchar, 'all') and dataset = coalesce($5::varchar, dataset)
    and test_task = scored.task and operation = 'none'
order by suite, scored.task, scored.method, scored.train_tissue, test_tissue, scored.seed
