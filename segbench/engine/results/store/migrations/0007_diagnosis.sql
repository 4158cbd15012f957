-- What a run's score on its own task is made of; of records since schema 5, and of runs that were scored again.

-- The shares of a gap (1 - score) that kinds of error have: each kind's mean gain over all orders in which the kinds could be
-- mended. They add up to the gap; null where there is no truth.
create table gaps (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    test_tissue varchar not null,           -- 'all' is pooled over the tissues
    metric varchar not null,                -- 'map', 'ap50', 'ap75'
    score double,
    gap double,
    missed double,                          -- true cells that no prediction has to do with
    split double,                           -- cells in several predictions
    merged double,                          -- several cells in one prediction
    spurious double,                        -- predictions that have to do with no cell
    loose double,                           -- outlines that are not close enough
    primary key (run_id, test_task, test_tissue, metric)
);

-- What became of the true cells at IoU 0.5, together, and by quarters of their number.
create table cell_strata (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    test_tissue varchar not null,
    parted_by varchar not null,             -- 'all'; 'size' (pixels), 'density' (true cells in 10,000 pixels): over all tissues
    stratum integer not null,               -- 0 for 'all', 1 the smallest or sparsest, up
    low double,                             -- of the size or density
    high double,
    n_truth integer not null,               -- found + missed + split + merged + loose
    found integer not null,
    missed integer not null,
    split integer not null,
    merged integer not null,
    loose integer not null,
    spurious integer,                       -- predictions, by their own size; null by density
    mean_iou double,                        -- of the cells that are found, as all that follows
    boundary_iou double,
    boundary_px double,                     -- distance between the outlines in pixels, mean over cells
    boundary_95_px double,                  -- its 95th percentile, mean over cells
    area_ratio double,                      -- predicted to true area, median
    primary key (run_id, test_task, test_tissue, parted_by, stratum)
);

-- How often predictions of a score are right (IoU 0.5).
create table calibration (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    test_tissue varchar not null,
    bin integer not null,
    low double not null,                    -- lowest and highest score
    high double not null,
    n integer not null,
    mean_score double not null,
    correct double not null,                -- share that matches a true cell
    primary key (run_id, test_task, test_tissue, bin)
);
