-- What a stage of a method takes on a device: a few real steps at two batch sizes ('segbench methods measure').
-- A measurement is a file of the results folder first; a store that is built anew takes it in again.
create table measurements (
    measurement varchar not null,           -- of one method at one time
    stage varchar not null check (stage in ('train', 'predict')),
    batch integer not null,                 -- windows that go through the network at once
    method varchar not null,
    settings json not null,                 -- every setting of the method
    precision varchar not null,             -- as the settings have it
    device varchar not null,                -- name of the GPU, or 'cpu'
    device_bytes bigint,                    -- memory of the GPU
    num_cpus double not null,
    side integer not null,                  -- of a window, pixels
    n_channels integer not null,
    windows_per_s double,                   -- once the stage runs steadily
    bytes bigint,                           -- most that was held: on a GPU by the library's own counter, else by the process
    versions json not null,
    segbench_version varchar not null,
    host varchar not null,
    measured_at timestamp with time zone not null,
    primary key (measurement, stage, batch)
);
