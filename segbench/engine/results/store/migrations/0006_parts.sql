-- Runs on a part of the training images.
alter table attempts add column train_images integer;       -- pictures drawn to train on; null: all of the training tissue
alter table attempts add column n_train_pictures integer;   -- that the training windows were cut from
