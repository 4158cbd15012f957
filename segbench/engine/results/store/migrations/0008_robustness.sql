-- Schema 8: how well a run's model does on degraded test images.

-- One score a kind and step of degradation, pooled ('all') or of a test tissue. Where a step leaves only a part of the
-- windows to be seen, the predictions on the images as they are are scored on that part, too (clean).
create table degraded_evaluations (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    kind varchar not null,                  -- 'blur', 'noise', 'dim', 'smaller', 'larger', 'swap', 'jpeg'; 'none' as they are
    step integer not null,                  -- 1, 2, ...: ever worse; 0 for 'none'
    amount double not null,                 -- in the kind's unit
    clean boolean not null,                 -- predicted on the images as they are
    test_tissue varchar not null,
    map double,
    ap50 double,
    ap75 double,
    ar double,
    ar50 double,
    ar75 double,
    n_images integer not null,
    n_truth integer not null,
    n_predictions integer not null,
    primary key (run_id, test_task, kind, step, clean, test_tissue)
);

-- The pooled scores in resamples of the test images, the same for every step, run and kind on one test set.
create table degraded_resamples (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    kind varchar not null,
    step integer not null,
    clean boolean not null,
    resample integer not null,
    map double,
    ap50 double,
    ap75 double,
    ar double,
    ar50 double,
    ar75 double,
    primary key (run_id, test_task, kind, step, clean, resample)
);
