"""The gallery: many packages with their scores, as a static site and an index that programs read."""
