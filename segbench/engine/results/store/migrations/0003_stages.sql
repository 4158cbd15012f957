-- The stages of an attempt, each with its own status and time, and attempts that score or predict again what another has left.
alter table attempts add column trained_in integer;     -- the attempt whose model this one took up; null: its own
alter table attempts add column step_s double;          -- seconds a training step, median after the first tenth
alter table attempts add column stage varchar default 'train';  -- where it began: 'train'; 'predict' or 'evaluate' again
alter table attempts add column of_run varchar;         -- whose model or predictions it used again; null: none
alter table attempts add column of_attempt integer;

-- One row a try at a stage, in the attempt that made it: a model that was taken up has its training in another attempt.
create table stages (
    run_id varchar not null,
    attempt integer not null,
    stage varchar not null check (stage in ('train', 'predict', 'evaluate')),
    number integer not null,                -- 1, 2, ...: tries at the stage in this attempt
    status varchar not null check (status in
        ('done', 'failed', 'timeout', 'out-of-memory', 'diverged', 'cancelled', 'lost')),
    error varchar,
    started_at timestamp with time zone not null,
    seconds double,                         -- on the clock; null where its process was killed
    at_once integer,                        -- of prediction: windows that went through the network together, at its end
    log varchar not null,                   -- its part of the log, relative to the attempt's folder
    primary key (run_id, attempt, stage, number)
);
