-- Runs on a part of the training images, and trained models applied to degraded test windows.
alter table attempts add column train_images integer;       -- pictures drawn to train on; null: all of the training tissue
alter table attempts add column n_train_pictures integer;   -- that the training windows were cut from

-- A model scored on test windows that were made worse, and (kind 'none') on the same windows as they are; pooled and by tissue.
create table robustness (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    test_tissue varchar not null,           -- 'all' is pooled over the tissues
    kind varchar not null,                  -- none, blur, noise, dim, rescale, swap, jpeg
    step integer not null,                  -- 0 for none; 1, 2, ... worse each time
    amount double not null,                 -- pixels, standard deviation, factor or quality, by the kind
    map double,
    ap50 double,
    ap75 double,
    ar double,
    ar50 double,
    ar75 double,
    n_images integer not null,
    n_truth integer not null,
    n_predictions integer not null,
    primary key (run_id, test_task, test_tissue, kind, step)
);
