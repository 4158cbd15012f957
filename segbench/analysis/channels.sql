-- The scores of models with the target's own channel and with both: one row a method, test tissue, seed and number of
-- channels, of models trained on all tissues and scored on their own task.
select
    suite, dataset, target, scored.method, any_value(scored.method_title) as title, test_tissue, scored.seed, n_channels,
    avg(accuracy) as accuracy, avg(map) as map, avg(ap50) as ap50, avg(ap75) as ap75, avg(ar) as ar, avg(ar50) as ar50,
    avg(ar75) as ar75, avg(timings.standardised_s) / 3600 as hours, max(n_images) as n_images
from scored
left join timings using (run_id)
where scored.train_tissue = 'all' and layout = 'tissuenet' and test_task = scored.task and operation = 'none'
    and n_channels in (1, 2)
group by all
order by suite, dataset, target, method, test_tissue, seed, n_channels
