-- One row a task, method and seed, of methods trained on all tissues: the score pooled over the test set, and the time.
select
    suite, dataset, scored.task, scored.method, scored.seed, bool_or(scored.trained) as trained, avg(accuracy) as accuracy,
    avg(standardised_s) / 3600 as hours
from scored
left join timings using (run_id)
where scored.train_tissue = 'all' and test_task = scored.task and test_tissue = 'all' and operation = 'none'
    and accuracy is not null
group by all
order by suite, task, method, seed
