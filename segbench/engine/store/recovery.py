"""Takes the records that lie in a results folder into its store."""

from __future__ import annotations

from pathlib import Path

from segbench.engine.record import RECORD_NAME, Record
from segbench.engine.store.writer import StoreWriter


def take_in(out: Path, writer: StoreWriter) -> int:
    """Take every record that the store does not have into it, and return how many were new.

    A record that cannot be read (cut off by a full disk, say) is set aside as ``record.json.broken``: its run has no
    result and is run again.
    """
    known = writer.known_attempts()
    fresh: list[Record] = []
    for path in sorted(out.glob(f"runs/*/attempt-*/{RECORD_NAME}")):
        key = (path.parent.parent.name, attempt_number(path.parent))
        if key in known:
            continue
        try:
            fresh.append(Record.read(path))
        except ValueError:
            path.rename(path.with_name(f"{RECORD_NAME}.broken"))
    return writer.add(fresh)


def attempt_number(folder: Path) -> int:
    """Return the number of an attempt's folder, ``attempt-007``; 0 where it is not one."""
    number = folder.name.removeprefix("attempt-")
    return int(number) if number.isdigit() else 0
