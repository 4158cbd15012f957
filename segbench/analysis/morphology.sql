-- What each tissue is made of: training windows and cells, and the mean shape of its test cells; a row a dataset version.
, known as (
    select
        dataset_fingerprint, any_value(suite) as suite,
        -- Fits the target's channel to the layout: a livecell dataset has one task
        any_value(layout) as layout
    from runs
    group by dataset_fingerprint
)
select
    known.suite, known.layout, dataset, dataset_fingerprint, target, tissue,
    max(n_images) filter (split = 'train') as n_train_images,
    max(n_cells) filter (split = 'train') as n_train_cells,
    max(n_images) filter (split = 'test') as n_test_images,
    max(n_cells) filter (split = 'test') as n_test_cells,
    max(area) filter (split = 'test') as area,
    max(elongation) filter (split = 'test') as elongation,
    max(convexity) filter (split = 'test') as convexity,
    max(pixel_size_um) as pixel_size_um
from tissues
join known using (dataset_fingerprint)
group by all
order by suite, dataset, dataset_fingerprint, target, tissue
