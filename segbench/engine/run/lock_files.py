"""Finds the lock files of an environment, segbench's own or those that another distribution brings."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from segbench.errors import SegbenchError, unknown_name

LOCKS = Path(__file__).parent / "locks"
"""The locks: ``NAME-cpu.txt`` and ``NAME-gpu.txt``, or one ``NAME.txt`` for both; lines are ``distribution==version``,
with the SHA-256 of its files behind them (``--hash=sha256:...``, on the same line or behind backslashes).

Two more kinds of file may stand beside them. ``NAME.unresolved.txt`` pins distributions whose own metadata refuse this
Python or each other, though they run. ``NAME.cp310.txt`` pins wheels, with their hash, that are
tagged for another Python (here 3.10) because of an extension that is not used: they go into a folder
of their own, last on the interpreter's path.
"""
GROUP = "segbench.environments"
"""The entry-point group in which a distribution declares ``NAME = "package:folder"``: where its locks lie."""
ENGINE = "engine"
"""The name of the environment that is the engine's own interpreter."""
ANY, FOREIGN, UNRESOLVED = "any", "cp310", "unresolved"
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([^\s;=]+)( --hash=sha256:[0-9a-f]{64})*")


def pins(text: str) -> Iterator[tuple[int, str]]:
    """Yield the pins of a lock with the number of the line that each begins on, and its hashes on that line.

    Examples
    --------
    >>> list(pins("# of two\\na==1 \\\\\\n    --hash=sha256:00\\nb==2\\n"))
    [(2, 'a==1 --hash=sha256:00'), (4, 'b==2')]
    """
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not parts and (not stripped or stripped.startswith("#")):
            continue
        begun = begun if parts else number
        parts.append(stripped.removesuffix("\\").strip())
        if not stripped.endswith("\\"):
            yield begun, " ".join(parts)
            parts = []
    if parts:
        yield begun, " ".join(parts)


@dataclass(frozen=True)
class LockFiles:
    """The lock files of one environment, whether they exist or not."""

    environment: str
    folder: Path

    @property
    def serves_both(self) -> bool:
        """True where one lock serves processors and GPUs."""
        return self.lock(ANY).is_file()

    def has(self, variant: str) -> bool:
        """Return whether there is a lock for ``cpu``, ``gpu`` or ``any``."""
        return self.lock(variant).is_file()

    def lock(self, variant: str) -> Path:
        """Return where the lock for ``cpu``, ``gpu`` or ``any`` would be."""
        return self.folder / (f"{self.environment}.txt" if variant == ANY else f"{self.environment}-{variant}.txt")

    def beside(self, kind: str) -> Path:
        """Return where the pins of kind ``unresolved`` or ``cp310`` would be; most environments have none."""
        return self.folder / f"{self.environment}.{kind}.txt"

    def text(self, variant: str) -> str:
        """Return all pins; SegbenchError where there is no such variant, or a line is no pin."""
        if not self.has(variant):
            raise SegbenchError(f"environment {self.environment!r} has no {variant} variant")
        paths = [self.lock(variant), *(p for p in map(self.beside, (UNRESOLVED, FOREIGN)) if p.is_file())]
        for path in paths:
            for number, line in pins(path.read_text()):
                if not _PIN.fullmatch(line):
                    raise SegbenchError(
                        f"{path}, line {number}: found {line!r}; a lock's lines are DISTRIBUTION==VERSION"
                    )
        return "\n".join(path.read_text() for path in paths)


def environment_names() -> list[str]:
    """Return the names of the environments that can be built here, and ``engine``."""
    return sorted({ENGINE, *_own(), *(entry.name for entry in entry_points(group=GROUP))})


def is_shipped(environment: str) -> bool:
    """Return whether an environment is segbench's own: its name is no other distribution's."""
    return environment == ENGINE or environment in _own()


def declared_by(distribution: str) -> set[str]:
    """Return the names of the environments that a distribution says it brings."""
    return {entry.name for entry in entry_points(group=GROUP) if _owner(entry) == distribution}


def lock_files(environment: str) -> LockFiles:
    """Return an environment's lock files.

    Raises
    ------
    SegbenchError
        No such environment (with the nearest names), two distributions that bring it, one that takes a name of
        segbench's, or one whose folder is not there.
    """
    if environment in _own():
        return LockFiles(environment, LOCKS)
    declared = {entry.value: entry for entry in entry_points(group=GROUP) if entry.name == environment}
    if not declared:
        raise unknown_name("environment", environment, environment_names())
    if len(declared) > 1 or environment == ENGINE:
        told = " and ".join(f"{_owner(entry)} ({entry.value})" for entry in declared.values())
        raise SegbenchError(f"more than one distribution brings an environment {environment!r}: {told}; uninstall one")
    (entry,) = declared.values()
    found = LockFiles(environment, _folder(entry))
    if not (found.serves_both or found.has("cpu") or found.has("gpu")):
        raise SegbenchError(
            f"environment {environment!r} of distribution {_owner(entry)} has no lock: there is neither "
            f"{found.lock(ANY)} nor {found.lock('cpu').name}"
        )
    return found


def _own() -> set[str]:
    return {re.sub(r"-(cpu|gpu)$", "", path.name.split(".")[0]) for path in LOCKS.glob("*.txt")}


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unnamed distribution"


def _folder(entry: EntryPoint) -> Path:
    """Return the folder that ``package:folder`` means; the package is found and not imported."""
    package, _, inner = entry.value.partition(":")
    top, *below = package.strip().split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise SegbenchError(
            f"environment {entry.name!r} of distribution {_owner(entry)}: {entry.value} names no installed package"
        )
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*below, *inner.strip().split("."))
