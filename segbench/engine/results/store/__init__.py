"""The store: one DuckDB file, its one writer and its readers."""

from segbench.engine.results.store.reader import as_frame, query, read_connection
from segbench.engine.results.store.writer import StoreWriter

__all__ = ["StoreWriter", "as_frame", "query", "read_connection"]
