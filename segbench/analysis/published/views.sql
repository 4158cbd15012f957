-- The published table under the names of the store's views, with the same columns: what the table does not give is null.
-- Runs after the store's own schema and views, from which the columns are taken. Table `published` holds the rows.

create table published_runs as from runs_latest limit 0;
insert into published_runs by name
select
    run_id, 1 as attempt, 'done' as status, method, method_title, trained, attention, category, family, usability, task,
    dataset, dataset as dataset_kind, 'published' as dataset_fingerprint, channels, n_channels, target, train_tissue,
    0 as seed
from published;

create table published_accuracy as from accuracy limit 0;
insert into published_accuracy by name
select
    run_id, method, method_title, task, dataset, dataset as dataset_kind, target, n_channels, train_tissue, 0 as seed,
    false as control, task as test_task, 'all' as test_tissue, 'none' as operation, 0 as radius, accuracy
from published;

create table published_timings as from timings limit 0;
insert into published_timings by name
select run_id, method, method_title, task, train_tissue, 0 as seed, false as control, hours * 3600 as standardised_s
from published;

create or replace view runs_latest as from published_runs;
create or replace view accuracy as from published_accuracy;
create or replace view timings as from published_timings;
