"""Questions to the store: SQL in, Polars frames out."""
