-- A trained model scored on whole test images, put together from its predictions of windows, beside the windows' own scores in
-- the table evaluations: runs whose grid says "evaluation: whole"; on their own task, without post-operation.
create table whole_evaluations (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    test_tissue varchar not null,           -- 'all' is pooled over the tissues
    map double,
    ap50 double,
    ap75 double,
    ar double,
    ar50 double,
    ar75 double,
    n_images integer not null,              -- whole images
    n_truth integer not null,               -- cells, each once
    n_predictions integer not null,
    primary key (run_id, test_task, test_tissue)
);

-- Scores of windows and of whole images side by side, a row each, for the finished runs that have both. A pixel of an image
-- counts in every window that shows it, and windows cut cells at their edges; a whole image counts both once. of_run is the run
-- whose predictions were scored again.
create view accuracy_by_evaluation as
with scored as (
    select
        run_id, 'windows' as evaluation, test_task, test_tissue, map, ap50, ap75, ar, ar50, ar75, n_images, n_truth, n_predictions
    from evaluations
    where operation = 'none'
    union all by name
    select * exclude (attempt), 'whole' as evaluation from whole_evaluations
)
select
    runs.run_id, runs.of_run, runs.method, runs.method_title, runs.task, runs.train_tissue, runs.seed,
    scored.* exclude (run_id),
    (scored.map + scored.ap50 + scored.ap75 + scored.ar50 + scored.ar75) / 5 as accuracy
from attempts as runs
join scored using (run_id)
where runs.status = 'done'
    and exists (from whole_evaluations as whole where whole.run_id = runs.run_id and whole.test_task = scored.test_task)
order by runs.task, runs.method, runs.seed, scored.test_tissue, scored.evaluation;
