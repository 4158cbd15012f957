-- How far each trained run came: its budget as it ran, and its loss at the beginning, before the end and at the end (medians
-- of a tenth and of two sixths of the curve's points).
, finished as (
    select runs.*, latest.steps_per_epoch, coalesce(latest.trained_in, latest.attempt) as trained_in
    from runs
    join runs_latest as latest using (run_id)
    where runs.trained
),
curve as (
    select
        history.run_id, loss,
        row_number() over (partition by history.run_id order by point) as place,
        count(*) over (partition by history.run_id) as points
    from history
    join finished on finished.run_id = history.run_id and finished.trained_in = history.attempt
    where loss is not null and isfinite(loss)
),
ends as (
    select
        run_id,
        max(points) as points,
        median(loss) filter (place <= greatest(1, points // 10)) as first_loss,
        median(loss) filter (place between points - 2 * greatest(1, points // 6) + 1 and points - greatest(1, points // 6))
            as before_loss,
        median(loss) filter (place > points - greatest(1, points // 6)) as last_loss
    from curve
    group by run_id
)
select
    run_id, suite, method, task, train_tissue, seed, batch_size, epochs, iterations, steps_per_epoch, points, first_loss,
    before_loss, last_loss
from finished
left join ends using (run_id)
order by suite, method, task, train_tissue, seed
