-- Version 1 of the store: one row an attempt with all its context, and what was measured on it.

create table attempts (
    run_id varchar not null,                -- hash of everything that decides the run's result
    attempt integer not null,               -- 1, 2, ...: tries at this run
    status varchar not null check (status in
        ('done', 'failed', 'timeout', 'out-of-memory', 'diverged', 'cancelled', 'lost')),
    error varchar,                          -- one line, null when done
    log_tail varchar,                       -- the end of the method's log, null when done
    method varchar not null,
    method_title varchar not null,
    method_revision integer not null,       -- raised when segbench's own code for the method changes its results
    family varchar not null,
    environment varchar not null,
    category varchar not null,
    trained boolean not null,
    attention boolean not null,
    usability double,                       -- the study's composite, 0..1, null where unknown
    task varchar not null,
    dataset varchar not null,
    dataset_kind varchar not null,          -- tissuenet, livecell, folder, synthetic
    dataset_fingerprint varchar not null,   -- content hash of the data and its preparation
    channels varchar[] not null,
    n_channels integer not null,
    target varchar not null,
    train_tissue varchar not null,          -- 'all' or one tissue
    seed integer not null,
    settings json not null,                 -- every setting of the method
    batch_size integer not null,            -- over all devices
    epochs integer,                         -- done, for methods that count epochs
    iterations integer,                     -- done, for methods that count iterations
    steps_per_epoch integer,
    n_train_images integer,                 -- windows
    n_train_cells integer,
    n_val_images integer,
    n_parameters bigint,
    versions json not null,                 -- library -> version, as imported by the method's process
    lock_hash varchar,                      -- of the environment's lock file
    segbench_version varchar not null,
    git_commit varchar,
    host varchar not null,
    cpu_name varchar,
    num_cpus double not null,               -- granted to the run
    gpu_names varchar[] not null,
    num_gpus double not null,               -- granted to the run; below 1 a share of one GPU
    peak_memory_bytes bigint,
    peak_gpu_memory_bytes bigint,
    started_at timestamp with time zone not null,
    ended_at timestamp with time zone not null,
    folder varchar not null,                -- of the attempt, relative to the results folder
    primary key (run_id, attempt)
);

-- Seconds a phase: wait, environment, data, import, load, train (T), calibrate, save, predict, evaluate.
create table phases (
    run_id varchar not null,
    attempt integer not null,
    phase varchar not null,
    seconds double not null,
    primary key (run_id, attempt, phase)
);

-- A trained model scored on one test task, test tissue and post-operation; metrics are null where there is no truth.
create table evaluations (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    test_tissue varchar not null,           -- 'all' is pooled over the tissues
    operation varchar not null check (operation in ('none', 'dilate', 'erode')),
    radius integer not null,                -- pixels, 0 for none
    map double,
    ap50 double,
    ap75 double,
    ar double,
    ar50 double,
    ar75 double,
    n_images integer not null,
    n_truth integer not null,
    n_predictions integer not null,
    primary key (run_id, test_task, test_tissue, operation, radius)
);

-- The whole numbers of each test window, from which cell metrics follow by adding windows up; operation 'none' only.
create table images (
    run_id varchar not null,
    attempt integer not null,
    test_task varchar not null,
    image integer not null,                 -- number of the test window
    name varchar not null,                  -- of the image that the window was cut from
    tissue varchar not null,
    n_truth integer not null,
    n_predictions integer not null,
    -- pairs matched at IoU 0.50 ... 0.95, and the sums of their IoU
    tp_50 integer not null,
    tp_55 integer not null,
    tp_60 integer not null,
    tp_65 integer not null,
    tp_70 integer not null,
    tp_75 integer not null,
    tp_80 integer not null,
    tp_85 integer not null,
    tp_90 integer not null,
    tp_95 integer not null,
    iou_50 double not null,
    iou_55 double not null,
    iou_60 double not null,
    iou_65 double not null,
    iou_70 double not null,
    iou_75 double not null,
    iou_80 double not null,
    iou_85 double not null,
    iou_90 double not null,
    iou_95 double not null,
    pq_matches integer not null,            -- pairs with IoU above 0.5, and the sum of their IoU
    pq_iou double not null,
    aji_intersection bigint not null,       -- aggregated Jaccard index: numerator and denominator, pixels
    aji_union bigint not null,
    seg double not null,                    -- sum of SEG's IoU over the true cells
    splits integer not null,
    merges integer not null,
    primary key (run_id, test_task, image)
);

-- The losses of training, in order.
create table history (
    run_id varchar not null,
    attempt integer not null,
    point integer not null,
    epoch integer,
    step integer,
    loss double,
    val_loss double,
    primary key (run_id, attempt, point)
);

-- What the data are made of: one row a dataset version, split, target and tissue ('all' is pooled).
create table tissues (
    dataset_fingerprint varchar not null,
    dataset varchar not null,
    split varchar not null,
    target varchar not null,
    tissue varchar not null,
    n_images integer not null,              -- windows
    n_cells integer not null,
    area double,                            -- mean, pixels
    elongation double,                      -- mean of smaller over larger eigenvalue of the boundary's covariance
    convexity double,                       -- mean of hull perimeter over perimeter
    pixel_size_um double,
    primary key (dataset_fingerprint, split, target, tissue)
);
