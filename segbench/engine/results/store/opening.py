"""The one door to DuckDB files: shut to all else, and whatever is wrong with a file told in one line."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import duckdb

REPAIR = "'segbench store repair' rebuilds it from the records"
_LOCAL = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
_SHUT = {"enable_external_access": "false", **_LOCAL}
_RETRY_S = 0.05
_MAGIC = {b"SQLite format 3\0": "SQLite", b"PK\x03\x04": "zip", b"PAR1": "Parquet", b"\x89HDF": "HDF5"}
_OF_THE_SYSTEM = (
    "no space left", "quota", "permission denied", "read-only file system", "too many open files", "file too large",
    "input/output error", "cannot open file", "could not create file", "operation not permitted", "is a directory",
)  # fmt: skip


class DamagedStoreError(SegbenchError):
    """The store's file or its log is broken; the records are not, and repair makes the store anew from them."""


class ForeignStoreError(SegbenchError):
    """The file is another program's, or a newer segbench's: it is neither read nor changed."""


class StoreBusyError(SegbenchError):
    """Another process held the store for too long; what was to be written is still on disk as records.

    Parameters
    ----------
    message
        One line.
    held_by
        Who holds it, as far as DuckDB tells: `` (duckdb, process 4711)``.
    """

    def __init__(self, message: str, held_by: str) -> None:
        super().__init__(message)
        self.held_by = held_by


def wal_path(path: Path) -> Path:
    """Return where DuckDB's write-ahead log of a store lies; there is one only after a writer was killed."""
    return path.with_name(f"{path.name}.wal")


def is_locked(error: BaseException) -> bool:
    """Return whether a DuckDB error says that another process holds the file."""
    return "Could not set lock" in str(error) or "Conflicting lock" in str(error)


def holder(error: BaseException) -> str:
    """Return who holds the file, from DuckDB's error: `` (python3.11, process 4711)``; empty where it does not say.

    Examples
    --------
    >>> holder(OSError("Could not set lock on file: Conflicting lock is held in /usr/bin/duckdb (PID 4711). See also"))
    ' (duckdb, process 4711)'
    """
    found = re.search(r"held in (\S+) \(PID (\d+)\)", str(error))
    return f" ({Path(found[1]).name}, process {found[2]})" if found else ""


def in_memory() -> duckdb.DuckDBPyConnection:
    """Return an empty database in memory that reaches no file and no network."""
    import duckdb

    return duckdb.connect(":memory:", config=dict(_SHUT))


@contextmanager
def opened(
    path: Path,
    *,
    read_only: bool,
    patience_s: float,
    writes_into: Path | None = None,
    called: Path | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB file with no way out of it: no other file, no network, no extension.

    What goes wrong with the file while it is opened or used is told as one of the errors below; what DuckDB has to say
    against a query is left as it is.

    Parameters
    ----------
    path
        The file; one that is missing or empty is made where it is opened for writing.
    read_only
        Whether to open it for reading only.
    patience_s
        How long to wait while another process holds it.
    writes_into
        The one folder that queries may write to and read from: an empty one.
    called
        What errors call the file; None for its own path.

    Raises
    ------
    DamagedStoreError, ForeignStoreError
        The file cannot be read.
    StoreBusyError
        Another process held it for longer than ``patience_s``.
    SegbenchError
        The system refuses (a full disk, missing rights).
    """
    import duckdb

    connection = _connect(path, called or path, read_only, patience_s, _SHUT if writes_into is None else _LOCAL)
    try:
        if writes_into is not None:
            folder = str(writes_into.resolve()).replace("'", "''")
            connection.execute(f"set allowed_directories = ['{folder}/']")
            connection.execute("set enable_external_access = false")
        yield connection
    except (duckdb.Error, RuntimeError, UnicodeDecodeError) as error:
        told = of_the_file(error, called or path)
        if told is None:
            raise
        raise told from None
    finally:
        _close(connection)


def _connect(
    path: Path, called: Path, read_only: bool, patience_s: float, config: dict[str, str]
) -> duckdb.DuckDBPyConnection:
    import duckdb

    deadline = time.monotonic() + patience_s
    while True:
        try:
            return duckdb.connect(path, read_only=read_only, config=dict(config))
        except (duckdb.Error, RuntimeError, UnicodeDecodeError) as error:
            if not is_locked(error):
                if not read_only and _is_empty(path):
                    # what a full disk left of the first try, which nobody has open; a log beside it is no store's
                    set_aside(wal_path(path))
                    path.unlink()
                    continue
                raise _at_the_door(error, path, called) from None
            if time.monotonic() >= deadline:
                raise StoreBusyError(
                    f"{called} has been held by another process{holder(error)} for {patience_s:.0f} s; "
                    "close that DuckDB client. No result is lost: records are taken in the next time",
                    holder(error),
                ) from None
            time.sleep(_RETRY_S)


def _is_empty(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size == 0
    except OSError:
        return False


def _close(connection: duckdb.DuckDBPyConnection) -> None:
    import duckdb

    try:
        connection.close()
    except duckdb.Error:  # a database that has failed once cannot write its log into itself either
        return


def require_own(connection: duckdb.DuckDBPyConnection, path: Path, *, may_be_new: bool = False) -> None:
    """Look whether a file that was opened is a store that this segbench knows.

    Parameters
    ----------
    connection
        To the file.
    path
        What to call it.
    may_be_new
        Whether a database without any table will do.

    Raises
    ------
    ForeignStoreError
        It is a newer segbench's, or no store.
    DamagedStoreError
        It lacks what a store has.
    """
    import duckdb

    from segbench.engine.results.store.migrate import applied, newer_schema

    with read_by_us(path):
        tables = {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
    if not tables and may_be_new:
        return
    try:
        newer = newer_schema(connection)
        known = bool(applied(connection))
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException, ValueError, TypeError):
        newer, known = None, False
    if newer is not None:
        raise ForeignStoreError(f"{path}: {newer}")
    if not known:
        raise ForeignStoreError(
            f"{path} holds no segbench store: it is another program's, or not written yet. Name another --out, or move "
            "it away"
        )


@contextmanager
def read_by_us(path: Path) -> Iterator[None]:
    """Take every error of DuckDB's in the block for damage: the queries in it are our own, and sound.

    Raises
    ------
    DamagedStoreError
        What a store has is not there, or cannot be read.
    SegbenchError
        The system refuses.
    """
    import duckdb

    try:
        yield
    except (duckdb.Error, RuntimeError, UnicodeDecodeError) as error:
        raise of_the_file(error, path) or _damaged(error, path) from None


def set_aside(path: Path, mark: str = "aside") -> Path | None:
    """Rename a file so that nothing else has its new name; return that, None where there is no such file."""
    if not path.exists():
        return None
    to = free_name(path.with_name(f"{path.name}.{mark}"))
    path.rename(to)
    return to


def free_name(path: Path) -> Path:
    """Return the path, or where something is there already the same with ``-2``, ``-3``."""
    for n in range(1, 1000):
        found = path if n == 1 else path.with_name(f"{path.name}-{n}")
        if not found.exists() and not found.is_symlink() and not wal_path(found).exists():
            return found
    return path.with_name(f"{path.name}-{secrets.token_hex(6)}")


def _at_the_door(error: Exception, path: Path, called: Path) -> SegbenchError:
    """Return what to say of a file that DuckDB cannot open."""
    if _is_of_the_system(error):
        return SegbenchError(f"cannot open {called}: {one_line(error)}")
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError as refused:
        return SegbenchError(f"cannot open {called}: {refused.strerror}")
    kind = next((name for magic, name in _MAGIC.items() if begin.startswith(magic)), None)
    if kind is not None:
        return ForeignStoreError(f"{called} is a file of {kind}, no segbench store: move it away")
    if "version number" in str(error):
        return ForeignStoreError(f"{called} was written by a newer DuckDB: upgrade segbench ({one_line(error)})")
    return _damaged(error, called)


def of_the_file(error: Exception, path: Path) -> SegbenchError | None:
    """Return what to say of a file that broke in use; None where the error is about the query."""
    import duckdb

    if isinstance(error, duckdb.OutOfMemoryException) or _is_of_the_system(error):
        return SegbenchError(
            f"cannot write {path}: {one_line(error)}. Mend that (a full disk?) and launch again: no finished run is "
            "lost, its record is taken in then"
        )
    broken: tuple[type[Any], ...] = (duckdb.IOException, duckdb.FatalException, duckdb.SerializationException)
    if type(error) is duckdb.Error or isinstance(error, broken) or "checksum" in str(error):
        return _damaged(error, path)
    return None


def _is_of_the_system(error: Exception) -> bool:
    import duckdb

    text = str(error).lower()
    return isinstance(error, duckdb.OperationalError | duckdb.FatalException) and any(
        words in text for words in _OF_THE_SYSTEM
    )


def _damaged(error: Exception, path: Path) -> DamagedStoreError:
    why = "it is no DuckDB file" if "not a valid DuckDB" in str(error) else one_line(error)
    return DamagedStoreError(f"{path} is damaged ({why}): {REPAIR}")


def one_line(error: Exception, lines: int = 1) -> str:
    """Return the beginning of what DuckDB says, in one line."""
    text = str(error)
    if named := re.search(
        r'"exception_message": ?"((?:[^"\\]|\\.)*)"', text
    ):  # DuckDB's own error as JSON, about bytes
        text = named[1].replace('\\"', "'")
    told = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(told[:lines])[:300] or type(error).__name__
