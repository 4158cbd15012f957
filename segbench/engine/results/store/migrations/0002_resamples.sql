-- The pooled metrics of a run in resamples of the test images, the same draws for every run that is scored on those images:
-- what intervals of ranks and of differences are made of. Runs trained on all tissues, on their own task, operation 'none'.
create table resamples (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    resample integer not null,              -- 0, 1, ...: equal numbers are equal draws
    map double,
    ap50 double,
    ap75 double,
    ar double,
    ar50 double,
    ar75 double,
    primary key (run_id, test_task, resample)
);
